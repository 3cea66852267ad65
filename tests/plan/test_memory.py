"""The memory formulas against what one process on the CPU really allocates in an update."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringrl.algo import entropy
from ringrl.config.commands import RLConfig
from ringrl.config.load import load
from ringrl.config.sections import Rollout, Trainer
from ringrl.launch.machine import rank_env
from ringrl.plan import memory
from ringrl.plan.memory import checkpoint_bytes, low_bytes, rank_memory, worker_memory
from ringrl.plan.shape import Attention, Shape, read_shape
from ringrl.processes import free_port
from tests.conftest import Inputs, write_ling

MEDIUM = {  # 8 M parameters: bfloat16 is slow on a CPU
    "vocab_size": 8192, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3, "head_dim": 32,
    "num_attention_heads": 8, "num_experts": 8, "num_experts_per_tok": 4, "moe_intermediate_size": 192,
    "first_k_dense_replace": 1,
}  # fmt: skip
LENGTHS = [500, 275, 225, 450, 501]


def measure(
    model: Path, tokenizer: str, trainer: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], Shape, Trainer]:
    """What two microbatches of about 1,000 tokens take."""
    trainer = {"dtype": "float32", "attention": "packed", "microbatch_tokens": 1024, **trainer}
    raw = {"run": "r", "model": str(model), "trainer": trainer, "loss": {"kl": 0}}
    raw["stages"] = [{"name": "s", "data": [{"files": ["none.jsonl"]}], "steps": 1, "budget": {"phi": 100}}]
    (config := folder / "config.yaml").write_text(yaml.safe_dump(raw))
    bucket = memory.BUCKET * low_bytes(trainer["dtype"])
    spec = {"config": str(config), "lengths": LENGTHS, "bucket": bucket, "folder": str(folder),
            "tokenizer": tokenizer, "result": str(folder / "result.json")}  # fmt: skip
    env = {**os.environ, **rank_env(0, 1, 1, free_port())}
    child = [sys.executable, str(Path(__file__).with_name("measure.py")), json.dumps(spec)]
    subprocess.run(child, env=env, check=True, timeout=600, stdout=subprocess.DEVNULL)
    return json.loads((folder / "result.json").read_text()), read_shape(str(model)), load(RLConfig, config).trainer


def compare(found: dict[str, Any], shape: Shape, trainer: Trainer) -> None:
    trainer = trainer.model_copy(update={"microbatch_tokens": found["tokens"]})
    m = rank_memory(shape, trainer, 1, reference=False)
    assert found["weights"] == m.weights
    assert found["gradients"] == m.gradients
    assert found["optimizer"] == pytest.approx(m.optimizer, rel=1e-3)
    passes = m.gradients - found["sums"] + max(m.logits, m.again) + m.activations
    assert found["passes"] == pytest.approx(passes, rel=0.1)
    assert found["activations"] == pytest.approx(m.activations, rel=0.1)
    model, state = checkpoint_bytes(shape, trainer.dtype)
    assert found["model_files"] == pytest.approx(model, rel=0.05)
    assert found["trainer_files"] == pytest.approx(state, rel=0.05)


def test_a_tiny_model_takes_what_the_formulas_say(inputs: Inputs, tmp_path: Path):
    compare(*measure(Path(inputs.model), inputs.model, {}, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [{"recompute": True}, {"dtype": "bfloat16"}], ids=["recompute", "bfloat16"])
def test_a_medium_model_takes_what_the_formulas_say(trainer: dict[str, Any], inputs: Inputs, tmp_path: Path):
    model = write_ling(tmp_path / "model", **MEDIUM)
    found, shape, settings = measure(model, inputs.model, trainer, tmp_path)
    compare(found, shape, settings)
    m = rank_memory(shape, settings, 1, reference=False)
    adamw = 8 * shape.total  # two arrays that it makes on a CPU, when only the flat gradients are left, if any
    assert found["step"] == pytest.approx(max(m.gradients - found["sums"] + m.step, m.step + adamw), rel=0.1)


def test_the_chunk_of_logits_is_that_of_the_head():
    assert memory.CHUNK == entropy.CHUNK


# ---- how the parts lie on ranks, in bytes per parameter; o outside routed experts, r in them


LING = Shape(
    "bailing_moe", 64, 512, False, 2, 2, Attention(2, 32, 32, 1 << 14, 0, 0, 256, 64, 1), 0, 32, 8, 2, 32, False
)
O, R = LING.outside, LING.routed


def parts(trainer: dict[str, Any], reference: bool = False) -> memory.RankMemory:
    return rank_memory(LING, Trainer.model_validate({"dtype": "float32", **trainer}), 1, reference)


@pytest.mark.parametrize(
    ("expert", "zero", "weights", "gradients", "optimizer", "step"),
    [
        (1, 1, 4 * (O + R), 4 * (O + R), 12 * (O + R) / 4, 4 * (O + R) / 4),
        (2, 1, 4 * (O + R / 2), 4 * (O + R / 2), 12 * (O / 4 + R / 2 / 2), 4 * max(O / 4, R / 2 / 2)),
        (2, 2, 4 * (O + R / 2), 4 * (O / 4 + R / 2 / 2), 12 * (O / 4 + R / 4), 4 * max(O / 4, R / 4)),
        (4, 3, 4 * (O / 4 + R / 4), 4 * (O / 4 + R / 4), 12 * (O / 4 + R / 4), 4 * max(O / 4, R / 4)),
    ],
)
def test_experts_are_counted_where_they_lie(
    expert: int, zero: int, weights: float, gradients: float, optimizer: float, step: float
):
    """Master weights and moments of experts over their two copies when two of four ranks share them out."""
    m = parts({"ranks": 4, "parallel": {"expert": expert, "zero": zero}})
    assert (m.weights, m.gradients, m.optimizer, m.step) == (weights, gradients, optimizer, step)


@pytest.mark.parametrize(
    ("zero", "offload", "device", "host"),
    [
        (1, "optimizer", 4 + 4, 16 / 4),
        (3, "optimizer", 4 / 4, 16 / 4 + 4 / 4),
        (3, "parameters", 0, 16 / 4 + 4 / 4 + 4 / 4),
    ],
)
def test_what_is_offloaded_is_host_memory(zero: int, offload: str, device: float, host: float):
    m = parts({"ranks": 4, "parallel": {"zero": zero, "offload": offload}})
    assert (m.resident, m.host) == (device * (O + R), host * (O + R))


def test_the_reference_shares_out_its_experts_too():
    assert parts({"ranks": 2, "parallel": {"expert": 2}}, reference=True).reference == 4 * (O + R / 2)
    assert parts({}).reference == 0


def test_bfloat16_halves_weights_and_keeps_fp32_masters():
    m = parts({"dtype": "bfloat16"})
    assert (m.weights, m.gradients, m.optimizer, m.step) == tuple(n * (O + R) for n in (2, 4, 12, 0))
    assert m.buffers == 0


@pytest.mark.parametrize(
    ("zero", "offload", "gradients", "step", "buffers"),
    [
        (2, "none", 4 / 4, 0, 2),
        (3, "none", 4 / 4, 4 / 4, 2),
        (1, "optimizer", 4, 0, 4),
        (2, "optimizer", 4 / 4, 0, 2),
        (3, "optimizer", 0, 0, 2),
    ],
)
def test_bfloat16_gradients_add_up_in_float32(zero: int, offload: str, gradients: float, step: float, buffers: int):
    m = parts({"ranks": 4, "dtype": "bfloat16", "parallel": {"zero": zero, "offload": offload}})
    gathered = 2 * min(O + R, memory.LIVE) if zero == 3 else 0
    assert (m.gradients, m.step) == (gradients * (O + R), step * (O + R))
    assert m.buffers == buffers * memory.BUCKET + gathered


def test_a_sequence_longer_than_a_microbatch_is_not_cut():
    trainer = Trainer(microbatch_tokens=100, attention="packed")
    assert (
        rank_memory(LING, trainer, 1000, False).activations == 10 * rank_memory(LING, trainer, 100, False).activations
    )


def test_a_worker_has_room_for_what_its_weights_leave():
    one, two = (worker_memory(LING, Rollout(tensor_parallel=n, gpu_memory=0.5), 8 << 30) for n in (1, 2))
    assert one.weights == 2 * LING.total == 2 * two.weights
    assert one.cache == (2 << 30) - 2 * LING.total  # half of eight, less two of vLLM's own
    assert one.token == two.token == 2 * 64 * 2  # one KV head is on both GPUs
    assert worker_memory(LING, Rollout(kv_cache_mib=1), 8 << 30).tokens == (1 << 20) // 256
