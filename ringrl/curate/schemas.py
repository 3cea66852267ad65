"""Converts tests and accepted programs from the formats of public sets to ours. Anything else is left as it is.

tests      [{"input", "output"}, ...]                     ours
           {"inputs": [...], "outputs": [...], "fn_name"}  APPS and TACO (their `input_output`); or JSON text
           {"input": [...], "output": [...]}               CodeContests (its `private_tests` and others)
solutions  [program, ...], or the same as JSON text        ours, APPS and TACO
           {"language": [...], "solution": [...]}          CodeContests, whose languages are numbers
"""

from __future__ import annotations

import json
from typing import Any

from ringrl.curate.shards import Row

LANGUAGES = {3: "python", 2: "cpp", 4: "java"}  # language codes in CodeContests; 1 is Python 2


def tests_of(value: Any) -> Row:
    """The row keys for these tests: `tests`, and `entry_point` if they call a function."""
    value = _parsed(value)
    if not isinstance(value, dict):
        return {"tests": value}
    inputs, outputs = (value.get(name, value.get(f"{name}s")) for name in ("input", "output"))
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        return {"tests": value}
    tests = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    name = value.get("fn_name")
    return {"tests": tests, "entry_point": name} if name else {"tests": tests}


def solutions_of(value: Any, language: str) -> Any:
    """The programs in `language`."""
    value = _parsed(value)
    if isinstance(value, dict) and isinstance(value.get("solution"), list) and isinstance(value.get("language"), list):
        both = zip(value["language"], value["solution"], strict=False)
        return [program for number, program in both if LANGUAGES.get(number) == language]
    return value


def _parsed(value: Any) -> Any:
    """Parses JSON text of a list or object; returns any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # plain text that begins with a bracket
            return value
    return value
