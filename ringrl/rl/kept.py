"""Rollouts as JSON values and arrays, for files, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ringrl.rl.sampler import ScoredRollout
from ringrl.types import Completion, Group, Prompt, ScoredGroup

Values = dict[str, Any]


def plain(value: Any, array: Callable[[np.ndarray], Any] = lambda a: a) -> Any:
    """Dataclasses as dictionaries of their fields; arrays in them are passed through `array`."""
    if isinstance(value, list | tuple):
        return [plain(v, array) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v, array) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return array(value)
    if not is_dataclass(value):
        return value
    items = {f.name: getattr(value, f.name) for f in fields(value)}
    return {k: plain(v, array) for k, v in items.items()}


def unfinished(saved: Any) -> tuple[list[Group], list[ScoredRollout]]:
    """(paused groups, rollouts) as `BatchQueue.unfinished` gave them; none of a run that did not sample."""
    paused, rollouts = saved or ([], [])
    return [_group(g) for g in paused], [_rollout(r) for r in rollouts]


def scored_group(saved: Values) -> ScoredGroup:
    """One that was made `plain`."""
    tuples: Any = {k: tuple(v) for k, v in saved.items()}
    tests = tuple(tuple(outcomes) for outcomes in saved["tests"])
    return ScoredGroup(**{**tuples, "group": _group(saved["group"]), "tests": tests})


def _rollout(saved: Values) -> ScoredRollout:
    taken, paused = saved["before"]
    scored = [scored_group(g) for g in saved["scored"]]
    return ScoredRollout(**{**saved, "scored": scored, "before": (taken, [_group(g) for g in paused])})


def _group(saved: Values) -> Group:
    return Group(Prompt(**saved["prompt"]), tuple(Completion(**c) for c in saved["completions"]), saved["seed"])
