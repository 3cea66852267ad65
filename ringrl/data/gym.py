"""Problems made by the generators of reasoning-gym, which are named where a data file is:

    reasoning-gym:TASK?size=500&seed=0&OPTION=VALUE

OPTION is a field of the task's own configuration; values are YAML. One name and one version of reasoning-gym give the
same rows wherever and whenever they are read. A row has a `problem`, and for the verifier (`ringrl.rewards.gym`) its
`task`, the task's `options`, and the generator's `entry` as plain data.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any

import yaml

from ringrl.errors import DataError

PREFIX = "reasoning-gym:"
DOMAIN = "reasoning_gym"
DEFAULTS = {"size": 500, "seed": 0}  # theirs has no seed: other rows every time
UNSUPPORTED: dict[str, str] = {  # by task of version 0.1.25: why
}


def problems(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("NAME[n]", row) of what a name stands for, each made when it is asked for.

    Raises:
        DataError: there is no such task or option, an option has a wrong value, or the generator fails.
    """
    task, _, query = name.removeprefix(PREFIX).partition("?")
    options = _options(query, name)
    try:
        made = dataset(task, {**DEFAULTS, **options})
    except ValueError as e:
        raise DataError(f"{name}: {e}") from None
    for n in range(made.size):
        try:
            entry = _plain(made[n])
        except Exception as e:  # an option's value that no check of theirs has found
            raise DataError(f"{name}[{n}]: the generator fails: {type(e).__name__}: {e}") from None
        row = {"domain": DOMAIN, "problem": entry["question"], "task": task, "options": options, "entry": entry}
        yield f"{name}[{n}]", row


def version() -> str:
    """What the rows depend on besides their name."""
    return f"reasoning-gym {importlib.metadata.version('reasoning-gym')}"


def dataset(task: str, options: dict[str, Any]) -> Any:
    """The generator of a task, which is its scorer as well. Raises ValueError as `problems` raises DataError."""
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ModuleNotFoundError as e:
        raise ValueError(f"no module {e.name!r}, expected reasoning-gym: pip install 'ringrl[reasoning-gym]'") from None
    if task in UNSUPPORTED:
        raise ValueError(f"task: got {task!r}, which is not supported: {UNSUPPORTED[task]}")
    if task not in DATASETS:
        near = difflib.get_close_matches(task, DATASETS, 1)
        raise ValueError(f"task: got {task!r}, expected one of {', '.join(sorted(DATASETS.keys() - UNSUPPORTED))}"
                         + (f"; did you mean {near[0]!r}?" if near else ""))  # fmt: skip
    known = [f.name for f in dataclasses.fields(DATASETS[task][1])]
    for option in options:
        if option not in known:
            raise ValueError(f"{option}: no option of {task}, expected one of {', '.join(known)}")
    try:
        return create_dataset(task, **options)
    except Exception as e:  # their checks are asserts, and what a wrong type leads to
        raise ValueError(f"{task} refuses its options: {str(e) or type(e).__name__}") from None


def _options(query: str, name: str) -> dict[str, Any]:
    """Raises DataError."""
    options = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise DataError(f"{name}: got {part!r}, expected OPTION=VALUE")
    return options


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """As JSON carries it."""
    return json.loads(json.dumps(entry, default=_simple))


def _simple(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if hasattr(value, "tolist"):  # NumPy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain data")
