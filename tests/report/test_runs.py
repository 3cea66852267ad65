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

from ringrl.report import page, plots
from ringrl.report.runs import write_picture, write_report, write_reports
from ringrl.report.settings import changed, kind_of, read_config

PHI = 8192
NASTY = "<script>alert('$x$ & y')</script>"
HIDDEN = "\x1b]8;;http://evil\x07 \x9b \u202e \u2066 \u200b \x08 \r http://user:hunter2@host/ 'x onerror=y' \ud800"


def write(path: Path, value: Any) -> None:
    """One JSON object, or JSON lines of several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) if isinstance(value, dict) else "".join(json.dumps(r) + "\n" for r in value))


def make_sft(run: Path) -> None:
    other = {"lr": 1e-4, "balance_loss": 1.02, "z_loss": 0.4, "tokens_per_s": 5200.0}
    at = [{"step": i, "epoch": i / 20, "tokens_total": i * 4096} for i in range(1, 61)]
    write(
        run / "metrics.jsonl",
        [a | {"loss": 3 * math.exp(-a["step"] / 12), "grad_norm": 1 / a["step"]} | other for a in at],
    )
    write(run / "evals.jsonl", [a | {"val_loss": 1 / a["epoch"], "val_entropy": 0.3} for a in at[9::10]])


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
    phi = PHI if i <= 25 else 2 * PHI
    row |= {"groups_solved": 3, "groups_mixed": 6, "groups_unsolved": 7, "phi": phi, "tokens_generated": 14000 + i}
    row |= {"tokens_trained": phi, "response_length_mean": 100.5, "truncated_frac": 0.05, "kl": 0.001 * i}
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
    (run / "config.yaml").write_text("seed: 7\nsft: {}\nrl:\n  phi: 8192\n")
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
    write(run / "sft" / "finished.json", {"seconds": 92.0})
    write(run / "rl" / "finished.json", {"seconds": 4210.0})
    write(run / "summary.json", {"rows": rows, "phi": {"math": PHI}, "seed": 7})


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
    return run, write_reports(run)[-1].read_text()


def test_the_page_is_safe_and_self_contained(pipeline: tuple[Path, str]) -> None:
    run, text = pipeline
    assert not {"script", "link", "img", "iframe", "metadata"} & Tags(text).seen
    assert not re.search(r"src=|url\((?!#)|@import", text)
    assert all(link[0] == "#" or (run / link).is_file() for link in re.findall(r'href="([^"]*)"', text))
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
    assert text.count("<figure") == 3 + 3 + 1 + 4 + 1
    for words in (
        '41.0 ± 3.0 <span class="good">+36.0</span>',
        '40.0 ± 3.0 <span class="bad faint">-2.0</span>',
        *("1 h 10 min", "1 min 32 s", "seed: 7", "characters left out"),
        *("Responses of step 000001", "Responses of step 000050"),
        *("exactly Φ<b>50 of 50<", "grader errors<b>50<", "tokens trained<b>614,400<"),
        "budget Φ, math<b>8,192 tokens a step<",
        f"budget Φ, {escape(NASTY)}<b>16,384 tokens a step<",
        '<tr class="marked"><td>step_000040</td>',
        "<span>4</span><span>12</span><span>4</span>",  # always, sometimes, never; one problem unjudged
        *("width:20.00%", "width:60.00%"),
    ):
        assert words in text, words
    assert "step 000025" not in text


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    make_selection(tmp_path)
    assert write_report(tmp_path).read_bytes() == write_report(tmp_path).read_bytes()


@pytest.mark.parametrize(
    ("maker", "kind", "figures"),
    [
        (make_sft, "SFT", 3),
        (make_selection, "checkpoint selection", 1),
        (make_rl, "RL", 4),
        (make_eval, "evaluation", 2),
        (lambda run: write(run / "metrics.jsonl", []), "run", 0),
    ],
)
def test_a_single_run(tmp_path: Path, maker: Callable[[Path], None], kind: str, figures: int) -> None:
    maker(tmp_path)
    text = write_report(tmp_path).read_text()
    assert f"ringrl, {kind}; not finished<" in text
    assert text.count("<figure") == figures
    Tags(text)


def test_an_evaluation_shows_responses_by_problem(tmp_path: Path) -> None:
    make_eval(tmp_path)
    text = write_report(tmp_path).read_text()
    assert NASTY not in text
    assert re.findall(r"<b>(\d of 12 right)</b> .*<small>(p\d)<", text) == [
        ("4 of 12 right", f"p{i}") for i in range(4)
    ]
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
        assert f"<td>all steps</td><td>{kind}</td><td>{reason}</td>" in page
        assert f'<td class="num">{count}</td><td class="num">{share}</td>' in page
    assert f'<td>all steps</td><td>p{escape(NASTY)}</td><td class="num">25</td>' in page


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


def test_the_picture_comes_first(pipeline: tuple[Path, str]) -> None:
    _, text = pipeline
    assert text.index("<nav>") < text.index("<svg") < text.index("<table") < text.index('class="tiles"')


def test_stages_come_in_the_order_of_the_run(tmp_path: Path) -> None:
    keys = {"general": "epochs", "sft": "epochs", "rl": "stages", "select": "probe"}
    keys |= {f"eval_{name}": "benchmarks" for name in ("zeta", "general", "final", "sft", "math")}
    for name, key in keys.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"{key}: []")
    write(tmp_path / "rl" / "metrics.jsonl", few([1]))
    write(tmp_path / "data" / "steps" / "0_read" / "summary.json", {"kept": {"a": 1}})
    text = write_report(tmp_path).read_text()
    nav = re.findall(r'<a href="#(\w+)">([^<]*)</a>', text)
    assert [name for name, _ in nav] == re.findall(r'<h2 id="(\w+)">', text) == [
        *("data", "sft", "select", "rl", "general", "eval_sft", "eval_math", "eval_general", "eval_final", "eval_zeta")
    ]  # fmt: skip
    titles = [title for _, title in nav]
    assert titles[:5] == ["Data", "SFT", "Checkpoint selection", "RL", "SFT general"]
    assert titles[5:7] == ["Evaluation after sft", "Evaluation after math"]


def test_every_stage_gets_its_report_and_links(pipeline: tuple[Path, str]) -> None:
    run, text = pipeline
    for name in ("sft", "select", "rl", "eval_final"):
        assert f'href="{name}/report.html"' in text
        assert 'href="../report.html"' in (run / name / "report.html").read_text()
    assert "sample 3" in (run / "eval_final" / "report.html").read_text()


def test_the_hardest_problems_come_first_with_their_words(tmp_path: Path) -> None:
    rights = {"easy": 3, "hard": 0, "middling": 1}
    rows = [
        {"id": name, "sample": i, "verdict": "pass" if i < n else "fail", "reason": "", "length": 5, "finish": "stop"}
        for name, n in rights.items()
        for i in range(3)
    ]
    write(tmp_path / "responses" / "b.jsonl", [row | {"text": "It is 4."} for row in rows])
    prompts = [{"id": name, "messages": [{"content": "Be brief."}, {"content": "What is\n  2 and 2? " + "long " * 40}]}
               for name in rights]  # fmt: skip
    write(tmp_path / "prompts" / "b.jsonl", prompts)
    write(tmp_path / "results.json", {"benchmarks": {}})
    text = write_report(tmp_path).read_text()
    shown = re.findall(r"<b>(\d of 3 right)</b> (What is 2 and 2\? (?:long )+)… <small>(\w+)<", text)
    assert [(right, name) for right, _, name in shown] == [
        *(("0 of 3 right", "hard"), ("1 of 3 right", "middling"), ("3 of 3 right", "easy"))
    ]
    assert "Be brief." in text


def test_an_evaluation_that_was_interrupted_shows_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: m\nbenchmarks: [{name: b}]\ntop_p: 0.95\ntemperature: 0.6\n")
    verdict = {"verdict": "pass", "reason": "exact"}
    rows = [{"id": "p0", "sample": i, "text": f"It is {i}.", "length": 5, "finish": "stop"} for i in range(3)]
    write(tmp_path / "responses" / "b.jsonl", [*rows, *({"id": "p0", "sample": i, **verdict} for i in range(2))])
    write(tmp_path / "stopped.json", {"code": 130, "text": ""})
    text = write_report(tmp_path).read_text()
    assert "ringrl, evaluation; not finished: interrupted<" in text
    assert "2 of 2 right" in text
    assert "<dt>temperature</dt><dd>0.6</dd>" in text
    assert "top_p</dt>" not in text


def test_a_run_that_diverged_says_why(tmp_path: Path) -> None:
    make_rl(tmp_path)
    write(tmp_path / "stopped.json", {"code": 3, "text": NASTY})
    alarms = [{"kind": "gradient", "collapse": True, "text": "grad_norm 812 is 90 times what it was"}]
    write(tmp_path / "watchdog" / "step_000012.json", {"alarms": alarms, "rows": []})
    text = write_report(tmp_path).read_text()
    assert f"not finished: diverged: {escape(NASTY)}<" in text
    assert "<td>step 000012</td><td>gradient</td><td>yes</td><td>grad_norm 812 is 90 times what it was</td>" in text


def test_what_never_changes_is_a_line_and_no_plot(tmp_path: Path) -> None:
    make_sft(tmp_path)
    text = write_report(tmp_path).read_text()
    assert [title for title in ("Learning rate", "Router losses", "Throughput") if f"<h3>{title}<" in text] == []
    constant = re.search("The same at all steps: (.*?)<", text)
    assert constant
    assert constant[1] == (
        "learning rate: 0.0001; router losses (balance): 1.02; router losses (z): 0.4; tokens per second: 5200; "
        "entropy: 0.3."
    )


def test_axes_have_plain_numbers() -> None:
    """Whatever the range; text.parse_math is off, so that a formatter of mathematics would show its source."""
    for lengths in ({20: 3, 35: 1}, {15: 2, 900: 5}, {1: 1, 80_000: 2}, {12: 1}):
        svg = plots.svg(plots.draw_characters, {"": lengths})
        assert "mathdefault" not in svg
        assert "$" not in svg
    for ticks in ("plain", "percent", "tokens"):
        panel = plots.Panel("", "", (("y", "y"),), "", ticks=ticks)
        rows = [{"step": i, "y": 1e-9 * i} for i in (1, 2)]
        assert "mathdefault" not in plots.svg(plots.draw_panel, panel, rows, "step")


def test_settings_are_those_that_differ_from_the_defaults(tmp_path: Path) -> None:
    text = """
run: runs/x
model: m
stages:
- {name: math, data: [{files: [a.jsonl, b.jsonl], split: train}], steps: 60, prompts: 512, budget: {phi: 2048}}
trainer: {ranks: 2, parallel: {expert: 1, of_another_version: 3}}
prompting: {suffix: {}}
domains: {mine: {verifier: v.py:f, options: {}}}
optimizer: {lr: 3.0e-6}
temperature: 1.0
"""
    (tmp_path / "config.yaml").write_text(text)
    raw = read_config(tmp_path)
    assert kind_of(raw) == "RL"
    rows = dict(changed(raw, "RL"))
    assert rows["stages.math.data.0.files"] == "a.jsonl, b.jsonl"
    assert rows["trainer.parallel.of_another_version"] == "3"
    assert {
        "run",
        "optimizer.lr",
        "temperature",
        "stages.math.prompts",
        "stages.math.data.0.split",
    } & rows.keys() == set()
    assert rows["domains.mine.verifier"] == "v.py:f"
    assert rows.keys() <= {"model", "domains.mine.verifier", "stages.math.data.0.files",
                           "stages.math.steps", "stages.math.budget.phi",
                           "trainer.ranks", "trainer.parallel.of_another_version", "prompting.suffix"}  # fmt: skip
    write(tmp_path / "metrics.jsonl", map(rl_row, range(1, 4)))
    page_text = write_report(tmp_path).read_text()
    assert "<dt>stages.math.steps</dt><dd>60</dd>" in page_text
    assert "steps<b>3 of 60<" in page_text


def test_columns_without_a_value_are_left_out() -> None:
    spec = (("name", "name"), ("majority, %", "majority"), ("k", "k"))
    assert page.table(spec, [{"name": "a", "k": 1}, {"name": "b", "majority": None}]) == [
        ["name", "k"], ["a", "1"], ["b", "–"],
    ]  # fmt: skip
