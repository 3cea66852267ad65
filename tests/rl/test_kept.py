"""Rollouts that a checkpoint keeps are the same when they come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.data.arrays import read, to_bytes
from ringrl.rl.kept import plain, scored_group, unfinished
from ringrl.rl.sampler import ScoredRollout
from ringrl.types import Completion, Group, Prompt, ScoredGroup

TESTS = [{"input": "1\n", "output": "2"}]
PROMPT = Prompt("row/1", "code", (5, 0, 7), {"tests": TESTS, "$array": 0, "entry_point": ""})
DONE = Completion((1, 2, 151_000), (-0.1, -1e-300, 0.0), "stop", 3, 4, 1)
PAUSED = Completion((9,), (-2.5,), "paused", 3)
FRESH = Group(PROMPT, (), 11)
GROUP = Group(PROMPT, (DONE, PAUSED))
SCORED = ScoredGroup(GROUP, ("naïve", ""), (0.5, 0.0), ("", "timeout"), ("exact", "error"), (("pass", "wrong"), ()),
                     (1.0, 0.0), ({"answer": 0.5, "form": 0.5}, {}))  # fmt: skip
ROLLOUT = ScoredRollout([SCORED], 4, 1, 0, {"time_rollout_s": 0.125}, ([3, 0], [GROUP, FRESH]), "")


def through(value: Any, tmp_path: Path) -> Any:
    (tmp_path / "file").write_bytes(to_bytes(plain(value)))
    return read(tmp_path / "file")


def test_paused_groups_and_rollouts_come_back_equal(tmp_path: Path) -> None:
    assert unfinished(through(([GROUP, FRESH], [ROLLOUT, replace(ROLLOUT, trouble="why")]), tmp_path)) == (
        [GROUP, FRESH],
        [ROLLOUT, replace(ROLLOUT, trouble="why")],
    )
    assert unfinished([]) == ([], [])
    [again], _ = unfinished(through(([GROUP], []), tmp_path))
    assert again.completions[0].token_ids.dtype == np.int32
    assert again != Group(PROMPT, (replace(DONE, logprobs=DONE.logprobs * 2), PAUSED))


def test_recorded_routes_come_back_too(tmp_path: Path) -> None:
    routes = np.arange(12, dtype=np.int16).reshape(3, 2, 2)
    group = Group(PROMPT, (replace(DONE, routes=routes), PAUSED))
    back = scored_group(through(replace(SCORED, group=group), tmp_path))
    assert back == replace(SCORED, group=group)  # (which does not look at routes)
    assert np.array_equal(back.group.completions[0].routes, routes)
    assert back.group.completions[1].routes is None
