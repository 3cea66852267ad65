"""Labels: who wins, what the built-in rules see, and how a teacher's choice is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import Annotate
from ringrl.config.sections import Verify
from ringrl.curate.annotate import Label, by_rules, chosen, open_labels, question
from ringrl.curate.sample import responses_of
from ringrl.curate.shards import Row, Shards
from ringrl.curate.verdicts import Verdicts
from ringrl.domains import Domains


def row(problem: str, **more: Any) -> Row:
    return {"id": "s/0", "source": "s", "domain": "math", "problem": problem, **more}


@pytest.mark.parametrize(
    ("problem", "topic", "level"),
    [
        ("Natalia sold 48 clips in April and 24 in May. How many did she sell?", "arithmetic", "primary school"),
        ("Find the remainder when $2^{100}$ is divided by $7$.", "number theory", "high school"),
        ("In triangle $ABC$, $AB = 3$ and $BC = 4$. Find the area of $ABC$.", "geometry", "high school"),
        ("In how many ways can 5 people sit in a row?", "combinatorics", "primary school"),
        ("Evaluate $\\int_0^1 x^2 \\, dx$.", "calculus", "university"),
        ("Two fair dice are rolled. What is the probability that the sum is 7?", "probability", "high school"),
        ("Let $f(x) = x^3 - 3x + 1$. Find the sum of the squares of its roots.", "algebra", "high school"),
        ("Find the eigenvalues of this matrix.", "linear algebra", "university"),
        ("Solve for $x$: $3x + 4 = 19$.", "algebra", "high school"),
        ("What is 17 + 25?", "arithmetic", "primary school"),
    ],
)  # fmt: skip
def test_built_in_rules(problem: str, topic: str, level: str):
    assert by_rules(row(problem), Annotate()) == row(problem, topic=topic, level=level)


def label(folder: Path, problem: Row, cfg: Annotate, *answers: str) -> Row:
    after = Shards(folder)
    step = Label(Verdicts(after, ("t",) if cfg.teacher else (), Verify(), Domains()), cfg)
    file = responses_of(after, "t") / "000000.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"id": problem["id"], "answers": [{"text": a} for a in answers]}) + "\n")
    [out] = step(0, [problem])
    assert isinstance(out, dict)
    return out


def test_source_then_rule_then_teacher_then_unknown(tmp_path: Path):
    rules = {"style": {"question": r"\?\Z", "order": "^find"}}
    values = {"style": ("question", "order"), "mood": ("dull", "fun")}
    cfg = Annotate(rules=rules, values=values, teacher={"name": "t", "model": "m"})  # type: ignore[arg-type]
    problem = row("Find 2+2", level="mine", topic="arithmetic")
    assert open_labels(by_rules(problem, cfg), cfg) == {"mood": ("dull", "fun")}
    assert label(tmp_path, problem, cfg, "Fun.") == {**problem, "style": "order", "mood": "fun"}
    assert label(tmp_path, row("Say it", topic="x", level="y"), cfg, "neither", "Dull")["style"] == "unknown"
    plain = Annotate(rules=rules)
    science = row("Say it", domain="science")
    assert label(tmp_path, science, plain) == {**science, "style": "unknown"}
    assert "topic" not in label(tmp_path, row("Find x", domain="code"), plain)


def test_a_rule_of_ones_own_replaces_the_built_in():
    cfg = Annotate(rules={"topic": {"sums": r"\+"}})
    assert by_rules(row("What is 1 + 1?"), cfg)["topic"] == "sums"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It is Algebra.", "algebra"),
        ("Not algebra but linear algebra", "linear algebra"),
        ("<think>geometry</think>algebra", "algebra"),
        ("<think>it is geometry", "unknown"),
        ("algebraic", "unknown"),
        ("", "unknown"),
        ("algebra or geometry? geometry", "geometry"),
    ],
)
def test_the_last_value_named_counts(answer: str, expected: str):
    assert chosen({"text": answer}, ("algebra", "linear algebra", "geometry")) == expected


def test_a_question_lists_the_values_and_braces_stay():
    asked = question(row("What is $\\frac{1}{2}$?"), "topic", ("a", "b"))
    assert "What is $\\frac{1}{2}$?" in asked["problem"]
    assert "one of: a, b." in asked["problem"]
    assert asked["id"] == "s/0 topic"
