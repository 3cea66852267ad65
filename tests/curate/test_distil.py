"""Which responses become SFT data: one example for every reason, and its nearest neighbour that is kept."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import Distil
from ringrl.config.sections import Verify
from ringrl.curate.distil import Filter, repetition, scripts, unbalanced, unfinished
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.verdicts import Verdicts
from ringrl.domains import Domains

ROW: Row = {"id": "s/0", "source": "s", "domain": "math", "problem": "How many apples are left?", "answer": "2"}
THOUGHT = "<think>Five apples, three of them are eaten, so two are left.</think>"
GOOD = THOUGHT + "There are \\boxed{2} apples left."


def response(text: str = GOOD, teacher: str = "t", **more: Any) -> Row:
    return {"teacher": teacher, "text": text, "length": 20, "finish": "stop"} | more


def filtered(*responses: Row, verdict: str = "pass", row: Row = ROW, **knobs: Any) -> tuple[list[Dropped], Row]:
    step = Filter(Verdicts(Shards(Path("nowhere")), ("t",), Verify(), Domains(), own=True), Distil(**knobs))
    *dropped, kept = step.filtered(row, [(r, (verdict, "why", float(verdict == "pass"))) for r in responses])
    assert isinstance(kept, dict)
    assert all(isinstance(d, Dropped) for d in dropped)
    return dropped, kept  # type: ignore[return-value]


def words(n: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(n))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        (GOOD.removeprefix(THOUGHT), ""),
        (GOOD.replace("</think>", ""), "think tags"),
        (GOOD.replace("<think>", ""), "think tags"),
        (GOOD + "</think>", "think tags"),
        ("Well. " + GOOD, "think tags"),
        (GOOD.replace("<think>", "<think><think>").replace("</think>", "</think></think>"), "think tags"),
        (THOUGHT + "\n", "truncated"),
        (GOOD.replace("}", ""), "truncated"),
        (THOUGHT + "```python\nprint(2)\n", "truncated"),
        (THOUGHT + "```python\nprint(2)\n```\n", ""),
        (THOUGHT + "\\boxed{\\{1, 2\\}}", ""),
        ("<think>It must be \\boxed{ something.</think>\\boxed{2}", ""),
        ("2", "too short"),
        (words(300), "too long"),
        ("<think>" + "Wait, let me think about it again. " * 20 + "</think>\\boxed{2}", "repetition"),
        ("<think>" + "1" * 800 + "</think>\\boxed{2}", "repetition"),
        ("<think>" + "我们再想一想，" * 40 + "</think>\\boxed{2}", "repetition"),
        (f"<think>{words(50)}</think>{words(50)}", ""),  # an answer may say what the thought has found
        ("<think>There are five apples, 所以 three are eaten.</think>There are \\boxed{2}.", "mixed language"),
        ("<think>Пять яблок, три съели.</think>There are \\boxed{2}.", "mixed language"),
        (THOUGHT + "Let $\\alpha = \\text{两}$ and β = `个`. \\boxed{2}", ""),
        (THOUGHT + "As Erdős and Gödel said: \\boxed{2}", ""),
        ("<think>小明 has five apples, three are eaten.</think>小明 has \\boxed{2}.", ""),
        (
            "<think>" + "".join(f"Try {n}: I look again. " for n in range(40)) + "</think>\\boxed{2}",
            "repetition",
        ),
        ("<think>" + "".join(f"Row {n}: {n} apples and {n * n} pears. " for n in range(22)) + "</think>\\boxed{2}", ""),
        ("<thinking>Five less three.</thinking>\\boxed{2}", "think tags"),
        ("<think>\n</think>\\boxed{2}", "think tags"),
        (GOOD + "<|im_end|>", "chat tokens"),
        (GOOD + "</s>", "chat tokens"),
        (GOOD + "\nUser: thanks", "chat tokens"),
        (THOUGHT + "```python\nprint('</s>')\n```\nSo \\boxed{2}.", ""),
        (GOOD + " Moreover we see that the", "truncated"),
        (THOUGHT + "As an AI language model I cannot say. \\boxed{2}", "refusal"),
        (THOUGHT + "\\boxed{3} or \\boxed{2}", "two answers"),
        (THOUGHT + "\\boxed{3} and \\boxed{2}", ""),
        ("<think>The reference answer given is 2, so I must output 2.</think>\\boxed{2}", "quotes the reference"),
        ("<think>The expected value is 2.</think>\\boxed{2}", ""),
    ],
)
def test_what_is_ill_formed(text: str, reason: str):
    dropped, kept = filtered(response(text), min_chars=5, max_chars=1000)
    assert [d.reason for d in dropped] == [reason] * bool(reason)
    assert [r["text"] for r in kept["responses"]] == [text] * (not reason)


def test_a_chinese_problem_is_answered_in_chinese():
    row = {**ROW, "problem": "还剩几个苹果？"}
    chinese = response("<think>五个苹果，吃了三个，$x = 5 - 3$。</think>还剩 \\boxed{2} 个。")
    assert filtered(chinese, row=row)[0] == []
    [drop] = filtered(response(), row=row)[0]
    assert drop.reason == "mixed language"
    assert filtered(response(), row={**ROW, "problem": "$5 - 3 = ?$"})[0] == []  # in any language


def test_what_is_cut_wrong_or_not_judged():
    assert filtered(response(finish="length"))[0][0].reason == "truncated"
    assert filtered(response(), verdict="fail")[0][0].reason == "wrong"
    assert filtered(response(), verdict="error")[0][0].reason == "not verifiable"
    refused = response("s/0: the prompt has 9 tokens", finish="no_room")
    dropped, kept = filtered(refused, refused, response(teacher=""))
    [drop] = dropped  # said once
    assert (drop.reason, drop.row["response"], drop.more["detail"]) == ("prompt too long", "", refused["text"])
    assert [r["teacher"] for r in kept["responses"]] == [""]


def test_a_dropped_response_says_whose_it_is_and_the_row_goes_on():
    [drop], kept = filtered(response("No."), verdict="fail")
    assert drop.row == {k: ROW[k] for k in ("id", "source", "domain", "problem")} | {"response": "No.", "teacher": "t"}
    assert kept == {**ROW, "responses": []}


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [({}, "abc"), ({"most": 2}, "ab"), ({"keep": "shortest"}, "b"), ({"keep": "shortest", "most": 2}, "bc")],
)
def test_the_best_and_the_first(knobs: dict[str, Any], expected: str):
    long, short, middle = GOOD + " Yes, two of them.", GOOD, GOOD + " Yes."
    dropped, kept = filtered(*(response(t, n) for n, t in zip("abc", (long, short, middle), strict=True)), **knobs)
    assert "".join(r["teacher"] for r in kept["responses"]) == expected
    assert [d.reason for d in dropped] == ["more than asked for"] * (3 - len(expected))
    assert all("finish" not in r for r in kept["responses"])


def test_duplicates_differ_in_white_space():
    dropped, kept = filtered(response(), response(GOOD.replace(" ", "\n")), response(GOOD + " Yes."))
    assert [d.reason for d in dropped] == ["duplicate"]
    assert len(kept["responses"]) == 2


def test_repetition_is_the_share_said_again():
    once = words(200)
    assert repetition(once) == 0
    assert repetition(f"{once} {once}") == 0  # it is checked
    assert repetition(f"{once} {once} {once}") == pytest.approx(1 / 3)
    assert repetition(f"{once} {words(100, 1)} {once} {once}") == pytest.approx(2 / 7)
    assert repetition(" ".join(w for n in range(3) for w in [*once.split()[:31], str(n)])) == 0  # no passage of 32
    assert repetition("a " * 1000) == pytest.approx(1, abs=0.04)


def test_scripts_are_of_words():
    assert scripts("$x$ ab 12 \\frac{1}{2}") == {}
    assert scripts("three 三") == {"Latin": 5 / 6, "Han": 1 / 6}


@pytest.mark.parametrize("text", ["\\[" * 50_000, "$$" * 50_000 + "$", "```" * 30_000, "`a" * 50_000, "{" * 100_000,
                                  "\\boxed{" * 20_000, "<think>" * 20_000, "\\(a" * 40_000])  # fmt: skip
def test_hostile_texts_take_linear_time(text: str):
    began = time.process_time()
    scripts(text), repetition(text), unfinished(text), unbalanced(text, False)
    assert time.process_time() - began < 10  # quadratic would be minutes
