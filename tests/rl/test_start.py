"""In which order a run takes hold of GPUs that its ranks and its workers share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ringrl.rl import state


class Recorder:
    """Notes what is called on it; what its calls return notes on, too."""

    def __init__(self, asked: list[str], name: str) -> None:
        self.asked, self.name = asked, name

    def __getattr__(self, name: str) -> Recorder:
        return Recorder(self.asked, f"{self.name}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> Recorder:
        self.asked.append(self.name)
        return self


class Run(state.TrainingRun):
    def sample(self, step: int) -> Any: ...
    def step(self) -> None: ...


@pytest.mark.parametrize(
    ("colocated", "order"),
    [
        (True, ["sampler.start", "sampler.engine.rest", "ranks.barrier", "policy"]),
        (False, ["policy", "sampler.start"]),
    ],
)
@pytest.mark.parametrize("main", [True, False])
def test_workers_measure_their_gpus_and_sleep_before_a_rank_allocates_anything(
    colocated: bool, order: list[str], main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("load_tokenizer", "Sampler", "Policy", "WeightSync", "BatchQueue", "Ranks"):
        monkeypatch.setattr(state, name, Recorder(asked, name.lower()))
    monkeypatch.setattr(state.Ranks, "main", main, raising=False)
    monkeypatch.setattr(state.Ranks, "newest", lambda checkpoints: None, raising=False)
    monkeypatch.setattr(state, "long_enough", lambda config, most: 0)
    rollout = SimpleNamespace(start_deadline_s=1, deadline_s=1, colocated=colocated)
    loss = SimpleNamespace(freeze_router=False, entropy=0.0)
    cfg: Any = SimpleNamespace(rollout=rollout, loss=loss, model="", prompting=None, seed=0, stages=[], trainer=None,
                               optimizer=None, temperature=1.0, max_total_tokens=8)  # fmt: skip
    ctx: Any = SimpleNamespace(run=SimpleNamespace(checkpoints=[]), spec={"meeting": ""})
    Run(ctx, cfg)
    seen = [name for name in asked if name in order]
    assert seen == [name for name in order if main or not name.startswith("sampler")]
