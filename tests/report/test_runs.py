"""The report: every kind of run, in any state, gives one safe, self-contained, reproducible page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from ringrl.report.runs import write_picture, write_report

PHI = 8192
NASTY = "<script>alert('$x$ & y')</script>"
HIDDEN = "\x1b]8;;http://evil\x07 \x9b \u202e \u2066 \u200b \x08 \r http://user:hunter2@host/ 'x onerror=y' \ud800"


def write(path: Path, value: Any) -> None:
    """One JSON object, or JSON lines of several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) if isinstance(value, dict) else "".join(json.dumps(r) + "\n" for r in value))


def make_sft(run: Path) -> None:
    other = {"lr": 1e-4, "grad_norm": 1.2, "balance_loss": 1.02, "z_loss": 0.4, "tokens_per_s": 5200.0}
    at = [{"step": i, "epoch": i / 20, "tokens_total": i * 4096} for i in range(1, 61)]
    write(run / "metrics.jsonl", [a | {"loss": 3 * math.exp(-a["step"] / 12), **other} for a in at])
    write(run / "evals.jsonl", [a | {"val_loss": 0.6, "val_entropy": 0.3} for a in at[9::10]])


def make_selection(run: Path) -> None:
    same = {"score_se": 0.02, "pass_k": 0.7, "k": 4, "length_mean": 90.0, "truncated_frac": 0.05, "epoch": 1.0}
    rows = [
        {"name": f"step_{i:06d}", "step": i, "sft_tokens": i * 4096, "entropy": 3 / i, "score": i / 90, **same}
        | {"in_band": i in (40, 50)}
        for i in range(10, 61, 10)
    ]
    rows[0] |= {"step": None, "epoch": None, "sft_tokens": None}  # a folder that belongs to no SFT run
    facts = {"rule": "entropy-band", "chosen": "step_000040", "by_score": "step_000060", "reason": NASTY}
    write(run / "selection.json", {"band": [0.05, 0.08], "rows": rows, "rl_sft_token_ratio": 0.35, **facts})


def rl_row(i: int) -> dict[str, Any]:
    row = {"step": i, "stage": "math" if i <= 25 else NASTY, "reward_mean": 0.35 + 0.01 * i, "entropy": 0.55}
    row |= {"groups_solved": 3, "groups_mixed": 6, "groups_unsolved": 7, "phi": PHI, "tokens_generated": 14000 + i}
    row |= {"tokens_trained": PHI, "response_length_mean": 100.5, "truncated_frac": 0.05, "kl": 0.001 * i}
    row |= {"grad_norm": 0.4, "clip_frac": 0.01, "balance_loss": 1.01, "z_loss": 0.3, "mismatch_kl": 0.0004}
    row |= {"verdicts": {"pass": {"exact": 3}, "fail": {NASTY: 5}, "error": {"deadline": i % 2}}}
    row |= {"errors_of_problems": {f"p{NASTY}": 1} if i % 2 else {}}
    row |= {"masked_frac": 0.002, "reward_errors": 1, "time_rollout_s": 80.0, "time_reward_s": 0.6}
    return row | {"time_train_s": 4.0, "time_sync_s": 0.5, "tokens_per_s": 1000.0}


def make_rl(run: Path) -> None:
    write(run / "metrics.jsonl", map(rl_row, range(1, 51)))
    same = {"stage": "math", "k": 4, "n": 64, "avg": 0.3, "se": 0.03, "pass_k": 0.6}
    write(run / "evals.jsonl", [{"step": i, "domain": d, **same} for i in (0, 25, 50) for d in ("math", "code")])
    text = f"<think>{NASTY}</think> \\boxed{{1}}"
    shown = {"domain": "math", "reward": 1.0, "advantage": 0.9, "length": 20, "finish": "stop", "version": 3}
    for step in (1, 25, 50):
        rows = [{"prompt_id": f"p{n}", "text": text + " long" * 2000 * (n == 0), **shown} for n in range(16)]
        write(run / "rollouts" / f"step_{step:06d}.jsonl", rows)


def make_eval(run: Path) -> None:
    problems = [{"id": f"p{i}", "passed": i % 5, "total": 4} for i in range(20)] + [{"passed": 0, "total": 0}]
    result = {"score": 0.5, "se": 0.04, "pass_k": 0.8, "k": 4, "n": 21, "length_mean": 120.5, "truncated_frac": 0.02}
    result |= {"errors": 4, "problems": problems, "se_samples": 0.01, "majority": None}
    rows = [
        {"id": f"p{i}", "sample": j, "text": f"<think>hm {NASTY}</think>It is {NASTY}." if j else "<think>open"}
        | {"verdict": ("pass", "fail", "error")[(i + j) % 3], "reason": NASTY, "length": 10 * i + j, "finish": "stop"}
        for i in range(4)
        for j in range(12)
    ]
    write(run / "responses" / "math.jsonl", rows)
    write(run / "prompts" / "math.jsonl", [{"id": "p0", "messages": [{"content": f"What? {NASTY}"}], "answer": "4"}])
    facts = {"model": NASTY, "sampling": {"temperature": 1.0, "top_p": 0.95}, "template_sha256": "ab" * 32}
    write(run / "results.json", {**facts, "benchmarks": {"math": result, "code": result}})


def make_pipeline(run: Path) -> None:
    make_sft(run / "sft")
    make_selection(run / "select")
    make_rl(run / "rl")
    make_eval(run / "eval_final")
    (run / "config.yaml").write_text("seed: 7\nrl:\n  phi: 8192\n")
    write(run / "lineage.json", {"parent": "base", "command": NASTY})
    stages = {"sft": (0.05, 0.42), "rl math": (0.41, 0.40)}
    rows = [
        {"stage": stage, "model": f"models/{stage}"}
        | {
            "scores": {
                d: {"score": s, "se": 0.03, "k": 4, "n": 64} for d, s in zip(("math", "code"), both, strict=True)
            }
        }
        for stage, both in stages.items()
    ]
    write(run / "summary.json", {"rows": rows, "phi": PHI, "seed": 7, "seconds": {"sft": 92.0, "rl": 4210.0}})


class Tags(HTMLParser):
    """Which tags a page has, every one of which must be closed by its own name; its policies, and what is inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.meta: dict[str, str] = {}
        self.before_policy: set[str] = set()
        self.attributes: set[str] = set()
        self.inline: list[tuple[str, str]] = []  # (style or script, content)
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        values = dict(attrs)
        if tag == "meta":
            self.meta[values.get("http-equiv") or values.get("name") or "charset"] = values.get("content") or ""
        elif "Content-Security-Policy" not in self.meta:
            self.before_policy.add(tag)
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            self.inline.append((self.open[-1], data))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = tmp_path_factory.mktemp("pipeline")
    make_pipeline(run)
    return run, write_report(run).read_text()


def test_the_page_is_safe_and_self_contained(pipeline: tuple[Path, str]) -> None:
    run, text = pipeline
    assert not {"script", "link", "img", "iframe", "metadata"} & Tags(text).seen
    assert not re.search(r'(src|href)="(?!#)|url\((?!#)|@import', text)
    assert NASTY not in text
    assert not re.search(r">[^<]*\bnan\b", text)
    assert {p.name for p in run.iterdir() if p.is_file()} == {
        *("config.yaml", "lineage.json", "summary.json", "report.html")
    }


@pytest.mark.parametrize("maker", [make_sft, make_selection, make_rl, make_eval, make_pipeline])
def test_a_page_allows_its_own_style_and_nothing_else(tmp_path: Path, maker: Callable[[Path], None]) -> None:
    maker(tmp_path)
    page = Tags(write_report(tmp_path).read_text())
    rules = [rule.split() for rule in page.meta["Content-Security-Policy"].split(";")]
    policy = {name: sources for name, *sources in rules}
    assert policy["default-src"] == ["'none'"]
    assert {name for name, sources in policy.items() if sources != ["'none'"]} == {"style-src-elem", "style-src-attr"}
    assert policy["style-src-attr"] == ["'unsafe-inline'"]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in page.inline]
    assert [kind for kind, _ in page.inline] == ["style"]
    assert policy["style-src-elem"] == [f"'sha256-{digest}'" for digest in digests]
    assert page.before_policy == {"html", "head"}
    assert page.meta["referrer"] == "no-referrer"
    assert not {name for name in page.attributes if name.startswith("on")}


def test_what_a_reader_would_not_see_is_shown_by_its_number(tmp_path: Path) -> None:
    make_pipeline(tmp_path)
    for path in tmp_path.rglob("*.jsonl"):
        path.write_text(path.read_text().replace(NASTY, json.dumps(HIDDEN)[1:-1]))
    (tmp_path / "config.yaml").write_text("model: " + HIDDEN.replace("\ud800", ""))
    for folder in (tmp_path, tmp_path / "eval_final", tmp_path / "rl"):
        text = write_report(folder).read_bytes().decode()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e\u2066]", text)
        assert "⟨U+001B⟩]8;;http://evil⟨U+0007⟩" in text
        assert "hunter2" not in text
        assert not {name for name in Tags(text).attributes if name.startswith("on")}


def test_a_pipeline_shows_every_part_and_what_changed(pipeline: tuple[Path, str]) -> None:
    _, text = pipeline
    assert re.findall(r'<h2 id="(\w+)">', text) == ["sft", "select", "rl", "eval_final"]
    assert text.count("<figure") == 7 + 1 + 13 + 1
    for words in (
        '41.0 ± 3.0 <span class="good">+36.0</span>',
        '40.0 ± 3.0 <span class="bad faint">-2.0</span>',
        *("1 h 10 min", "1 min 32 s", "seed: 7", "characters left out"),
        *("Responses of step 000001", "Responses of step 000050"),
        *("exactly Φ<b>50 of 50<", "grader errors<b>50<", "tokens trained<b>409,600<"),
        '<tr class="marked"><td>step_000040</td>',
        "<td>4</td><td>4</td><td>12</td><td>4</td></tr>",  # errors, always, sometimes, never; one problem unjudged
    ):
        assert words in text, words
    assert "step 000025" not in text


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    make_selection(tmp_path)
    assert write_report(tmp_path).read_bytes() == write_report(tmp_path).read_bytes()


@pytest.mark.parametrize(
    ("maker", "kind", "figures"),
    [
        (make_sft, "SFT", 7),
        (make_selection, "checkpoint selection", 1),
        (make_rl, "RL", 13),
        (make_eval, "evaluation", 2),
        (lambda run: write(run / "metrics.jsonl", []), "run", 0),
    ],
)
def test_a_single_run(tmp_path: Path, maker: Callable[[Path], None], kind: str, figures: int) -> None:
    maker(tmp_path)
    text = write_report(tmp_path).read_text()
    assert f"ringrl, {kind}<" in text
    assert text.count("<figure") == figures
    Tags(text)


def test_an_evaluation_shows_responses_by_problem(tmp_path: Path) -> None:
    make_eval(tmp_path)
    text = write_report(tmp_path).read_text()
    assert NASTY not in text
    assert re.findall(r">(p\d · \d of 12 right)<", text) == [f"p{i} · 4 of 12 right" for i in range(4)]
    assert len(re.findall(r'class="card r (pass|fail|error)"', text)) == 4 * 8
    assert text.count('class="card r pass"') == 4 * 4
    assert text.count("4 more responses are in the run directory") == 4
    assert text.count("thought, ") > 4 * 6
    assert "[expected] 4" in text
    for kind in ("all", "pass", "fail", "error", "cut"):
        assert text.count(f'class="only-{kind}"') == 1
    assert ".browse:has(.only-fail:checked) :is(.r:not(.fail), .problem:not(:has(.fail))) { display:none }" in text


def test_a_pipeline_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    assert "Nothing is recorded yet" in write_report(tmp_path).read_text()


def few(steps: Iterable[int]) -> list[dict[str, Any]]:
    """Rows with little to draw."""
    return [{"step": i, "stage": "math", "phi": PHI, "tokens_trained": PHI} for i in steps]


def test_verdicts_are_summed_over_the_steps(tmp_path: Path) -> None:
    make_rl(tmp_path)
    page = write_report(tmp_path).read_text()
    counted = (("fail", escape(NASTY), 250, 58.8), ("pass", "exact", 150, 35.3), ("error", "deadline", 25, 5.9))
    for kind, reason, count, share in counted:
        assert f"<td>all steps</td><td>{kind}</td><td>{reason}</td><td>{count}</td><td>{share}</td>" in page
    assert f"<td>all steps</td><td>p{escape(NASTY)}</td><td>25</td>" in page


def test_a_budget_not_met_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", [*few([1]), few([2])[0] | {"tokens_trained": PHI - 1}])
    assert "1 of 2" in write_report(tmp_path).read_text()


def test_a_cut_line_is_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, few(range(1, 7)))
    path.write_text(path.read_text()[:-40])
    text = write_report(tmp_path).read_text()
    assert "1 line(s) could not be read" in text
    assert "5 of 5" in text


def test_values_that_are_missing_or_not_finite_are_gaps(tmp_path: Path) -> None:
    keys = ("reward_mean", "grad_norm", "groups_mixed", "kl")
    odd = [rl_row(i) | dict.fromkeys(keys, value) for i, value in enumerate((math.nan, math.inf, None), 1)]
    write(tmp_path / "metrics.jsonl", odd)
    Tags(write_report(tmp_path).read_text())


def test_the_picture(pipeline: tuple[Path, str], tmp_path: Path) -> None:
    text = write_picture(pipeline[0], tmp_path / "p.svg").read_text()
    assert "SFT checkpoint" in text
    assert NASTY not in text
    assert write_picture(tmp_path, tmp_path / "empty.png").read_bytes()[:4] == b"\x89PNG"


def test_importing_loads_no_matplotlib() -> None:
    code = "import sys, ringrl.report.runs; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
