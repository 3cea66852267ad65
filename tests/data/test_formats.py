"""Conversations in the formats of public sets become messages, or one line says what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import Pile
from ringrl.config.sections import Source
from ringrl.curate.read import read
from ringrl.data.source import read_conversations
from ringrl.domains import Domains
from ringrl.errors import DataError

TURNS = [("user", "1+1?"), ("assistant", "<think>\nso\n</think>\n\n2")]


def written(tmp_path: Path, *rows: dict[str, Any]) -> str:
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def turns(file: str, form: str, **more: Any) -> list[tuple[str, str]]:
    [(_, messages)] = list(read_conversations(Source.model_validate({"files": [file], "format": form, **more})))
    return [(m["role"], m["content"]) for m in messages]


@pytest.mark.parametrize(
    ("form", "row", "before"),
    [
        ("sharegpt",
         {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": TURNS[1][1]}]}, []),
        ("sharegpt", {"conversations": [{"from": "user", "value": "1+1?"}, {"from": "assistant", "value": TURNS[1][1]}],
                      "system": "s"}, [("system", "s")]),
        ("sharegpt", {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "1+1?"},
                                        {"from": "gpt", "value": "2", "reasoning_content": "so"}], "system": None},
         [("system", "s")]),
        ("sharegpt", {"conversations": json.dumps([{"from": "human", "value": "1+1?"},
                                                   {"from": "gpt", "value": TURNS[1][1]}])}, []),
        ("alpaca", {"instruction": "1+1?", "input": "", "output": TURNS[1][1]}, []),
        ("alpaca", {"instruction": "1+1?", "input": None, "output": TURNS[1][1], "system": "", "history": None}, []),
        ("alpaca", {"instruction": "1+1?", "output": TURNS[1][1], "system": "s", "history": [["Hi", "Hello"]]},
         [("system", "s"), ("user", "Hi"), ("assistant", "Hello")]),
        ("completion", {"prompt": "1+1?", "completion": TURNS[1][1]}, []),
        ("completion", {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1?"}],
                        "completion": [{"role": "assistant", "content": TURNS[1][1]}]}, [("system", "s")]),
        ("messages", {"messages": json.dumps([{"role": r, "content": c} for r, c in TURNS])}, []),
    ],
)  # fmt: skip
def test_a_conversation_is_the_same_in_every_format(
    tmp_path: Path, form: str, row: dict[str, Any], before: list[tuple[str, str]]
) -> None:
    assert turns(written(tmp_path, row), form) == [*before, *TURNS]


def test_an_input_follows_its_instruction_and_a_text_in_brackets_is_a_text(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "[1, 2]", "output": "[3]"}
    assert turns(written(tmp_path, row), "alpaca") == [("user", "Add.\n[1, 2]"), ("assistant", "[3]")]
    row = {"prompt": "[1, 2]", "completion": "[]"}
    assert turns(written(tmp_path, row), "completion") == [("user", "[1, 2]"), ("assistant", "[]")]


def test_columns_come_before_the_format(tmp_path: Path) -> None:
    file = written(tmp_path, {"q": "1+1?", "solution": {"text": TURNS[1][1]}})
    columns = {"instruction": "q", "output": "solution.text"}
    assert turns(file, "alpaca", columns=columns) == TURNS


@pytest.mark.parametrize(
    ("form", "row", "said"),
    [
        ("messages", {"conversations": []}, "messages: got none, but conversations; expected the source's `format: s"),
        ("messages", {"instruction": "a"}, "messages: got none, but instruction; expected the source's `for"),
        ("messages", {"prompt": "a", "completion": "b"}, "messages: got none, but completion; expected the source's"),
        ("sharegpt", {"messages": []}, "conversations: got None, expected a list of {from, value}"),
        ("sharegpt", {"conversations": []}, "conversations: got [], expected a list of {from, value}"),
        ("sharegpt", {"conversations": "hello"}, "conversations: got 'hello', expected a list"),
        ("sharegpt", {"conversations": [{"role": "user", "content": "a"}]}, "conversations: got {'role': 'user', "),
        ("sharegpt", {"conversations": [{"from": "human", "value": None}]}, "conversations: got {'from': 'human',"),
        ("sharegpt", {"conversations": [{"from": "observation", "value": "a"}]}, "conversations: from: got 'obs"),
        ("sharegpt", {"conversations": [{"from": "human", "value": "a"}]}, "messages: the last role is 'user'"),
        ("alpaca", {"instruction": "a"}, "output: got None, expected a text"),
        ("alpaca", {"instruction": " ", "output": "b"}, "instruction: got ' ', expected a text"),
        ("alpaca", {"instruction": "a", "input": ["c"], "output": "b"}, "input: got ['c'], expected a text"),
        ("alpaca", {"instruction": "a", "output": "b", "history": ["c"]}, "history: got ['c'], expected [[quest"),
        ("alpaca", {"instruction": "a", "output": "b", "system": 3}, "system: got 3, expected a text"),
        ("completion", {"prompt": "a"}, "completion: got None, expected a text"),
        ("completion", {"prompt": {"a": 1}, "completion": "b"}, "prompt: got {'a': 1}, expected a text"),
        ("completion", {"prompt": [{"role": "user"}], "completion": "b"}, "messages: got {'role': 'user'}"),
        ("messages", {"messages": [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "b"}]},
         "got the surrogate U+D83D, half of a character, at 0; expected Unicode text"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path: Path, form: str, row: dict[str, Any], said: str) -> None:
    file = written(tmp_path, row)
    with pytest.raises(DataError) as error:
        turns(file, form)
    assert str(error.value).startswith(f"{file}:1: {said}")


def test_a_chain_reads_the_same_formats(tmp_path: Path) -> None:
    file = written(tmp_path, {"instruction": "1+1?", "input": "", "output": "2", "id": "a"}, {"instruction": "1+2?"})
    good, bad = read([Pile.model_validate({"name": "p", "files": [file], "format": "alpaca"})], Domains())
    assert isinstance(good, dict)
    assert (good["problem"], good["responses"]) == ("1+1?", [{"teacher": "", "text": "2"}])
    assert not isinstance(bad, dict)
    assert bad.more["detail"] == f"{file}:2: output: got None, expected a text"
