"""The first prompt of every benchmark from a row as its files have it; the user's own files; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ringrl.cli import cli
from ringrl.commands.eval_tools import show_benchmark
from ringrl.config.commands import Bench, EvalConfig
from ringrl.config.sections import BOXED, FENCED
from ringrl.domains import Domains
from ringrl.errors import ConfigError, DataError
from ringrl.evals.benchmarks import BENCHMARKS, definition, read_benchmark, samples_of, source_of
from ringrl.plan import dry_run
from ringrl.rewards.answers import verify_math

SHARED = Path(__file__).parents[3] / "shared" / "data"
LCB = {
    "question_id": "abc_1",
    "question_content": "Print the sum.",
    "contest_date": "2024-09-01T00:00:00",
    "starter_code": "",
    "public_test_cases": '[{"input": "1 2", "output": "3", "testtype": "stdin"}]',
    "private_test_cases": "[]",
    "metadata": "{}",
}
# name -> (a row in the columns of its files, what the model is asked, what is expected)
FIRST: dict[str, tuple[dict[str, Any], str, str]] = {
    "aime24": ({"id": 60, "problem": "P?", "solution": "s", "answer": "204"}, f"P?\n{BOXED}", "204"),
    "aime25": ({"problem": "P?", "answer": "70", "id": "0"}, f"P?\n{BOXED}", "70"),
    "amc23": ({"id": 0, "question": "P?", "answer": "27.0", "url": "u"}, f"P?\n{BOXED}", "27.0"),
    "math500": ({"problem": "P?", "solution": "s", "answer": "\\frac{1}{2}", "unique_id": "t/1"}, f"P?\n{BOXED}",
                "\\frac{1}{2}"),
    "cnmo24": ({"question": "P?", "answer": "5", "question_type": "q"}, f"P?\n{BOXED}", "5"),
    "livemathbench": ({"question": "P?", "answer": "5", "question_type": "q"}, f"P?\n{BOXED}", "5"),
    "minerva": ({"question": "P?", "answer": "4.5e33"}, f"P?\n{BOXED}", "4.5e33"),
    "olympiadbench": (
        {"id": 1606, "question": "P?", "final_answer": ["$1$", "$2$"], "is_multiple_answer": True, "unit": "cm"},
        f"P? Give the answer in cm. Give all answers, separated by commas.\n{BOXED}", "$1$, $2$"),
    "gsm8k": ({"question": "P?", "answer": "2+2=<<2+2=4>>4\n#### 4"}, f"P?\n{BOXED}", "4"),
    "gpqa_diamond": (
        {"Record ID": "rec1", "Question": "Which? ", "Correct Answer": "right", "Incorrect Answer 1": "w1",
         "Incorrect Answer 2": "w2", "Incorrect Answer 3": "w3"},
        f"Which?\n\nA. w1\nB. w3\nC. right\nD. w2\n\nChoose one option, and give its letter as the answer.\n{BOXED}",
        "C"),
    "livecodebench": (
        LCB, "Print the sum.\n\nWrite a program that reads from standard input and writes to standard output.\n"
        f"{FENCED}", "all tests pass"),
    "humaneval": (
        {"task_id": "HumanEval/0", "prompt": 'def f(x):\n    """x"""\n', "canonical_solution": "    return x\n",
         "test": "def check(candidate):\n    assert candidate(1) == 1\n", "entry_point": "f"},
        "Complete this function. Give the whole program, imports included.\n\n"
        f'```python\ndef f(x):\n    """x"""\n```\n{FENCED}', "all tests pass"),
    "mbpp": (
        {"task_id": 11, "text": "Write f.", "code": "", "test_list": ["assert f(1) == 1"], "test_setup_code": ""},
        f"Write f. It must pass these tests:\n\n```python\nassert f(1) == 1\n```\n{FENCED}", "all tests pass"),
}  # fmt: skip


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def config(*benches: str | dict[str, Any], **more: Any) -> EvalConfig:
    named = [b if isinstance(b, dict) else {"name": b} for b in benches]
    return EvalConfig.model_validate({"run": "r", "model": "m", "benchmarks": named, **more})


def rows(bench: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    cfg = config(bench, **more)
    return read_benchmark(cfg.benchmarks[0], cfg)


def test_every_benchmark_has_its_first_prompt_here():
    assert list(FIRST) == list(BENCHMARKS)


@pytest.mark.parametrize("name", FIRST)
def test_the_first_prompt_is_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    row, asked, expected = FIRST[name]
    write(tmp_path / f"{name}.jsonl", row)
    assert show_benchmark(config(name, data=str(tmp_path))) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{name}\n")
    assert f"\n[user]\n{asked}\n\n[expected]\n{expected}\n" in text
    assert f"avg@{BENCHMARKS[name].samples}" in text
    assert "problems     1\n" in text


@pytest.mark.parametrize("name", FIRST)
def test_every_definition_names_files_at_a_revision(name: str):
    what = definition(Bench(name=name), config(name))
    assert what.files
    for file in what.files:
        revision = file.partition("@")[2].partition("/")[0]
        assert file.startswith("hf://datasets/")
        assert len(revision) == 40 or "revision" in what.unchecked


def test_every_benchmark_names_its_comparison_and_who_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    docs = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    for name, entry in BENCHMARKS.items():
        assert entry.comparison
        assert f"\n| {name} | {entry.comparison} | {entry.source} |\n" in docs
    write(tmp_path / "minerva.jsonl", FIRST["minerva"][0])
    show_benchmark(config("minerva", data=str(tmp_path)))
    assert "  comparison   numbers within 1 %, else equal values\n  source       Lewk" in capsys.readouterr().out


MINERVA, OLYMPIAD = {"question": "P?", "answer": "4.5e33"}, FIRST["olympiadbench"][0]


@pytest.mark.parametrize(
    ("name", "row", "tolerance"),
    [
        ("minerva", MINERVA, {"relative": 0.01}),
        ("minerva", {"problem": "P?", "answer": "2400"}, {"relative": 0.01}),
        ("minerva", {"problem": "P?", "answer": 0.5}, {"relative": 0.01}),
        ("minerva", {**MINERVA, "answer": "x^2 + 1"}, None),
        ("minerva", {**MINERVA, "answer": "1/3"}, None),
        ("minerva", {**MINERVA, "tolerance": {"absolute": 1}}, {"absolute": 1}),
        ("olympiadbench", OLYMPIAD, None),
        ("olympiadbench", {**OLYMPIAD, "error": None}, None),
        ("olympiadbench", {**OLYMPIAD, "error": ""}, None),
        ("olympiadbench", {**OLYMPIAD, "error": "1e-1"}, {"absolute": "1e-1"}),
        ("olympiadbench", {**OLYMPIAD, "error": 0.05}, {"absolute": "0.05"}),
        ("olympiadbench", {**OLYMPIAD, "error": "1e-1,1e-2"}, {"absolute": ["1e-1", "1e-2"]}),
        ("olympiadbench", {**OLYMPIAD, "error": ",1e-2"}, {"absolute": ["1e-8", "1e-2"]}),
        ("olympiadbench", {**OLYMPIAD, "error": ["1e-1", "1e-2"]}, {"absolute": ["1e-1", "1e-2"]}),
        ("olympiadbench", {**OLYMPIAD, "error": "1e-1", "answer_type": "Tuple"}, None),
        ("olympiadbench", {"problem": "P?", "answer": "2.7", "error": "1e-1"}, {"absolute": "1e-1"}),
        ("math500", {"problem": "P?", "answer": "2.7", "error": "1e-1"}, None),
    ],
)
def test_rows_carry_the_tolerance_of_their_benchmark(tmp_path: Path, name: str, row: dict[str, Any], tolerance: Any):
    (problem,) = rows({"name": name, "data": write(tmp_path / "rows.jsonl", row)})
    assert problem.get("tolerance") == tolerance
    assert Domains().reference(problem).get("tolerance") == tolerance


@pytest.mark.parametrize("error", ["about 1", "1e-1;1e-2", "-1", "1e999", "1e-1,x"])
def test_an_error_column_that_cannot_be_read_is_named(tmp_path: Path, error: str):
    file = write(tmp_path / "rows.jsonl", OLYMPIAD, {**OLYMPIAD, "id": 2, "error": error})
    with pytest.raises(DataError) as refused:
        rows({"name": "olympiadbench", "data": file})
    said = f"error: got {error!r}, expected a number, or one for each answer, with commas"
    assert str(refused.value) == f"{file}:2: {said}"


@pytest.mark.parametrize(
    ("name", "row", "answer", "right"),
    [
        ("minerva", MINERVA, r"4.48 \times 10^{33}", True),
        ("minerva", MINERVA, r"4.4 \times 10^{33}", False),
        ("minerva", {**MINERVA, "answer": "-18.8"}, "-18.75", True),
        ("minerva", {**MINERVA, "answer": "-18.8"}, "18.8", False),
        ("olympiadbench", {**OLYMPIAD, "error": "1e-1"}, "1.1, 1.95", True),
        ("olympiadbench", {**OLYMPIAD, "error": "1e-1"}, "1.1, 1.85", False),
        ("olympiadbench", {**OLYMPIAD, "error": "1e-1,1"}, "2.9, 1.1", True),
        ("olympiadbench", OLYMPIAD, "1.1, 2", False),
    ],
)
def test_its_responses_are_judged_by_it(tmp_path: Path, name: str, row: dict[str, Any], answer: str, right: bool):
    (problem,) = rows({"name": name, "data": write(tmp_path / "rows.jsonl", row)})
    verdict = verify_math(rf"So \boxed{{{answer}}}.", Domains().reference(problem))
    assert verdict.kind == ("pass" if right else "fail")


@pytest.mark.parametrize(
    ("written", "read"),
    [(["12"], "12"), (["$1$", "$2$"], "$1$, $2$"), ("12", "12"), ('["1", "2"]', '["1", "2"]'), (12.0, "12")],
)
def test_final_answers_of_olympiadbench(tmp_path: Path, written: Any, read: str):
    (problem,) = rows(
        {"name": "olympiadbench", "data": write(tmp_path / "a.jsonl", {**OLYMPIAD, "final_answer": written})}
    )
    assert problem["answer"] == read


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gpqa_diamond", {"Correct Answer": None}),
        ("mbpp", {"test_setup_code": None}),
        ("livecodebench", {"metadata": "[]"}),
        ("olympiadbench", {"final_answer": {"a": 1}}),
        ("olympiadbench", {"question": None}),
        ("gsm8k", {"answer": None}),
    ],
)
def test_a_column_of_another_type_is_one_line(tmp_path: Path, name: str, row: dict[str, Any]):
    file = write(tmp_path / "a.jsonl", FIRST[name][0], {**FIRST[name][0], "id": 2, "question_id": "2", **row})
    with pytest.raises(DataError) as error:
        rows({"name": name, "data": file})
    assert str(error.value).startswith(f"{file}:2: ")
    assert "\n" not in str(error.value)


def test_the_choices_are_shuffled_the_same_way_each_time_and_differently_for_each_question(tmp_path: Path):
    row = FIRST["gpqa_diamond"][0]
    file = write(tmp_path / "gpqa.jsonl", *[{**row, "Record ID": str(i), "Question": f"Which {i}?"} for i in range(40)])
    first = rows({"name": "gpqa_diamond", "data": file})
    assert first == rows({"name": "gpqa_diamond", "data": file})
    letters = [r["answer"] for r in first]
    assert {letters.count(x) for x in "ABCD"} <= set(range(4, 18))
    assert all(f"{r['answer']}. right" in r["problem"] for r in first)


def test_release_and_window_of_livecodebench_are_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    days = ("2024-07-31", "2024-08-01", "2025-01-31", "2025-02-01")
    dated = [{**LCB, "question_id": d, "contest_date": f"{d}T00:00:00"} for d in days]
    bench = {"name": "livecodebench", "data": write(tmp_path / "lcb.jsonl", *dated)}
    assert [r["id"] for r in rows(bench)] == list(days[1:3])
    assert [r["id"] for r in rows({**bench, "since": "2025-02-01", "until": "2025-05-01"})] == [days[3]]
    with pytest.raises(DataError, match="no problems from 2026-01-01 to 2026-02-01"):
        rows({**bench, "since": "2026-01-01", "until": "2026-02-01"})
    show_benchmark(config(bench))
    assert "release      v5\n  window       2024-08-01 to 2025-01-31" in capsys.readouterr().out
    assert dry_run.evaluation(config("livecodebench"))[0].startswith(
        "livecodebench: release v5, problems from 2024-08-01 to 2025-01-31; k = 8"
    )
    files = source_of(Bench(name="livecodebench", release="v2"), config("livecodebench")).files
    assert [f.rpartition("/")[2] for f in files] == ["test.jsonl", "test2.jsonl"]


def test_tests_of_livecodebench_stay_packed(tmp_path: Path):
    row = {**LCB, "private_test_cases": "not looked at", "metadata": '{"func_name": "f"}'}
    (problem,) = rows({"name": "livecodebench", "data": write(tmp_path / "lcb.jsonl", row)})
    assert problem["tests"]["private_test_cases"] == "not looked at"
    assert problem["tests"]["func_name"] == "f"


def test_own_problems_need_no_code(tmp_path: Path):
    file = write(tmp_path / "mine.jsonl", {"q": "1+1?", "a": "2"}, {"q": "1+2?", "a": "3"})
    mine = {"name": "mine", "data": file, "columns": {"problem": "q", "answer": "a"}}
    assert [(r["id"], r["problem"], r["answer"]) for r in rows(mine)] == [
        ("mine-0", "1+1?", "2"),
        ("mine-1", "1+2?", "3"),
    ]
    assert samples_of(Bench.model_validate(mine), config(mine)) == 32


def test_parquet_and_csv_are_read(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"question": "P?", "answer": "5"}]), tmp_path / "amc23.parquet"
    )
    (tmp_path / "gsm8k.csv").write_text('question,answer\n"a,\nb",#### 7\n')
    folder = config("amc23", "gsm8k", data=str(tmp_path))
    first, second = (read_benchmark(b, folder) for b in folder.benchmarks)
    assert (first[0]["problem"], first[0]["answer"]) == ("P?", "5")
    assert (second[0]["problem"], second[0]["answer"]) == ("a,\nb", "7")


def test_k_is_the_benchmarks_unless_given():
    cfg = config({"name": "aime24", "samples": 5}, "math500", "gsm8k")
    assert [samples_of(b, cfg) for b in cfg.benchmarks] == [5, 4, 4]
    cfg = config({"name": "aime24", "samples": 5}, "math500", samples=9)
    assert [samples_of(b, cfg) for b in cfg.benchmarks] == [5, 9]


@pytest.mark.parametrize(
    ("bench", "more", "words"),
    [
        ({"name": "nope"}, {}, "benchmarks: got 'nope', expected one of aime24, "),
        ({"name": "aime24", "since": "2024-01-01"}, {}, "benchmarks.aime24.since: got '2024-01-01', expected none"),
        ({"name": "aime24", "release": "v5"}, {}, "benchmarks.aime24.release: got 'v5', expected none"),
        ({"name": "aime24"}, {"data": "nowhere/"}, "nowhere/"),
        (
            {"name": "aime24", "data": "hf://datasets/a/b/c.jsonl"},
            {},
            "expected hf://datasets/OWNER/NAME@REVISION/FILE",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(bench: dict[str, Any], more: dict[str, Any], words: str):
    with pytest.raises((ConfigError, DataError)) as error:
        rows(bench, **more)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_that_lack_a_column_or_repeat_an_id_are_named(tmp_path: Path):
    file = write(tmp_path / "humaneval.jsonl", {"task_id": "1"})
    with pytest.raises(DataError, match=r"humaneval\.jsonl:1: no key 'prompt', the row has \['task_id'\]"):
        rows({"name": "humaneval", "data": file})
    file = write(tmp_path / "aime24.jsonl", *[{"id": 1, "problem": "P?", "answer": "1"}] * 2)
    with pytest.raises(DataError, match="aime24: two problems have the id '1'"):
        rows({"name": "aime24", "data": file})


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the project's shared data")
@pytest.mark.parametrize(
    ("name", "file", "n"),
    [("aime24", "math/aime24.jsonl", 30), ("aime25", "math/aime25.jsonl", 30), ("amc23", "math/amc23.jsonl", 40),
     ("gsm8k", "gsm8k/test.jsonl", 1319)],
)  # fmt: skip
def test_published_files(name: str, file: str, n: int):
    assert len(rows({"name": name, "data": str(SHARED / file)})) == n


def test_problems_of_a_users_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    board = {"problem": "Mate?", "domain": "chess", "fen": "8/8", "best": "Qh5"}
    bench = {"name": "mine", "data": write(tmp_path / "mine.jsonl", board, {**board, "problem": "And now?"})}
    chess = {"verifier": "my_rewards.py:chess", "suffix": "Say a move."}
    assert rows(bench, domains={"chess": chess})[0] == {**board, "id": "mine-0"}
    show_benchmark(config(bench, domains={"chess": chess}))
    shown = capsys.readouterr().out
    assert "Mate?\nSay a move." in shown
    assert shown.endswith("[expected]\nmy_rewards.py:chess\n")
    show_benchmark(config(bench, domains={"chess": {**chess, "answer": "best"}}))
    assert capsys.readouterr().out.endswith("[expected]\nQh5\n")
    with pytest.raises(DataError, match=r"mine\.jsonl:1: domain: got 'chess', expected .*_gym \(2 of 2 "):
        rows(bench)


# ---- by flags alone


@pytest.mark.parametrize("folder", [False, True])
def test_a_benchmark_of_your_own_needs_no_configuration(folder: bool, tmp_path: Path):
    file = write(tmp_path / "mine.jsonl", {"problem": "1+1?", "answer": "2"})
    data = str(tmp_path) if folder else file
    done = CliRunner().invoke(cli, ["eval", "--model", "m", "--bench", "mine", "--data", data, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "mine: k = " in done.output
    assert "data not checked" not in done.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give either CONFIG, or --model and --bench"),
        (["--bench", "mine"], "benchmarks: got 'mine', expected one of aime24, "),
        (["--bench", "mine,gsm8k", "--data", "a.jsonl"], "data: got a.jsonl, expected a folder for 2 benchmarks"),
        (["--bench", "gsm8k,gsm8k"], "benchmarks: got gsm8k, gsm8k, expected each name once"),
    ],
)
def test_what_is_missing_of_the_flags_is_one_line(args: list[str], said: str):
    done = CliRunner().invoke(cli, ["eval", "--model", "m", *args, "--dry-run"])
    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"
