"""The paired test: its p-value, its errors of both kinds, and what is said of two runs."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringrl.commands.eval_tools import tell_difference
from ringrl.errors import DataError
from ringrl.evals.compare import LEVEL, compare, compare_runs


def means(values: Any) -> dict[str, float]:
    return {str(i): float(v) for i, v in enumerate(values)}


def test_the_p_value_is_the_share_of_sign_patterns_as_far_from_zero():
    a, b = [0.1, 0.5, 0.9, 0.3, 0.3], [0.4, 0.4, 1.0, 0.9, 0.3]
    d = [y - x for x, y in zip(a, b, strict=True)]
    patterns = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((-1, 1), repeat=5)]
    expected = sum(p >= abs(sum(d)) - 1e-9 for p in patterns) / 32
    paired = compare(means(a), means(b))
    assert paired.p == pytest.approx(expected)
    assert (paired.n, paired.b - paired.a) == (5, pytest.approx(sum(d) / 5))
    assert paired.se == pytest.approx(np.std(d, ddof=1) / 5**0.5)
    assert compare(means(b), means(a)).p == paired.p


def test_random_patterns_agree_with_all_patterns():
    rng = np.random.default_rng(1)
    d = rng.normal(0.05, 0.2, 16)
    exact = compare(means(np.zeros(16)), means(d)).p
    more = compare(means(np.zeros(17)), means([*d, 1e-12])).p  # one more, that weighs nothing
    assert more == pytest.approx(exact, abs=4 * (exact / 1e5) ** 0.5)


def test_it_finds_no_difference_between_equal_models_more_often_than_it_says():
    """Problems of all difficulties, 8 samples of each from both models."""
    rng = np.random.default_rng(2)
    chances = rng.random(14)
    found = [compare(*(means(rng.binomial(8, chances) / 8) for _ in "AB")).p < LEVEL for _ in range(400)]
    assert 0.02 < np.mean(found) < LEVEL + 3 * (LEVEL * 0.95 / 400) ** 0.5


def test_it_finds_a_real_difference_that_unpaired_errors_would_hide():
    rng = np.random.default_rng(3)
    chances = rng.random(30)
    a, b = (means(rng.binomial(32, np.clip(chances + up, 0, 1)) / 32) for up in (0.0, 0.06))
    paired = compare(a, b)
    assert paired.p < 0.01
    unpaired = (np.var(list(a.values()), ddof=1) / 30 + np.var(list(b.values()), ddof=1) / 30) ** 0.5
    assert paired.b - paired.a < unpaired  # less than one standard error
    assert paired.words(1).startswith("B is better: +")
    assert compare(b, a).words(1).startswith("A is better: -")


def test_the_same_run_twice_has_p_one():
    paired = compare(means([0.5, 1.0]), means([0.5, 1.0]))
    assert (paired.p, paired.se) == (1.0, 0.0)
    assert paired.words(1).startswith("no difference is shown: +0.0 ± 0.0 points on 2 problems, p = 1")


def test_with_more_benchmarks_each_must_show_more():
    paired = compare(means([0] * 6), means([1] * 6))  # p = 2 / 64
    assert paired.words(1).startswith("B is better")
    assert paired.words(2).startswith("no difference is shown")


def write_run(path: Path, passed: dict[str, int], **more: Any) -> Path:
    path.mkdir()
    problems = [{"id": i, "passed": c, "total": 4, "reward": float(c)} for i, c in passed.items()]
    results = {"sampling": {"temperature": 1.0, "seed": 0}, "template_sha256": "t", **more}
    results["benchmarks"] = {"aime24": {"problems": problems, "prompts_sha256": "p"}}
    (path / "results.json").write_text(json.dumps(results))
    return path


def test_two_runs_are_compared_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    ids = [f"p{i}" for i in range(8)]
    a = write_run(tmp_path / "a", dict.fromkeys(ids, 1))
    b = write_run(tmp_path / "b", dict.fromkeys(ids, 3), sampling={"temperature": 0.6, "seed": 1})
    assert tell_difference(str(a), str(b)) == 0
    text = capfd.readouterr().err
    assert "aime24: B is better: +50.0 ± 0.0 points on 8 problems, p = 0.0078" in text
    assert "not the same sampling: temperature 1.0 and 0.6\n" in text


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path):
    a = write_run(tmp_path / "a", {"p": 1})
    with pytest.raises(DataError, match="no problem in common"):
        compare_runs(a, write_run(tmp_path / "b", {"q": 1}))
    with pytest.raises(DataError, match=r"nowhere: no results\.json"):
        compare_runs(a, tmp_path / "nowhere")
    other = json.loads((a / "results.json").read_text())
    other["benchmarks"] = {"gsm8k": other["benchmarks"]["aime24"]}
    (tmp_path / "b" / "results.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="no benchmark in common"):
        compare_runs(a, tmp_path / "b")
