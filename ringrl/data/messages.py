"""The conversation of an SFT row, checked: who says what, with the thoughts in front, and which turns are trained on.

A thought stands before the answer, between <think> and </think>, or under a key of its own. A key that is null, as
parquet fills in, is no key. What sampling never sends (tools and calls of them) is refused.
"""

from __future__ import annotations

from typing import Any

from ringrl.errors import DataError

THINK, THOUGHT = "<think>", "</think>"
APART = ("reasoning_content", "reasoning", "thinking")  # message keys that may hold the thought
ROLES = ("system", "developer", "user", "assistant", "tool")
FLAGS = ("weight", "train", "training", "trainable", "loss")  # message keys that say whether a turn is trained on
TOOLS, CALLS = ("tools", "functions"), ("tool_calls", "function_call")  # keys of rows, of messages
NOTHING: tuple[Any, ...] = (None, "", "[]", [], {})
SHOWN = 100  # characters of a faulty message
Message = dict[str, Any]  # "role", "content", "weight": 0 on a turn that is not trained on, and what else the row has


def messages_in(row: dict[str, Any], where: str) -> list[Message]:
    """The checked conversation of a row, with thoughts moved to the front of contents. Raises DataError."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages: got {_short(messages)}, expected a list of {{role, content}}")
    for key in TOOLS:
        if row.get(key) not in NOTHING:
            raise DataError(f"{where}: {key}: got {_short(row[key])}, expected none, as prompts are sampled")
    conversation = [_message(m, f"{where}: messages") for m in messages]
    if conversation[0]["role"] == "assistant":
        raise DataError(f"{where}: messages: the first role is 'assistant', expected 'system' or 'user'")
    if (last := conversation[-1]["role"]) != "assistant":
        raise DataError(f"{where}: messages: the last role is {last!r}, expected 'assistant'")
    return conversation


def split_thought(content: str) -> tuple[str, str]:
    """(thought, answer) of an assistant's content, without the tags between them; no thought: ("", content).

    Raises:
        ValueError: the thought is not closed.
    """
    if not content.startswith(THINK):
        return "", content
    thought, closed, answer = content.removeprefix(THINK).partition(THOUGHT)
    if not closed:
        raise ValueError(f"a thought without {THOUGHT}")
    return thought, answer


def _message(given: Any, where: str) -> Message:
    texts = isinstance(given, dict) and isinstance(given.get("role"), str) and isinstance(given.get("content"), str)
    if not texts:
        raise DataError(f"{where}: got {_short(given)}, expected {{role, content}} with texts")
    m = {k: v for k, v in given.items() if v is not None}
    if m["role"] not in ROLES:
        raise DataError(f"{where}: role: got {m['role']!r}, expected one of {', '.join(ROLES)}")
    for key in CALLS:
        if m.pop(key, None) not in NOTHING:
            raise DataError(
                f"{where}: {key}: got {_short(given[key])}, expected none: prompts are sampled without tools"
            )
    trained = [_flag(m, key, where) for key in FLAGS if key in m]
    out = {k: v for k, v in m.items() if k not in (*APART, *FLAGS)}
    if m["role"] != "assistant":
        return out
    out["content"] = _content(m, where)
    if not all(trained):
        return out | {"weight": 0}
    try:
        answer = split_thought(out["content"])[1]
    except ValueError as e:
        raise DataError(f"{where}: got an assistant's turn with {e}") from None
    if not answer.strip():
        raise DataError(f"{where}: got {_short(given)}, an assistant's turn without an answer")
    return out


def _flag(message: Message, key: str, where: str) -> bool:
    value = message[key]
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise DataError(f"{where}: {key}: got {_short(value)}, expected 0 or 1, or true or false")
    if value and message["role"] != "assistant":
        raise DataError(f"{where}: {key}: got {value} for {message['role']!r}, only an assistant's turn is trained on")
    return bool(value)


def _content(message: Message, where: str) -> str:
    """The content of an assistant's message, with its thought in front, in whichever form the row has it."""
    content = message["content"]
    apart = [message[k] for k in APART if message.get(k)]
    if len(apart) + (THOUGHT in content) > 1 or not all(isinstance(t, str) for t in apart):
        raise DataError(f"{where}: {', '.join(APART)}: expected one text, or a thought in the content")
    if apart:
        return f"{THINK}\n{apart[0].strip()}\n{THOUGHT}\n\n{content.lstrip()}"
    if THOUGHT in content and THINK not in content:  # the prompt it was sampled from ended in <think>
        return THINK + content
    return content.lstrip() if content.lstrip().startswith(THINK) else content


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
