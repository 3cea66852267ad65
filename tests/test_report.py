"""The report: every kind of run, in any state, gives one safe, self-contained, reproducible page."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ringrl.report import write_picture, write_report

PHI = 8192
NASTY = "<script>alert('$x$ & y')</script>"


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _object(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def make_sft(run: Path, steps: int = 60) -> None:
    keys = {"balance_loss": 1.02, "z_loss": 0.4, "tokens_per_s": 5200.0, "time_step_s": 1.5}
    rows = [
        {
            "step": i,
            "epoch": i / 20,
            "tokens_total": i * 4096,
            "loss": 0.5 + 3 * math.exp(-i / 12) + 0.04 * math.sin(7 * i),
            "lr": 1e-4 * min(1, i / 5),
            "grad_norm": 1 + math.exp(-i / 9) + 0.2 * math.sin(5 * i),
            **keys,
        }
        for i in range(1, steps + 1)
    ]
    _lines(run / "metrics.jsonl", rows)
    evals = [
        {
            "step": i,
            "epoch": i / 20,
            "tokens_total": i * 4096,
            "val_loss": 0.6 + 3 * math.exp(-i / 12),
            "val_entropy": 0.3 + 1.5 * math.exp(-i / 20),
        }
        for i in range(10, steps + 1, 10)
    ]
    _lines(run / "evals.jsonl", evals)


def make_selection(run: Path) -> None:
    rows = [
        {
            "name": f"step_{i:06d}",
            "path": f"sft/checkpoints/step_{i:06d}",
            "step": i,
            "epoch": i / 20,
            "sft_tokens": i * 4096,
            "entropy": 0.3 + 1.5 * math.exp(-i / 20),
            "score": 0.5 - 0.4 * math.exp(-i / 15),
            "score_se": 0.02,
            "pass_k": 0.7,
            "k": 4,
            "length_mean": 90 + i,
            "truncated_frac": 0.05,
            "in_band": 20 < i < 50,
        }
        for i in range(10, 61, 10)
    ]
    _object(
        run / "selection.json",
        {
            "band": [0.4, 0.7],
            "rule": "entropy-band",
            "chosen": "step_000040",
            "rows": rows,
            "chosen_path": rows[3]["path"],
            "by_score": "step_000060",
            "rl_sft_token_ratio": 0.35,
            "reason": "3 of 6 checkpoints have an entropy in 0.4 to 0.7; step_000040 scores best of these.",
        },
    )


def rl_row(i: int) -> dict[str, Any]:
    stage, wave = ("math" if i <= 25 else "code + science"), math.sin(2.3 * i)
    mixed = 6 + round(2 * wave)
    return {
        "step": i,
        "stage": stage,
        "version": i,
        "reward_mean": 0.35 + 0.01 * (i if i <= 25 else i - 15) + 0.03 * wave,
        "groups_solved": 3 + i // 12,
        "groups_mixed": mixed,
        "groups_unsolved": 13 - i // 12 - mixed,
        "phi": PHI,
        "tokens_generated": 14000 + 2500 * wave,
        "tokens_trained": PHI,
        "tokens_dropped": 900,
        "parity": 1.0,
        "response_length_mean": 100 + i + 6 * wave,
        "truncated_frac": 0.05 + 0.02 * wave,
        "loss": 0.01 * wave,
        "policy_loss": 0.01 * wave,
        "kl": 0.001 * i,
        "entropy": 0.55 - 0.003 * i,
        "grad_norm": 0.4 + 0.05 * wave,
        "clip_frac": 0.01,
        "lr": 3e-6,
        "balance_loss": 1.01,
        "z_loss": 0.3,
        "mismatch_kl": 0.0004,
        "masked_frac": 0.002,
        "reward_errors": 0,
        "time_rollout_s": 9 + 2 * wave,
        "time_reward_s": 0.6,
        "time_train_s": 4 + 0.2 * wave,
        "time_sync_s": 0.5,
        "tokens_per_s": 1000 + 90 * wave,
    }


def make_rl(run: Path, steps: int = 50) -> None:
    _lines(run / "metrics.jsonl", [rl_row(i) for i in range(1, steps + 1)])
    evals = [
        {
            "step": i,
            "stage": "math",
            "domain": domain,
            "k": 4,
            "n": 64,
            "avg": 0.3 + j / 10 + 0.005 * i,
            "se": 0.03,
            "pass_k": 0.6 + 0.003 * i,
        }
        for i in range(0, steps + 1, 10)
        for j, domain in enumerate(("math", "code", "science"))
    ]
    _lines(run / "evals.jsonl", evals)
    for step in (1, 25, steps):
        rows = [
            {
                "prompt_id": f"p{n}",
                "domain": "math",
                "text": f"<think>{NASTY} step by step</think> \\boxed{{{n}}}",
                "reward": float(n % 2),
                "advantage": 0.9 if n % 2 else -0.9,
                "length": 20,
                "finish": "stop",
                "version": step,
            }
            for n in range(16)
        ]
        rows[0]["text"] += " long" * 2000
        _lines(run / "rollouts" / f"step_{step:06d}.jsonl", rows)


def make_eval(run: Path) -> None:
    problems = [{"id": f"p{i}", "passed": i % 5, "total": 4} for i in range(20)]
    result = {
        "avg": 0.5,
        "se": 0.04,
        "pass_k": 0.8,
        "k": 4,
        "n": 20,
        "length_mean": 120.5,
        "truncated_frac": 0.02,
        "errors": 0,
        "problems": problems,
    }
    _object(
        run / "results.json",
        {
            "model": "rl/checkpoints/step_000050",
            "sampling": {"temperature": 1.0, "top_p": 0.95},
            "template_sha256": "ab" * 32,
            "benchmarks": {"math": result, "code": result},
        },
    )


def make_pipeline(run: Path) -> None:
    make_sft(run / "sft")
    make_selection(run / "select")
    make_rl(run / "rl")
    make_eval(run / "eval_final")
    (run / "config.yaml").write_text("seed: 7\nrl:\n  phi: 8192\n")
    _object(run / "lineage.json", {"parent": "base", "command": ["ringrl", "run", NASTY]})

    def score(avg: float) -> dict[str, float]:
        return {"avg": avg, "se": 0.03, "k": 4, "n": 64}

    stages = {
        "base": (0.05, 0.03, 0.24),
        "sft": (0.41, 0.35, 0.42),
        "rl math": (0.62, 0.37, 0.40),
        "rl code + science": (0.63, 0.49, 0.52),
    }
    rows = [
        {
            "stage": stage,
            "model": f"models/{stage}",
            "scores": dict(zip(("math", "code", "science"), map(score, s), strict=True)),
        }
        for stage, s in stages.items()
    ]
    _object(
        run / "summary.json",
        {"rows": rows, "phi": PHI, "seed": 7, "seconds": {"sft": 92.0, "select": 41.5, "rl": 4210.0}},
    )


def few(i: int) -> dict[str, Any]:
    """A row of metrics with little to draw."""
    return {key: rl_row(i)[key] for key in ("step", "stage", "phi", "tokens_trained", "reward_errors")}


class _Balanced(HTMLParser):
    """Every tag closed by its own name, and which tags there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("maker", [make_sft, make_selection, make_rl, make_eval, make_pipeline])
def test_a_run_of_every_kind_gives_one_self_contained_page(tmp_path: Path, maker: Any) -> None:
    maker(tmp_path)
    path = write_report(tmp_path)
    text = path.read_text()
    assert path == tmp_path / "report.html"
    assert not list(tmp_path.glob(".*tmp"))
    assert not {"script", "link", "img", "iframe", "metadata"} & _Balanced(text).tags
    assert not re.search(r'(src|href)="(?!#)|url\(http|@import', text)
    assert NASTY not in text
    assert not re.search(r">[^<]*\bnan\b", text)
    if maker is make_pipeline:
        check_pipeline(text)


def check_pipeline(text: str) -> None:
    for part in ("sft", "select", "rl", "eval_final"):
        assert f'<h2 id="{part}">' in text
    assert text.count("<figure") == 7 + 1 + 12
    assert text.count("code + science</text>") == 12
    for words in (
        '41.0 ± 3.0 <span class="good">+36.0</span>',
        '40.0 ± 3.0 <span class="bad faint">-2.0</span>',
        *("50 of 50", "1 h 10 min", "1 min 32 s", "seed: 7", "characters left out"),
        *("Responses of step 000001", "Responses of step 000050"),
    ):
        assert words in text
    assert "step 000025" not in text


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    make_rl(tmp_path)
    assert write_report(tmp_path).read_bytes() == write_report(tmp_path).read_bytes()


def test_a_budget_not_met_is_counted(tmp_path: Path) -> None:
    _lines(tmp_path / "metrics.jsonl", [few(1), few(2) | {"tokens_trained": PHI - 1}])
    assert "1 of 2" in write_report(tmp_path).read_text()


def test_the_last_record_of_a_step_counts(tmp_path: Path) -> None:
    _lines(tmp_path / "metrics.jsonl", [few(1) | {"reward_errors": 7}, few(1) | {"reward_errors": 2}, few(2)])
    text = write_report(tmp_path).read_text()
    assert "grader errors<b>2</b>" in text
    assert "2 of 2" in text


def test_files_cut_anywhere_still_give_a_page(tmp_path: Path) -> None:
    make_pipeline(tmp_path)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        path.write_bytes(path.read_bytes()[: max(1, path.stat().st_size * 2 // 3)])
    _Balanced(write_report(tmp_path).read_text())


def test_a_cut_line_is_left_out_and_told(tmp_path: Path) -> None:
    _lines(tmp_path / "metrics.jsonl", [few(i) for i in range(1, 7)])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-40])
    text = write_report(tmp_path).read_text()
    assert "1 line(s) could not be read" in text
    assert "5 of 5" in text


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"rows": 3, "band": 1, "benchmarks": [], "scores": 0}', "{"]
)
@pytest.mark.parametrize(
    "name", ["selection.json", "results.json", "summary.json", "metrics.jsonl", "lineage.json"]
)
def test_files_with_little_in_them(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    _Balanced(write_report(tmp_path).read_text())


def test_values_that_are_not_finite_numbers(tmp_path: Path) -> None:
    odd = [
        rl_row(i) | dict.fromkeys(("reward_mean", "grad_norm", "phi", "groups_mixed", "time_train_s"), value)
        for i, value in enumerate((math.nan, math.inf, None, "x", -1, 10**400), 1)
    ]
    odd[-1]["stage"] = "$_{$"
    _lines(tmp_path / "metrics.jsonl", odd)
    _lines(
        tmp_path / "evals.jsonl",
        [{"step": 0, "domain": "$_{$", "k": 2, "avg": None, "se": -1, "stage": NASTY}],
    )
    _Balanced(write_report(tmp_path).read_text())
    write_picture(tmp_path, tmp_path / "picture.svg")


@pytest.mark.parametrize("maker", [make_pipeline, make_rl, lambda run: None])
def test_picture(tmp_path: Path, maker: Any) -> None:
    maker(tmp_path)
    assert write_picture(tmp_path, tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    first = write_picture(tmp_path, tmp_path / "p.svg").read_text()
    assert "SFT checkpoint" in first
    assert not list(tmp_path.glob(".*tmp"))


def test_importing_loads_no_matplotlib() -> None:
    code = "import sys, ringrl.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
