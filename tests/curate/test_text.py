"""What is typesetting is gone, and what means something stays."""

from __future__ import annotations

import time

import pytest

from ringrl.curate.text import VARIABLE, canonical, char_grams, jaccard, numbers, word_grams, words

SAME = [
    (r"**Find** $x^{2}$ if \dfrac{1}{2}x = 3.0.", r"find \( x^2 \) if  $\frac12 x=3.0$"),
    ("It costs $1,000, he said.", "it costs $1000 he said"),
    (r"$1{,}000$ and $1\,000$", "1000 and 1000"),
    (r"$x\le 5$, $y \geqslant 2$ and $z\neq1$", "x ≤ 5, y ≥ 2 and z != 1"),
    (r"$\left(\frac{a}{b}+1\right)^{2}$", r"\[ \bigl(\dfrac ab + 1\bigr)^2 \]"),
    (r"the angle is $30^{\circ}$", "the angle is 30°"),
    (r"$\text{lcm}(a, b)$", r"\operatorname{lcm}(a,b)"),
    ("a 9-kilometer-long walk", "a 9 kilometer long walk"),
    ("a $9$-kilometer-long walk", "a 9 kilometer long walk"),
    (r"\begin{align*} x &= 1 \\[2pt] y &= 2 \end{align*}", "x = 1, y = 2"),
    ("“Ann’s” x² + 1½", '"Ann\'s" x^2 + 1 1/2'),
    ("Ｆｕｌｌ width", "full width"),
    (r"a \cdot b \ldots", "a × b …"),
    ("area $2πr$", r"area $2\pi r$"),
    ("a sum of .5", "a sum of 0.5"),
    ("Wow! (In dollars)", "wow in dollars"),
]
OTHER = [
    ("(2+3)*4", "2+3*4"),
    (r"2^{3+4}", "2^3+4"),
    (r"\frac{1}{2+x}", r"\frac{1}{2}+x"),
    ("x = 5", "x = -5"),
    ("x < 5", "x > 5"),
    (r"$x \le 5$", "$x < 5$"),
    ("1.5 kg", "15 kg"),
    (".5 kg", "5 kg"),
    ("n! ways", "n ways"),
    ("x²", "x2"),
    (r"\sqrt{2}", "2"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_typesetting_is_gone(a: str, b: str):
    assert words(a) == words(b)


@pytest.mark.parametrize(("a", "b"), OTHER)
def test_meaning_stays(a: str, b: str):
    assert words(a) != words(b)


def test_the_words_of_the_docstring():
    found = words(r"**Find** $x^{2}$ if \dfrac{1}{2}x=3.0.")
    assert found == ["find", "x", "^", "2", "if", "frac", "1", "2", "x", "=", "3.0"]
    assert numbers(found) == ["2", "1", "2", "3"]


def test_brackets_around_no_operator_are_gone():
    assert words("f(x) {y} (a - (b)) ) (") == ["f", "x", "y", "(", "a", "-", "b", ")"]
    assert words("((1+2))") == ["(", "(", "1", "+", "2", ")", ")"]


def test_variables_can_be_renamed():
    one, other = r"In $\triangle ABC$, $\alpha x + y$", r"In $\triangle PQR$, $\beta u + w$"
    assert canonical(words(one)) == canonical(words(other))
    assert canonical(["x", "2", "pi", "in", "五"]) == [VARIABLE, "2", "pi", "in", "五"]


def test_what_is_between_two_prices_is_no_formula():
    assert words("for $2 per egg and $3") == ["for", "2", "per", "egg", "and", "3"]
    assert words("ANN PAID $5 FOR TEA AND $3 FOR IT") == words("Ann paid $5 for tea and $3 for it")
    assert words("In $ ABC $ there is BC.") == ["in", "A", "B", "C", "there", "is", "bc"]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("3 cats and 12 dogs", "12 dogs, 3 cats", False),
        ("3 cats", "three cats", True),
        ("3 cats and 3 dogs", "3 cats and dogs", False),
        ("twice as many", "three times as many", False),
        ("which one of two", "which of two", True),
        ("half of them", "a third of them", False),
        ("twenty-four", "twenty-five", False),
    ],
)
def test_numbers_in_digits_and_words(a: str, b: str, same: bool):
    assert (numbers(words(a)) == numbers(words(b))) is same


def test_grams_and_their_similarity():
    assert word_grams(["a", "b", "c", "d"]) == {"a b c", "b c d"}
    assert word_grams(["a"]) == {"a"}
    assert char_grams(["abc", "def"]) == {"abcde", "bcdef"}
    assert word_grams([]) == char_grams([]) == {""}
    assert jaccard({"a", "b", "c"}, {"b", "c", "d"}) == 0.5
    assert jaccard(set(), set()) == 1.0
    assert jaccard({"a"}, set()) == 0.0


@pytest.mark.parametrize("text", ["$" * 40_001, r"\(" * 20_000, r"\text{" * 8_000, "(" * 40_000, "{[" * 20_000,
                                  "**a" * 13_000, "1,000" * 8_000, r"\\" * 20_000, "ab-" * 13_000,
                                  r"\hspace{" * 5_000, r"\begin" * 8_000, "^{" * 20_000, "!" * 40_000])  # fmt: skip
def test_no_text_takes_long(text: str):
    began = time.process_time()
    words(text)
    assert time.process_time() - began < 5  # a quadratic one takes minutes
