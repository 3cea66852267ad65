"""What reaches a terminal: a real one, on which the display, the errors and the reports show hostile texts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ENVIRONMENT

HOSTILE = (
    "\x1b]0;owned\x07 \x1b[2J \x1b]8;;http://evil/\x07click\x1b]8;;\x07 \x9b31m \x9d0;t\x9c \u202eright \u2066i\u2069 "
    "\x08\x08\rback \u200b [bold]b[/bold] [link=http://evil]l[/link] :smile: http://user:hunter2@host/"
)
STEERING = (
    "\x1b]",
    "\x1b[2J",
    "\x07",
    "\x08",
    "\x9b",
    "\x9c",
    "\x9d",
    "\u202e",
    "\u2066",
    "\u200b",
    "\rback",
    "hunter2",
)
LITERAL = ("⟨U+001B⟩]0;owned", "[bold]b[/bold]", "[link=http://evil]l[/link]", ":smile:", "http://***@host/")


def on_terminal(*args: str | Path, code: int = 0, **more: str) -> str:
    """What a Python process writes to a terminal of its own, which is as wide as the texts are long."""
    ours, its = pty.openpty()
    env = {**ENVIRONMENT, "COLUMNS": "900", "TERM": "xterm-256color", "PYTHONUTF8": "1", **more}
    process = subprocess.Popen([sys.executable, *args], stdin=its, stdout=its, stderr=its, env=env)
    os.close(its)
    written = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # no process has it open any more
            break
        written += part
    os.close(ours)
    text = written.decode()
    assert process.wait() == code, text
    return text


def is_harmless(text: str) -> None:
    assert [steering for steering in STEERING if steering in text] == []
    assert [literal for literal in LITERAL if literal not in text] == []


@pytest.mark.parametrize("call", [
    "note(X)", "fail(X)", "table(X, [{'a': 'b' * 600}])", "table('t', [{X: 'b'}])", "table('t', [{'a': X}])",
    "phase(X, 1, 2)", "step(1, 2, {X: 1.0})", "step(1, 2, {'a': X})",
])  # fmt: skip
def test_the_display_shows_texts_literally(call: str) -> None:
    code = f"from ringrl.report.terminal import Display\nX = {HOSTILE!r}\nwith Display('c', 'r') as d:\n    d.{call}\n"
    if call.startswith(("phase", "step")):
        code += "    d.panel.refresh()\n"
    is_harmless(on_terminal("-c", code))


def test_the_name_of_a_run_is_shown_literally() -> None:
    is_harmless(on_terminal("-c", f"from ringrl.report.terminal import Display\nDisplay('c', {HOSTILE!r})"))


def test_an_error_is_red_unless_the_user_wants_no_colour() -> None:
    assert "\x1b[1;31merror" in on_terminal("-m", "ringrl", "sft", "gone.yaml", code=2)
    for text in (
        on_terminal("-m", "ringrl", "sft", "gone.yaml", code=2, NO_COLOR="1"),
        on_terminal("-c", "from ringrl.report.terminal import Display\nDisplay('c', 'r').fail('x')", NO_COLOR="1"),
    ):
        assert "error" in text
        assert "31m" not in text


def test_only_an_error_has_several_lines() -> None:
    code = "from ringrl.report.terminal import Display\nd = Display('c', 'r')\nd.{}('first\\nsecond')"
    assert "first⟨U+000A⟩second" in on_terminal("-c", code.format("note"))
    assert "first\r\nsecond" in on_terminal("-c", code.format("fail"))


@pytest.mark.parametrize("event", [
    {"kind": "note", "text": HOSTILE}, {"kind": "ended", "text": HOSTILE},
    {"kind": "step", "step": 1, "total": 2, "numbers": {HOSTILE: HOSTILE}},
    {"kind": "table", "title": HOSTILE, "rows": [{HOSTILE: HOSTILE}]},
], ids=lambda event: event["kind"])  # fmt: skip
def test_a_rank_that_others_started_prints_texts_literally(event: dict[str, object]) -> None:
    kind, values = event["kind"], {k: v for k, v in event.items() if k != "kind"}
    values |= {"code": 1} if kind == "ended" else {}
    is_harmless(on_terminal("-c", f"from ringrl.run import Progress\nProgress(None).{kind}(**{values!r})"))


@pytest.mark.parametrize("args", [
    ("sft", HOSTILE), ("sft", "gone.yaml", HOSTILE), ("plan", "x.yaml", f"--{HOSTILE}"), (HOSTILE,),
    ("verify", HOSTILE, "--out", "x"), ("eval", "--compare", HOSTILE, "b"), ("eval", "--rescore", HOSTILE),
])  # fmt: skip
def test_arguments_come_back_literally(args: tuple[str, ...]) -> None:
    text = on_terminal("-m", "ringrl", *args, code=2)
    assert [steering for steering in STEERING if steering in text] == []
    assert "owned" in text or "gone.yaml" in text


def rows(file: Path, *values: dict[str, object]) -> str:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(file)


def test_the_scores_of_a_pipeline_are_shown_literally() -> None:
    row = {"stage": HOSTILE, "model": "m", "scores": {HOSTILE: {"score": 0.5, "se": 0.1, "k": 2}}}
    call = f"show({ {'rows': [row]}!r}, Path({HOSTILE!r}))"
    is_harmless(on_terminal("-c", f"from pathlib import Path\nfrom ringrl.commands.pipeline import show\n{call}"))


def test_the_traceback_of_a_bug_is_shown_literally() -> None:
    code = f"import ringrl.cli as c\ndef bug(**more):\n    raise ValueError({HOSTILE!r})\nc.cli.main = bug\nc.main()"
    text = on_terminal("-c", code, code=1)
    is_harmless(text)
    assert "Traceback (most recent call last):\r\n" in text


def test_a_benchmark_is_shown_literally(tmp_path: Path) -> None:
    data = rows(tmp_path / "mine.jsonl", {"id": HOSTILE, "domain": "math", "problem": HOSTILE, "answer": HOSTILE})
    config = rows(tmp_path / "eval.yaml", {"run": "r", "model": "m", "benchmarks": [{"name": "mine", "data": data}]})
    is_harmless(on_terminal("-m", "ringrl", "eval", config, "--show", "mine"))


def test_verdicts_are_shown_literally(tmp_path: Path) -> None:
    row = {"domain": "math", "response": rf"\boxed{{{HOSTILE}}}", "reference": {"answer": HOSTILE + "4"}}
    args = ("verify", rows(tmp_path / "rows.jsonl", row), "--out", tmp_path / HOSTILE[:15], "--explain")
    is_harmless(on_terminal("-m", "ringrl", *map(str, args), "--workers", "1"))


def test_a_refused_row_is_shown_literally(tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", {"domain": HOSTILE, "response": "", "reference": {}})
    text = on_terminal("-m", "ringrl", "verify", file, "--out", tmp_path / "out", code=2)
    assert [steering for steering in STEERING if steering in text] == []


def test_a_dry_run_prints_yaml_that_reads_back(tmp_path: Path) -> None:
    system, benchmarks = HOSTILE.partition("http://user")[0], [{"name": "aime24"}]
    given = {"run": "r", "model": "m", "benchmarks": benchmarks, "prompting": {"system": system}}
    text = on_terminal("-m", "ringrl", "eval", rows(tmp_path / "eval.yaml", given), "--dry-run")
    assert [steering for steering in STEERING if steering in text] == []
    assert yaml.safe_load(text)["prompting"]["system"] == system
