"""The conversation of a row, as "messages", [{"role", "content"}, ...], from the formats that public sets have:

messages     messages [{role, content}]; or the same as JSON text, which is what a CSV file can hold
sharegpt     conversations [{from, value}], and a text `system` if there is one
alpaca       instruction, input and output, texts; `system` and `history` [[question, answer], ...] if there are
             any; `input` follows the instruction on a line of its own
completion   prompt and completion, each a text or a list of {role, content}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ringrl.data.files import Row
from ringrl.errors import DataError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
         "model": "assistant", "bot": "assistant", "system": "system"}  # fmt: skip


def with_messages(row: Row, form: str, where: str) -> Row:
    """The row with its conversation under `messages`. Raises DataError, which names `where`, "file:line"."""
    try:
        return {**row, "messages": FORMATS[form](row)}
    except ValueError as e:
        raise DataError(f"{where}: {e}") from None


def _messages(row: Row) -> Any:
    value = row.get("messages")
    if value is None:
        for form, key in (("sharegpt", "conversations"), ("alpaca", "instruction"), ("completion", "completion")):
            if row.get(key) is not None:
                raise ValueError(f"messages: got none, but {key}; expected the source's `format: {form}`, or `columns`")
    return _parsed(value)


def _sharegpt(row: Row) -> list[Row]:
    turns = _parsed(row.get("conversations"))
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"conversations: got {turns!r}, expected a list of {{from, value}}")
    return [*_system(row), *(_turn(turn) for turn in turns)]


def _turn(turn: Any) -> Row:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise ValueError(f"conversations: got {turn!r}, expected {{from, value}} with texts")
    if (role := turn.get("from")) not in ROLES:
        raise ValueError(f"conversations: from: got {role!r}, expected one of {', '.join(ROLES)}")
    return {**{k: v for k, v in turn.items() if k not in ("from", "value")}, "role": ROLES[role],
            "content": turn["value"]}  # fmt: skip


def _alpaca(row: Row) -> list[Row]:
    history, more = row.get("history") or [], _text(row, "input", optional=True)
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise ValueError(f"history: got {history!r}, expected [[question, answer], ...]")
    pairs = [*history, ["\n".join(filter(None, (_text(row, "instruction"), more))), _text(row, "output")]]
    return [*_system(row), *(m for question, answer in pairs for m in (_said("user", question),
                                                                       _said("assistant", answer)))]  # fmt: skip


def _completion(row: Row) -> list[Row]:
    prompt, completion = _parsed(row.get("prompt")), _parsed(row.get("completion"))
    asked = prompt if isinstance(prompt, list) else [_said("user", _text(row, "prompt"))]
    answer = completion if isinstance(completion, list) else [_said("assistant", _text(row, "completion"))]
    return [*_system(row), *asked, *answer]


def _said(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def _system(row: Row) -> list[Row]:
    text = _text(row, "system", optional=True)
    return [_said("system", text)] if text else []


def _text(row: Row, key: str, optional: bool = False) -> str:
    value = "" if optional and row.get(key) is None else row.get(key)
    if not isinstance(value, str) or not (optional or value.strip()):
        raise ValueError(f"{key}: got {value!r}, expected a text")
    return value


def _parsed(value: Any) -> Any:
    """The list of objects that a JSON text holds; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            held = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return held if held and all(isinstance(item, dict) for item in held) else value
    return value


FORMATS: dict[str, Callable[[Row], Any]] = {
    "messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca, "completion": _completion,
}  # fmt: skip
