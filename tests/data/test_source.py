"""Rows of every accepted form, and one line naming file and line for every other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.sections import Prompting, Source
from ringrl.data.source import check_local, fingerprint, messages_of, read_conversations, read_problems
from ringrl.domains import BOXED, Domain, Domains, Reward
from ringrl.errors import DataError

GOOD = {"id": "a", "domain": "math", "problem": "1+1?", "answer": "2"}
TALK = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def source(*files: str, **more: Any) -> Source:
    return Source(files=files, **more)


def problems(of: Source) -> list[dict[str, Any]]:
    return read_problems(of, Domains())


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ('{"id": "b", ', "not JSON"),
        ("[1, 2]", "got list, expected an object"),
        ('"text"', "got str, expected an object"),
        ({**GOOD, "domain": "poetry"}, "domain: got 'poetry', expected one of math, code, science"),
        ({k: v for k, v in GOOD.items() if k != "problem"}, "problem: got None"),
        ({**GOOD, "problem": "  "}, "problem: got '  '"),
        ({**GOOD, "problem": 5}, "problem: got 5"),
        ({k: v for k, v in GOOD.items() if k != "answer"}, "answer: missing"),
        ({**GOOD, "answer": ""}, "answer: missing"),
        ({**GOOD, "answer": None}, "answer: missing"),
        ({**GOOD, "domain": "code"}, "tests: missing"),
        ({**GOOD, "domain": "code", "tests": []}, "tests: missing"),
    ],
)
def test_a_bad_problem_is_named_by_file_and_line(tmp_path: Path, bad: Any, what: str):
    file = write(tmp_path / "rows.jsonl", GOOD, "", bad, GOOD)  # the blank line counts
    with pytest.raises(DataError) as error:
        read_problems(source(file), Domains())
    assert str(error.value).startswith(f"{file}:3: ")
    assert what in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({"text": "hello"}, "messages: got None"),
        ({"messages": []}, "messages: got []"),
        ({"messages": "hello"}, "messages: got 'hello'"),
        ({"messages": ["hello"]}, "messages: got 'hello'"),
        ({"messages": [{"role": "assistant"}]}, "expected {role, content}"),
        ({"messages": [{"role": "assistant", "content": None}]}, "expected {role, content}"),
        ({"messages": TALK["messages"][:1]}, "the last role is 'user', expected 'assistant'"),
    ],
)
def test_a_bad_conversation_is_named_by_file_and_line(tmp_path: Path, bad: Any, what: str):
    file = write(tmp_path / "sft.jsonl", TALK, bad)
    with pytest.raises(DataError) as error:
        list(read_conversations(source(file)))
    assert str(error.value).startswith(f"{file}:2: ")
    assert what in str(error.value)


def test_conversations_come_as_they_are(tmp_path: Path):
    file = write(tmp_path / "sft.jsonl", TALK, {**TALK, "extra": 1})
    assert [m for _, m in read_conversations(source(file))] == [TALK["messages"]] * 2


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such data file"):
        read_problems(source(str(tmp_path / "nowhere.jsonl")), Domains())


def test_columns_rename_another_schema(tmp_path: Path):
    file = write(tmp_path / "other.jsonl", {"question": "6*12?", "solution": "72", "id": "q"})
    (row,) = read_problems(source(file, columns={"problem": "question", "answer": "solution"}), Domains())
    assert (row["id"], row["domain"], row["problem"], row["answer"]) == ("q", "math", "6*12?", "72")


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path):
    file = write(tmp_path / "other.jsonl", {"question": "6*12?", "answer": "72"})
    with pytest.raises(DataError, match=r"columns\.problem: no key 'prompt', the row has \['answer', 'question'\]"):
        read_problems(source(file, columns={"problem": "prompt"}), Domains())


@pytest.mark.parametrize(
    ("written", "read"),
    [("6 * 12 = <<6*12=72>>72\n#### 72", "72"), ("#### -1,000 ", "-1,000"), ("72", "72"), (72, "72"), (0, "0")],
)
def test_an_answer_is_the_text_after_the_hashes_of_gsm8k(tmp_path: Path, written: Any, read: str):
    file = write(tmp_path / "gsm8k.jsonl", {**GOOD, "answer": written})
    assert read_problems(source(file), Domains())[0]["answer"] == read


def test_tests_of_code_stay_as_they_are(tmp_path: Path):
    tests = [{"input": "1", "output": "2"}]
    file = write(tmp_path / "code.jsonl", {"id": "c", "domain": "code", "problem": "add", "tests": tests})
    assert read_problems(source(file), Domains())[0]["tests"] == tests


def test_a_domain_of_the_source_is_stronger_than_the_rows(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", GOOD, {**GOOD, "domain": "poetry"})
    assert [r["domain"] for r in read_problems(source(file, domain="science"), Domains())] == ["science", "science"]


def test_a_row_without_an_id_is_called_by_its_place(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", {k: v for k, v in GOOD.items() if k != "id"})
    assert read_problems(source(file), Domains())[0]["id"] == f"{file}:1"


@pytest.mark.parametrize(("limit", "ids"), [(0, "abcd"), (1, "a"), (3, "abc"), (9, "abcd")])
def test_limit_counts_rows_over_all_files_in_order(tmp_path: Path, limit: int, ids: str):
    first = write(tmp_path / "1.jsonl", *[{**GOOD, "id": i} for i in "ab"])
    second = write(tmp_path / "2.jsonl", *[{**GOOD, "id": i} for i in "cd"])
    assert [r["id"] for r in read_problems(source(first, second, limit=limit), Domains())] == list(ids)


def test_rows_beyond_the_limit_are_not_looked_at(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", GOOD, "broken")
    assert len(read_problems(source(file, limit=1), Domains())) == 1


def test_the_check_before_a_start_finds_what_reading_would(tmp_path: Path):
    good, empty = write(tmp_path / "good.jsonl", GOOD), write(tmp_path / "empty.jsonl")
    check_local([source(good)], problems)
    with pytest.raises(DataError, match=r"empty\.jsonl: no rows"):
        check_local([source(good), source(empty)], problems)
    with pytest.raises(DataError, match=r"good\.jsonl:1: messages"):
        check_local([source(good)], read_conversations)


def test_the_check_leaves_hub_datasets_to_the_run():
    check_local([source("nobody/knows-this")], problems)


def test_fingerprints_are_of_the_bytes_and_name_hub_datasets(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", GOOD)
    expected = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert fingerprint([source(file), source(file, "openai/gsm8k")]) == {file: expected, "openai/gsm8k": "hub dataset"}


def test_a_folder_is_loaded_by_datasets_as_a_hub_name_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    for split, answer in (("train", "2"), ("test", "3")):
        write(folder / f"{split}.jsonl", {"question": "1+1?", "answer": answer})
    rows = read_problems(source(str(folder), split="test", columns={"problem": "question"}, domain="math"), Domains())
    assert [(r["problem"], r["answer"], r["domain"]) for r in rows] == [("1+1?", "3", "math")]
    assert rows[0]["id"] == f"{folder}[0]"


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "<think>a</think>b"}, "<think>a</think>b"),
        ({"content": "\n<think>a</think>b"}, "<think>a</think>b"),
        ({"content": "a</think>b"}, "<think>a</think>b"),  # sampled from a prompt that opens the thought
        ({"content": "b", "reasoning_content": "a"}, "<think>\na\n</think>\n\nb"),
        ({"content": "\nb", "thinking": "\na\n", "reasoning_content": None}, "<think>\na\n</think>\n\nb"),
        ({"content": " b", "thinking": ""}, " b"),
        ({"content": "say <think> and </think>"}, "say <think> and </think>"),
    ],
)
def test_a_thought_stands_before_the_answer_however_it_is_written(
    tmp_path: Path, message: dict[str, Any], content: str
):
    user = {"role": "user", "content": " a</think>", "name": "x"}
    file = write(tmp_path / "rows.jsonl", {"messages": [user, {"role": "assistant", **message}]})
    ((_, messages),) = list(read_conversations(source(file)))
    assert messages == [user, {"role": "assistant", "content": content}]


@pytest.mark.parametrize("more", [{"reasoning_content": "c"}, {"thinking": ["c"]}])
def test_two_thoughts_in_one_turn_are_refused(tmp_path: Path, more: dict[str, Any]):
    turn = {"role": "assistant", "content": "<think>a</think>b" if "reasoning_content" in more else "b", **more}
    file = write(tmp_path / "rows.jsonl", {"messages": [TALK["messages"][0], turn]})
    with pytest.raises(DataError, match=r"rows\.jsonl:1: messages: reasoning_content, .*thinking: expected one text"):
        list(read_conversations(source(file)))


# ---- a user's domain


CHESS = Domain("chess", (Reward("chess", "my.py:chess"),), "chess", "Say a move.", required=("fen",))
BOARD = {"id": "b", "domain": "chess", "problem": "Mate?", "fen": "8/8", "answer": 5, "best": [1]}


def test_a_row_of_a_users_domain_is_read_as_it_stands(tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", BOARD, {k: v for k, v in BOARD.items() if k != "fen"})
    assert read_problems(source(file, limit=1), Domains([CHESS])) == [BOARD]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: fen: missing, expected what a chess verifier needs$"):
        read_problems(source(file), Domains([CHESS]))
    with pytest.raises(
        DataError,
        match=r"rows\.jsonl:1: domain: got 'chess', expected .*_gym \(2 of 2 rows are bad\)$",
    ):
        read_problems(source(file), Domains())
    with pytest.raises(DataError, match=r"odd\.jsonl:1: domain: .*, chess; did you mean 'chess'\?$"):
        read_problems(source(write(tmp_path / "odd.jsonl", {**BOARD, "domain": "ches"})), Domains([CHESS]))


@pytest.mark.parametrize(
    ("suffix", "chess", "math"),
    [
        (Prompting().suffix, "Mate?\nSay a move.", f"1+1?\n{BOXED}"),
        ({}, "Mate?\nSay a move.", "1+1?"),
        ({"chess": "Move!"}, "Mate?\nMove!", "1+1?"),
        ({"chess": "", "math": "Add."}, "Mate?", "1+1?\nAdd."),
    ],
)
def test_what_follows_a_problem(suffix: dict[str, str], chess: str, math: str):
    how, domains = Prompting(suffix=suffix, system="s"), Domains([CHESS])
    said = [messages_of(row, how, domains) for row in (BOARD, GOOD)]
    assert [m[-1]["content"] for m in said] == [chess, math]
    assert all(m[0] == {"role": "system", "content": "s"} for m in said)
