"""Rows of every kind in one form; what is malformed is dropped with file and line, nothing else is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ringrl.config.data import Pile
from ringrl.curate import read as read_module
from ringrl.curate.read import MALFORMED, check, read, shards
from ringrl.curate.shards import Dropped, Row
from ringrl.domains import Domains
from ringrl.errors import DataError


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def pile(*files: str, **more: Any) -> Pile:
    return Pile(name="pile", files=files, **more)


def all_of(*sources: Pile) -> list[Row | Dropped]:
    return list(read(sources, Domains()))


def test_a_row_knows_where_it_comes_from(tmp_path: Path):
    file = written(tmp_path / "a.jsonl", {"id": 7, "problem": "1+1?", "answer": 2, "extra": [1]}, "", {"problem": "2?"})
    first, second = all_of(pile(file, labels={"level": "school"}))
    assert first == {
        "id": "pile/0", "own_id": "7", "source": "pile", "where": f"{file}:1", "domain": "math", "problem": "1+1?",
        "answer": "2", "extra": [1], "level": "school",
    }  # fmt: skip
    assert (second["id"], second["where"], second["answer"]) == ("pile/1", f"{file}:3", "")


def test_sources_keep_their_names_and_orders(tmp_path: Path):
    a = written(tmp_path / "a.jsonl", *({"problem": f"a{i}"} for i in range(3)))
    b = written(tmp_path / "b.jsonl", *({"problem": f"b{i}"} for i in range(3)))
    rows = all_of(Pile(name="x", files=(b, a), limit=4), Pile(name="y", files=(a,)))
    assert [(r["id"], r["problem"]) for r in rows] == [
        ("x/0", "b0"), ("x/1", "b1"), ("x/2", "b2"), ("x/3", "a0"), ("y/0", "a0"), ("y/1", "a1"), ("y/2", "a2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"problem": "x"', ":2: not JSON: "),
        ("[1, 2]", ":2: got list, expected an object"),
        ('"text"', ":2: got str, expected an object"),
        ({"answer": "1"}, ":2: problem: got None, expected a text"),
        ({"problem": "  "}, ":2: problem: got '  ', expected a text"),
        ({"problem": ["x"]}, ":2: problem: got ['x'], expected a text"),
        ({"problem": "x", "domain": "cooking"}, ":2: domain: got 'cooking', expected one of math, code, science"),
        ({"problem": "x", "solutions": 3}, ":2: solutions: got int, expected a list"),
        ({"problem": "x", "solutions": [3]}, ":2: solutions: got int, expected texts"),
        ({"problem": "x", "responses": [3]}, ":2: responses: got int, expected texts"),
        ({"problem": "x", "solutions": {"a": 1}}, ":2: solutions: got dict, expected a list"),
        ({"problem": "x", "pass_rates": [0.5]}, ":2: pass_rates: got [0.5], expected an object"),
        ({"problem": "x", "pass_rates": {"a": "half"}}, ":2: pass_rates: got 'half', expected numbers"),
        ({"problem": "x", "agreement": 1}, ":2: agreement: got 1, expected an object"),
        ({"problem": "x", "language": 3}, ":2: language: got 3, expected a text"),
        ({"problem": ["x" * 5000]}, ":2: problem: got ['xxxx"),
        ('{"problem": "x", "answer": ' + "[" * 90_000 + "]" * 90_000 + "}", ":2: values are nested too deeply"),
        ('{"problem": "x", "answer": 1' + "0" * 5000 + "}", ":2: got an integer of more than 4,300 digits"),
        ({"messages": []}, ":2: problem: got None, expected a text"),
        ({"messages": [{"role": "user"}]}, ":2: messages: got {'role': 'user'}"),
    ],
)
def test_malformed_rows_are_dropped_by_file_and_line(tmp_path: Path, line: Any, said: str):
    file = written(tmp_path / "a.jsonl", {"problem": "good"}, line, {"problem": "good too"})
    first, wrong, last = all_of(pile(file))
    assert isinstance(wrong, Dropped)
    assert wrong.reason == MALFORMED
    assert (file + said) in wrong.more["detail"]
    assert len(wrong.more["detail"]) < len(file) + 210
    assert (wrong.row["id"], wrong.row["source"]) == ("pile/1", "pile")
    assert [r["problem"] for r in (first, last) if isinstance(r, dict)] == ["good", "good too"]


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ({"solutions": None, "responses": None, "pass_rates": None, "language": None, "agreement": None}, {}),
        ({"responses": [None, "a"]}, {"responses": [{"teacher": "", "text": "a"}]}),
        ({"domain": "code", "solutions": [None, "print(1)"], "tests": []}, {"solutions": ["print(1)"], "tests": []}),
        ({"pass_rates": {"a": None, "b": 0.5}, "lengths": {"a": None}}, {"pass_rates": {"b": 0.5}, "lengths": {}}),
        ({"note": None}, {"note": None}),
    ],
)
def test_null_in_a_column_that_later_steps_read_is_absence(tmp_path: Path, row: Row, left: Row):
    [found] = all_of(pile(written(tmp_path / "a.jsonl", {"problem": "p", **row})))
    assert isinstance(found, dict)
    own = {"id", "source", "where", "domain", "problem", "answer"}
    assert {k: v for k, v in found.items() if k not in own} == left


def test_a_file_that_gives_no_row_is_named(tmp_path: Path):
    """Also one of several, whose columns are others."""
    good = written(tmp_path / "good.jsonl", {"question": "1+1?"}, "{", {"question": "1+2?"})
    other = written(tmp_path / "other.jsonl", {"query": "1+1?"}, {"query": "1+2?"})
    broken = written(tmp_path / "broken.jsonl", "not json", [], {})
    empty = written(tmp_path / "empty.jsonl")
    columns = {"problem": "question"}
    check([pile(good, columns=columns)], Domains())
    said = r"no key 'question', the row has \['query'\] \(2 of 2 rows are bad\)$"
    for run in (lambda p: check([p], Domains()), all_of):
        with pytest.raises(DataError, match=rf"^source pile: no row of \S*other\.jsonl can be read: \S*:1: .*: {said}"):
            run(pile(good, other, columns=columns))
        with pytest.raises(DataError, match=r"no row of \S*broken\.jsonl can be read: \S*:1: not JSON: .*3 of 3 rows"):
            run(pile(broken))
        with pytest.raises(DataError, match=r"empty\.jsonl: no rows"):
            run(pile(good, empty, columns=columns))
    assert len(all_of(pile(good, other, columns=columns, limit=3))) == 3  # none of the other was asked for


def test_bytes_that_are_no_text(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"problem": "caf\xe9"}\n{"problem": "good"}\n')
    wrong, good = all_of(pile(str(file)))
    assert isinstance(wrong, Dropped)
    assert f"{file}:1: not UTF-8" in wrong.more["detail"]
    assert isinstance(good, dict)


def test_columns_reach_into_values(tmp_path: Path):
    row = {"prompt": [{"content": "How many?"}], "reward_model": {"ground_truth": "34"}, "dots.in.name": "d"}
    file = written(tmp_path / "a.jsonl", row, {"prompt": [], "reward_model": {}})
    columns = {"problem": "prompt.0.content", "answer": "reward_model.ground_truth", "topic": "dots.in.name"}
    good, wrong = all_of(pile(file, columns=columns))
    assert isinstance(good, dict)
    assert (good["problem"], good["answer"], good["topic"]) == ("How many?", "34", "d")
    assert isinstance(wrong, Dropped)
    assert f"{file}:2: columns.problem: no key 'prompt.0.content'" in wrong.more["detail"]


def test_other_formats(tmp_path: Path):
    rows = [{"question": f"q{i}", "answer": f"so #### {i}"} for i in range(2500)]
    parquet, table = tmp_path / "a.parquet", tmp_path / "a.csv"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    with table.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["question", "answer"])
        writer.writeheader()
        writer.writerows(rows)
    for file in (parquet, table):
        found = all_of(pile(str(file), columns={"problem": "question"}))
        assert [(r["problem"], r["answer"]) for r in found if isinstance(r, dict)] == [
            (f"q{i}", str(i)) for i in range(2500)
        ]


def test_a_conversation_is_a_problem_with_a_response(tmp_path: Path):
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "2", "reasoning_content": "one more"}]  # fmt: skip
    long = [*said, {"role": "user", "content": "sure?"}, {"role": "assistant", "content": "yes"}]
    file = written(tmp_path / "a.jsonl", {"messages": said}, {"messages": long})
    good, wrong = all_of(pile(file))
    assert isinstance(good, dict)
    assert good["problem"] == "1+1?"
    assert good["responses"] == [{"text": "<think>\none more\n</think>\n\n2", "teacher": ""}]
    assert isinstance(wrong, Dropped)
    assert "got roles user, assistant, user, assistant, expected user, assistant" in wrong.more["detail"]


def test_a_thought_that_the_prompt_began_is_whole(tmp_path: Path):
    texts = ["so</think>2", "<think>so</think>2", "2"]
    [row] = all_of(pile(written(tmp_path / "a.jsonl", {"problem": "1+1?", "responses": texts})))
    assert isinstance(row, dict)
    assert [r["text"] for r in row["responses"]] == ["<think>so</think>2", "<think>so</think>2", "2"]


def test_a_missing_file_is_the_users(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such data file"):
        all_of(pile(str(tmp_path / "nowhere.jsonl")))


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_shards_hold_all_rows_in_order(tmp_path: Path, size: int):
    file = written(tmp_path / "a.jsonl", *({"problem": str(i)} for i in range(7)))
    numbers, parts = zip(*shards([pile(file)], Domains(), size), strict=True)
    assert list(numbers) == list(range(len(parts)))
    assert [r["problem"] for part in parts for r in part if isinstance(r, dict)] == [str(i) for i in range(7)]
    assert {len(part) for part in parts[:-1]} <= {size}


def test_a_shard_ends_when_it_is_large_whatever_makes_it_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read_module, "SHARD_CHARS", 10_000)
    long = [{"problem": "p", "tests": [{"input": "1" * n, "output": "2"}]} for n in (20_000, 10, 6000, 6000, 10)]
    file = written(tmp_path / "a.jsonl", *long, {"answer": "x" * 20_000}, {"problem": "q"})
    parts = [part for _, part in shards([pile(file, domain="code")], Domains(), 50)]
    assert [len(part) for part in parts] == [1, 3, 2, 1]


PAIRS = [{"input": "1", "output": "2"}, {"input": "3", "output": "4"}]


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (PAIRS, {"tests": PAIRS}),
        ({"inputs": ["1", "3"], "outputs": ["2", "4"]}, {"tests": PAIRS}),
        ({"input": ["1", "3"], "output": ["2", "4"]}, {"tests": PAIRS}),
        ('{"inputs": ["1", "3"], "outputs": ["2", "4"], "fn_name": "f"}', {"tests": PAIRS, "entry_point": "f"}),
        ({"inputs": ["1", "3"], "outputs": ["2"]}, {"tests": {"inputs": ["1", "3"], "outputs": ["2"]}}),
        ("assert f(1) == 2", {"tests": "assert f(1) == 2"}),
        ("[broken", {"tests": "[broken"}),
    ],
)
def test_public_forms_of_tests(tmp_path: Path, tests: Any, expected: Row):
    file = written(tmp_path / "a.jsonl", {"problem": "p", "tests": tests})
    [row] = all_of(pile(file, domain="code"))
    assert isinstance(row, dict)
    assert {k: row[k] for k in ("tests", "entry_point") if k in row} == expected


@pytest.mark.parametrize(
    ("solutions", "more", "expected"),
    [
        (["print(1)"], {}, ["print(1)"]),
        ('["print(1)", "print(2)"]', {}, ["print(1)", "print(2)"]),
        ({"language": [1, 2, 3, 4], "solution": ["print 1", "int main", "print(1)", "class A"]}, {}, ["print(1)"]),
        ({"language": [1, 2, 3], "solution": ["print 1", "int main", "print(1)"]}, {"language": "cpp"}, ["int main"]),
        ("print(1)", {}, ["print(1)"]),
    ],
)
def test_public_forms_of_solutions(tmp_path: Path, solutions: Any, more: Row, expected: list[str]):
    file = written(tmp_path / "a.jsonl", {"problem": "p", "tests": [], "solutions": solutions, **more})
    [row] = all_of(pile(file, domain="code"))
    assert isinstance(row, dict)
    assert row["solutions"] == expected


def test_what_is_no_part_of_the_problem_is_removed(tmp_path: Path):
    file = written(tmp_path / "a.jsonl", {"problem": "Solve this step by step.\n\n1+1?\n\nRemember the box."})
    [row] = all_of(pile(file, remove=[r"^Solve this step by step\.\s+", r"\s+Remember the box\.$"]))
    assert isinstance(row, dict)
    assert row["problem"] == "1+1?"
    with pytest.raises(ValueError, match="expected a regular expression"):
        pile(file, remove=["("])
