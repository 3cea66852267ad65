"""Rollouts as JSON values and arrays, for files, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ringrl.rl.sampler import ScoredRollout
from ringrl.types import Completion, Group, Prompt, ScoredGroup

ARRAYS = {"token_ids": np.int32, "logprobs": np.float64}  # fields that hold a number per token
Values = dict[str, Any]


def plain(value: Any, array: Callable[[np.ndarray], Any] = lambda a: a) -> Any:
    """Dataclasses as dictionaries of their fields, numbers of tokens as arrays, each passed through `array`."""
    if isinstance(value, list | tuple):
        return [plain(v, array) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v, array) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return array(value)
    if not is_dataclass(value):
        return value
    items = {f.name: getattr(value, f.name) for f in fields(value)}
    return {k: plain(np.array(v, ARRAYS[k]) if k in ARRAYS else v, array) for k, v in items.items()}


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
    prompt = Prompt(**_with_tuples(saved["prompt"]))
    return Group(prompt, tuple(Completion(**_with_tuples(c)) for c in saved["completions"]), saved["seed"])


def _with_tuples(saved: Values) -> Values:
    return saved | {k: tuple(saved[k].tolist()) for k in ARRAYS if k in saved}
