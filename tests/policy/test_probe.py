"""What the probe of a weight sync sees: a trainer whose forward is not the engine's, in each of the ways known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from transformers import AutoConfig

from ringrl.config.sections import PARITY, Rollout
from ringrl.policy.sync import long_enough
from ringrl.processes import free_port
from ringrl.rollout.local import LocalEngine
from tests.conftest import Inputs, as_rank, rl_config

WINDOW = 48


def beyond_window(module: Any, args: Any, kwargs: Any, out: Any) -> None:
    late = kwargs["position_ids"] >= WINDOW
    out.last_hidden_state = torch.where(late[..., None], out.last_hidden_state.roll(1, -1), out.last_hidden_state)


def behind_another(module: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The first tokens of every sequence but the first in a row see something of the one before it."""
    second = (kwargs["position_ids"] == 0).cumsum(1) > 1
    leak = 0.3 * out.last_hidden_state[:, :1]
    out.last_hidden_state = torch.where(second[..., None], out.last_hidden_state + leak, out.last_hidden_state)


def unscaled(module: Any, args: Any, kwargs: Any, out: Any) -> None:
    out.last_hidden_state = 1.1 * out.last_hidden_state


class StaleHead(LocalEngine):
    """Keeps its output head through an update."""

    def update(self, buckets: Any, version: int) -> bool:
        head = self.lm.lm_head.weight.data.clone()
        done = super().update(buckets, version)
        self.lm.lm_head.weight.data.copy_(head)
        return done


FAULTS: dict[str, Callable[..., None] | None] = {
    "none": None, "window": beyond_window, "state": behind_another, "scale": unscaled, "head": None,
}  # fmt: skip


def one_rank(rank: int, port: int, inputs: Inputs, file: Path) -> None:
    as_rank(rank, 1, port)
    from ringrl.config.commands import RLConfig
    from ringrl.config.load import check
    from ringrl.policy.engine import Policy
    from ringrl.policy.ranks import Ranks
    from ringrl.policy.sync import WeightSync
    from ringrl.rollout.engine import Sampling
    from ringrl.types import Prompt

    cfg = check(RLConfig, rl_config(inputs, Path("unused")), "test")
    ranks = Ranks(120)
    policy = Policy(cfg.model, None, cfg.trainer, cfg.optimizer, 1.0, ranks)  # type: ignore[arg-type]
    probes = [Prompt("", "math", tuple(range(20, 20 + n)), {}) for n in (8, 12, WINDOW + 32)]
    gaps = {}
    for fault, hook in FAULTS.items():
        engine = (StaleHead if fault == "head" else LocalEngine)(cfg.model, "float32", 16)
        sync = WeightSync(policy, engine, cfg.model, probes, Sampling(1, 1.0, 128), cfg.rollout, file.parent)
        added = policy.module.lm.base_model.register_forward_hook(hook, with_kwargs=True) if hook else None
        if fault == "head":
            policy.module.lm.lm_head.weight.data *= 1.1
        gaps[fault] = [sync.push(1, thorough=thorough).gap for thorough in (False, True)]
        if added:
            added.remove()
    torch.save(gaps, file)
    ranks.close()


@pytest.fixture(scope="module")
def gaps(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    file = tmp_path_factory.mktemp("probe") / "gaps.pt"
    multiprocessing.spawn(one_rank, (free_port(), inputs, file), 1)
    return torch.load(file)


def test_without_a_fault_the_two_agree(gaps: dict[str, list[float]]) -> None:
    assert max(gaps["none"]) < 1e-5


@pytest.mark.parametrize("fault", ["window", "state", "scale", "head"])
def test_faults_are_seen(fault: str, gaps: dict[str, list[float]]) -> None:
    assert gaps[fault][1] > PARITY["float32"]


def test_only_a_prompt_longer_than_the_window_shows_that_it_is_left_out(gaps: dict[str, list[float]]) -> None:
    assert gaps["window"][0] < 1e-5


@pytest.mark.parametrize(
    ("kind", "more", "most", "length"),
    [
        ("qwen3_moe", {}, 4096, 0),
        ("mistral", {"sliding_window": 512}, 4096, 544),
        ("mistral", {"sliding_window": 512}, 520, 488),
        ("mistral", {"sliding_window": 512}, 512, 0),
        ("gpt_oss", {"sliding_window": 128}, 300, 160),
        ("llama4_text", {"attention_chunk_size": 256}, 4096, 288),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}}, 4096, 1056),
    ],
)  # fmt: skip
def test_the_long_probe_leaves_every_window_that_sequences_leave(
    kind: str, more: dict[str, Any], most: int, length: int
) -> None:
    assert long_enough(AutoConfig.for_model(kind, **more), most) == length


def test_the_limit_follows_from_the_dtypes() -> None:
    assert Rollout(dtype="float32").parity("float32") == 1e-3
    assert Rollout(dtype="float32").parity("bfloat16") == Rollout(dtype="bfloat16").parity("float32") == 0.1
    assert Rollout(dtype="bfloat16", parity_limit=0.02).parity("bfloat16") == 0.02
