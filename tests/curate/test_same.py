"""Texts in like words that ask the same, and others that do not, whether or not their answers are known."""

from __future__ import annotations

import pytest

from ringrl.curate.dress import bare, plain
from ringrl.curate.lsh import text_of
from ringrl.curate.same import asks_the_same
from ringrl.domains import Domains

STORY = ("Sarah buys 12 pears in the market for $2 each. Then she sells 5 of them to her brother for 3 dollars each. "
         "How many minutes did she need for it, if she took 20 minutes for every pear that she sold?")  # fmt: skip
FORMULA = (
    r"Let $f(x)=x^3+|k|x$ with $x \in [0,1]$. Find the maximum of $\sin(f(x))$ in terms of $k$ and $\frac{1}{2x}$."
)


def changed(old: str, new: str, of: str = STORY) -> tuple[str, str]:
    assert old in of
    return of, of.replace(old, new)


SAME = [
    changed("12", "twelve"), changed("$2", "$2.00"), changed("Sarah", "Xiomara"), changed("minutes", "min"),
    changed("pears", "paers"), changed("minutes", "rninutes"), changed("Then she", "Afterwards she"),
    (STORY, "12. " + STORY), (STORY, STORY.upper()), (STORY, STORY.lower().replace(".", "")),
    (STORY, " ".join([STORY.split(". ")[1] + ".", STORY.split(". ")[0] + ".", STORY.split(". ")[2]])),
    changed("x", "t", FORMULA), changed(r"\frac", r"\dfrac", FORMULA), changed("|k|", r"\lvert k \rvert ", FORMULA),
    ("小明有三十五个苹果,小红有二十个。一共几个?", "小明有35个苹果，小红有20个。一共几个？"),
]  # fmt: skip
OTHER = [
    changed("12", "13"), changed("12 pears", "5 pears"),
    (STORY, STORY.replace("12", "99").replace("5 of", "12 of").replace("99", "5")),
    changed("minutes did", "hours did"), changed("sells", "does not sell"),
    changed("maximum", "minimum", FORMULA), changed(r"\sin", r"\cos", FORMULA), changed("|k|", "k", FORMULA),
    changed("[0,1]", "(0,1)", FORMULA), changed(r"\frac{1}{2x}", r"\frac{1}{2}x", FORMULA),
    changed("f(x)=", "f'(x)=", FORMULA),
    changed("x^3", "x^{3x}", FORMULA), changed("of $k$", "of $x$", FORMULA),
    ("The law is $PV=nRT$. Solve it for the variable $T$.", "The law is $PV=nRT$. Solve it for the variable $V$."),
    ("In triangle $ABC$ with $a=3$ find the value of $A$.", "In triangle $ABC$ with $a=3$ find the value of $a$."),
    changed("How tall is Ann", "How tall is Bob", "Ann is taller than Bob, and Bob than Cal. How tall is Ann?"),
    changed("семь", "шесть", "У Маши было семь яблок, и она отдала три яблока брату."),
    ("小明有三十五个苹果,小红有二十个。一共几个?", "小明有四十五个苹果,小红有二十个。一共几个?"),
]  # fmt: skip
UNTOLD = [changed("pear that she sold", "plum that she sold"), changed("did she need", "did it rain"),
          changed("brother", "friend"),
          ("小明买了三个面包,每个4元,一共多少元", "小明买了三个苹果,每个4元,一共多少元")]  # fmt: skip


def judged(pair: tuple[str, str], agreed: bool) -> bool:
    one, two = (bare(plain(text)) for text in pair)
    return asks_the_same(one, two, agreed)


@pytest.mark.parametrize("pair", SAME)
def test_copies(pair: tuple[str, str]):
    assert judged(pair, agreed=True)
    texts = [text_of({"domain": "math", "problem": text}, Domains()) for text in pair]
    assert texts[0].similarity(texts[1]) >= 0.7


@pytest.mark.parametrize("agreed", [True, False])
@pytest.mark.parametrize("pair", OTHER)
def test_other_problems(pair: tuple[str, str], agreed: bool):
    assert not judged(pair, agreed)
    assert not judged(pair[::-1], agreed)


@pytest.mark.parametrize("pair", UNTOLD)
def test_another_word_is_another_problem_if_the_answers_are_not_known_to_agree(pair: tuple[str, str]):
    assert judged(pair, agreed=True)
    assert not judged(pair, agreed=False)
