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
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ringrl.errors import DataError

PREFIX = "reasoning-gym:"
DOMAIN = "reasoning_gym"
DEFAULTS = {"size": 500, "seed": 0}  # theirs has no seed: other rows every time
_NO_ANSWER = "its entries have no answer, by which its scorer could be checked"
_TUPLES = "its scorer knows tuples from lists, which JSON does not"
_BOOT = (
    f"import json, sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from ringrl.data.gym import write; "
    "write(sys.argv[1], json.loads(sys.argv[2]))"
)
UNSUPPORTED = {  # tasks of version 0.1.25
    "arc_agi": _TUPLES,
    "boxnet": _NO_ANSWER,
    "complex_arithmetic": "its scorer takes nan",
    "composite": "it mixes other tasks; name each by itself",
    "game_of_life_halting": "its scorer takes any text",
    "graph_color": _NO_ANSWER,
    "propositional_logic": _NO_ANSWER,
    "puzzle24": "its scorer takes any four numbers that make 24",
    "rearc": _TUPLES,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
}


class UnusableTask(ValueError):
    """No such task, or no such options."""


def problems(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("NAME[n]", row) of what a name stands for, each made when it is asked for.

    Raises:
        DataError: there is no such task or option, an option has a wrong value, or the generator fails.
    """
    task, _, query = name.removeprefix(PREFIX).partition("?")
    options = _options(query, name)
    command = [sys.executable, "-P", "-W", "ignore", "-c", _BOOT, task, json.dumps({**DEFAULTS, **options})]
    environment = {"PYTHONHASHSEED": "0"}  # some generators go through sets, in an order that is the process's own
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            for n, line in enumerate(process.stdout):
                kind, found = json.loads(line)
                if kind == "end":
                    return
                if kind == "error":
                    raise DataError(f"{name}[{n}]: {found}" if n else f"{name}: {found}")
                row = {"domain": DOMAIN, "problem": found["question"], "task": task, "options": options, "entry": found}
                yield f"{name}[{n}]", row
        finally:
            process.kill()
    raise DataError(f"{name}: the generator's process ended with exit status {process.returncode}")


def write(task: str, options: dict[str, Any]) -> None:
    """In a process of its own: a line for each entry, and one for what is wrong."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what generators print is no entry
    try:
        made = dataset(task, options)
        for n in range(made.size):
            out.write(json.dumps(["entry", plain(made[n])]) + "\n")
            out.flush()
        out.write('["end", ""]\n')
    except Exception as e:  # a wrong option, or one that no check of theirs has found
        out.write(
            json.dumps(["error", str(e) if isinstance(e, UnusableTask) else f"the generator fails: {e!r}"]) + "\n"
        )
    out.close()


def version() -> str:
    """What the rows depend on besides their name."""
    return f"reasoning-gym {importlib.metadata.version('reasoning-gym')}"


def dataset(task: str, options: dict[str, Any]) -> Any:
    """The generator of a task, which is its scorer as well. Raises UnusableTask as `problems` raises DataError."""
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ModuleNotFoundError as e:
        raise UnusableTask(
            f"no module {e.name!r}, expected reasoning-gym: pip install 'ringrl[reasoning-gym]'"
        ) from None
    if task in UNSUPPORTED:
        raise UnusableTask(f"task: got {task!r}, which is not supported: {UNSUPPORTED[task]}")
    if task not in DATASETS:
        near = difflib.get_close_matches(task, DATASETS, 1)
        raise UnusableTask(f"task: got {task!r}, expected one of {', '.join(sorted(DATASETS.keys() - UNSUPPORTED))}"
                         + (f"; did you mean {near[0]!r}?" if near else ""))  # fmt: skip
    known = [f.name for f in dataclasses.fields(DATASETS[task][1])]
    for option in options:
        if option not in known:
            raise UnusableTask(f"{option}: no option of {task}, expected one of {', '.join(known)}")
    try:
        return create_dataset(task, **options)
    except Exception as e:  # their checks are asserts, and what a wrong type leads to
        raise UnusableTask(f"{task} refuses its options: {str(e) or type(e).__name__}") from None


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


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as JSON carries it."""
    return json.loads(json.dumps(entry, default=_simple))


def _simple(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if hasattr(value, "tolist"):  # NumPy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain data")
