"""Domains: which keys a problem needs, how it is asked, who judges a response, and how two answers are compared.

A domain is one object, found by its name: a built-in one (`BUILT_IN`), one from a configuration's `domains` section,
or one that an installed package registers under the entry point `ringrl.domains`, as a `Domain` or a function that
returns one. Verifiers are named, never imported here: they run in processes of their own (`ringrl.rewards`).
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ringrl.errors import DataError

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."  # [P §3.3]
FENCED = "Write your solution in Python, in one ```python block."  # [ours]
TAGGED = "Put your final answer, and nothing else, between <answer> and </answer>."  # [ours]
GROUP = "ringrl.domains"  # entry point group
CURATION = ("where", "output", "responses", "solutions", "messages")  # keys that only `ringrl data` needs


@dataclass(frozen=True)
class Reward:
    """One verifier of a domain, and its weight."""

    name: str  # label in the metrics
    verifier: str  # a built-in verifier's name, "module:function" or "path/file.py:function"
    weight: float = 1.0  # share of the domain's reward
    options: Mapping[str, Any] = field(default_factory=dict)  # extra keyword arguments of the verifier
    on_error: Literal["error", "fail"] = "error"  # when the verifier itself fails: no verdict, or a reward of 0
    key_variable: str = ""  # name of the only secret environment variable passed to its process

    @property
    def file(self) -> str:
        """The Python file of the verifier, "" for one that is built in or in a module."""
        path, colon, _ = self.verifier.rpartition(":")
        return path if colon and path.endswith(".py") else ""


@dataclass(frozen=True)
class Domain:
    """One kind of problem. Raises ValueError when it contradicts itself; the message begins with a field's name."""

    name: str
    rewards: tuple[Reward, ...]  # weights sum to 1
    headline: str  # name of the reward used for scores, pass rates and selection
    suffix: str = ""  # appended to every problem, unless `prompting.suffix` overrides it
    keys: tuple[str, ...] = ()  # row keys passed to the verifier; empty: all that JSON can represent
    required: tuple[str, ...] = ()  # keys that every row must have
    answer: str = ""  # key of the answer that curation compares; empty: none
    comparison: Literal["answer", "program", "equal"] = "equal"  # when `ringrl data` sees the same answer: as the
    # math and science verifiers compare final answers; programs passing each other's tests; equal values

    def __post_init__(self) -> None:
        names = [r.name for r in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"rewards: got {', '.join(names)}, expected each name once")
        if self.headline not in names:
            raise ValueError(f"headline: got {self.headline!r}, expected one of rewards {', '.join(names)}")
        weights = [r.weight for r in self.rewards]
        if not abs(math.fsum(weights) - 1) <= 1e-6 or min(weights) < 0:
            shown = " + ".join(f"{w:g}" for w in weights)
            raise ValueError(f"rewards: got weights {shown}, expected none below 0 and a sum of 1")
        if self.comparison != "equal" and bool(self.answer) != (self.comparison == "answer"):
            want = "the key of an answer" if self.comparison == "answer" else "none"
            raise ValueError(f"answer: got {self.answer!r}, expected {want} with comparison {self.comparison}")

    def reference(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a row that is passed to the verifier."""
        if self.keys:
            return {k: row[k] for k in self.keys if k in row}
        return {k: v for k, v in row.items() if k not in CURATION and _is_json(v)}

    def missing(self, row: Mapping[str, Any]) -> str:
        """The first required key that a row lacks, or has as null or empty; "" for none."""
        return next((k for k in self.required if row.get(k) in (None, "", [], {})), "")

    def check(self, row: Mapping[str, Any], where: str) -> None:
        """Raises DataError for a row that the verifier cannot use."""
        if key := self.missing(row):
            raise DataError(f"{where}: {key}: missing, expected what a {self.name} verifier needs")
        for key in self.keys:
            if not _is_json(row.get(key)):
                raise DataError(f"{where}: {key}: got {type(row[key]).__name__}, expected what JSON can carry")


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_json(v) for k, v in value.items())
    return all(map(_is_json, value)) if isinstance(value, list | tuple) else isinstance(value, str | int | float | None)


def _judged_by(name: str, suffix: str, keys: tuple[str, ...], **more: Any) -> Domain:
    return Domain(name, (Reward(name, name),), name, suffix, keys, **more)


FINAL = ("answer", "tolerance")  # keys of a final answer: `ringrl.data.reference_keys`
BUILT_IN: Mapping[str, Domain] = {
    d.name: d
    for d in (
        _judged_by("math", BOXED, FINAL, required=("answer",), answer="answer", comparison="answer"),
        _judged_by(
            "code",
            FENCED,
            ("answer", "tests", "entry_point", "language", "checker", "time_limit_s", "compare"),
            required=("tests",),
            comparison="program",
        ),
        _judged_by(
            "science", BOXED, ("answer", "tolerance"), required=("answer",), answer="answer", comparison="answer"
        ),
        _judged_by("reasoning_gym", TAGGED, ("task", "options", "entry"), required=("task", "entry")),
    )
}


class Domains(Mapping[str, Domain]):
    """All available domains: built-in ones, a configuration's own, and those of installed packages, loaded on first
    use. Picklable; equality compares the configuration's own domains.

    Raises:
        ValueError: one of `own` has the name of a built-in domain or of a package's.
    """

    def __init__(self, own: Iterable[Domain] = ()) -> None:
        self.own = {d.name: d for d in own}
        self._known = {**BUILT_IN, **self.own}
        for name in self.own:
            if name in BUILT_IN:
                raise ValueError(f"{name}: got a domain that is built in, expected another name")
            if name in self._offered:
                raise ValueError(f"{name}: got a domain of the package {_package(self._offered[name])}, expected "
                                 f"another name")  # fmt: skip

    def find(self, name: object, where: str) -> Domain:
        """Raises DataError, with a suggestion, when there is no such domain."""
        if name not in self:
            raise DataError(f"{where}: domain: {self.unknown(name)}")
        return self[str(name)]

    def reference(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a row that is passed to the verifier of the domain it names."""
        return self[row["domain"]].reference(row)

    def unknown(self, name: object, *others: str) -> str:
        """The error message for a name that is neither a domain nor one of the `others` allowed."""
        names = (*self, *others)
        near = difflib.get_close_matches(str(name), names, 1)
        return f"got {name!r}, expected one of {', '.join(names)}" + (f"; did you mean {near[0]!r}?" if near else "")

    def __getitem__(self, name: str) -> Domain:
        """Raises KeyError; or DataError if a package registers something else than a domain."""
        if name not in self._known:
            self._known[name] = _loaded(self._offered[name])
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._known or name in self._offered)

    def __iter__(self) -> Iterator[str]:
        return iter({**BUILT_IN, **self.own, **self._offered})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domains) and self.own == other.own

    def __hash__(self) -> int:
        return hash(tuple(self.own))

    def __getstate__(self) -> dict[str, Any]:
        return {"own": self.own, "_known": self._known}  # another process scans the packages itself

    @functools.cached_property
    def _offered(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Entry points of installed packages. Raises DataError for a name registered twice or built in."""
        points: dict[str, importlib.metadata.EntryPoint] = {}
        for point in importlib.metadata.entry_points(group=GROUP):
            if point.name in points or point.name in BUILT_IN:
                other = _package(points[point.name]) if point.name in points else "ringrl"
                raise DataError(f"{GROUP}: the packages {other} and {_package(point)} both have a domain "
                                f"{point.name!r}; uninstall one")  # fmt: skip
            points[point.name] = point
        return points


def verifier_files(domains: Domains) -> list[str]:
    """The Python files with verifiers of a configuration's own domains, as seen from the current directory.

    Raises:
        DataError: a file does not exist.
    """
    rewards = [(d.name, r) for d in domains.own.values() for r in d.rewards if r.file]
    for name, reward in rewards:
        if not Path(reward.file).is_file():
            where = f"domains.{name}" + (f".rewards.{reward.name}" if reward.name != name else "")
            raise DataError(f"{where}.verifier: got {reward.verifier}, expected a file that is there")
    return list(dict.fromkeys(r.file for _, r in rewards))


def _package(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _loaded(point: importlib.metadata.EntryPoint) -> Domain:
    """Raises DataError when the entry point cannot be loaded or is no domain."""
    where = f"{GROUP}: {point.name} of the package {_package(point)} ({point.value})"
    try:
        target = point.load()
        domain = target if isinstance(target, Domain) else target()
    except Exception as e:  # user code may raise anything
        raise DataError(f"{where}: {type(e).__name__}: {' '.join(str(e).split())}") from None
    if not isinstance(domain, Domain) or domain.name != point.name:
        got = f"a domain called {domain.name!r}" if isinstance(domain, Domain) else type(domain).__name__
        raise DataError(f"{where}: got {got}, expected a Domain of this name, or a function that returns one")
    return domain
