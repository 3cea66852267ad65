"""SFT and RL on models of the Ling family: engines, weight sync, expert parallelism, router losses, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from ringrl.algo.pack import pack
from ringrl.algo.router import expert_counts, load
from ringrl.config.sections import Prompting, Source
from ringrl.data.chat import make_sequences, turn_end
from ringrl.data.source import read_conversations
from ringrl.policy.forward import PolicyModule, load_lm
from tests.cli.test_sft import sft_config
from tests.conftest import Inputs, lines, ringrl, rl_config, write_yaml

pytestmark = [pytest.mark.usefixtures("uneven_rewards"), pytest.mark.slow]
TWO = ("trainer.ranks=2", "trainer.parallel={expert: 2, zero: 3}")


def rl(ling: Inputs, folder: Path, *more: str) -> Path:
    config = write_yaml(folder.with_suffix(".yaml"), rl_config(ling, folder))
    result = ringrl("rl", config, *more)
    assert result.code == 0, result.text
    rows = lines(folder / "metrics.jsonl")
    assert all(r["parity"] < 1e-3 and r["expert_load_max"] > 0 for r in rows)  # parity: after every weight sync
    assert rows[0]["grad_norm"] > 1e-3
    return folder


def sft(ling: Inputs, folder: Path, *more: str) -> Path:
    result = ringrl("sft", write_yaml(folder.with_suffix(".yaml"), sft_config(ling, folder, epochs=1)), *more)
    assert result.code == 0, result.text
    return folder


@pytest.fixture(scope="module")
def lopsided(ling: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT without router losses, after which most tokens take the same experts."""
    return sft(ling, tmp_path_factory.mktemp("lopsided") / "run", "balance=0", "z=0")


def assert_same_numbers(one: Path, two: Path, *keys: str) -> None:
    """In the first two steps, before a near-tie of a router can tell them apart."""
    for a, b in list(zip(*(lines(path / "metrics.jsonl") for path in (one, two)), strict=True))[:2]:
        for key in keys:
            assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-6), key


def test_both_engines_and_expert_parallelism(ling: Inputs, tmp_path: Path) -> None:
    one = rl(ling, tmp_path / "one", "stages.0.steps=2")
    two = rl(ling, tmp_path / "two", "stages.0.steps=2", *TWO)
    assert_same_numbers(one, two, "tokens_trained", "loss", "grad_norm", "entropy", "balance_loss")
    before = load_file(Path(ling.model) / "model.safetensors")
    for path in (one, two):
        after = load_file(path / "checkpoints" / "step_000002" / "model.safetensors")
        assert {n: t.shape for n, t in after.items()} == {n: t.shape for n, t in before.items()}
        same = {n for n in before if torch.equal(after[n], before[n])}
        assert {n for n in same if ".experts." not in n} == {n for n in before if "expert_bias" in n}
        assert len(same) < len(before) / 8  # experts that no token took
    pytest.importorskip("vllm")
    more = ("stages.0.steps=2", "prompting.template=ring-lite-distill-preview")
    vllm = rl(ling, tmp_path / "vllm", "rollout.engine=vllm", *more)
    responses = lines(vllm / "rollouts" / "step_000001.jsonl")
    assert all(r["text"].startswith("<think>") for r in responses)  # which the prompt ends in, and nobody sampled


@torch.no_grad()
def expert_load(folder: Path, ling: Inputs) -> float:
    """The fullest expert over the mean, of the worst layer, on the validation examples."""
    module = PolicyModule(load_lm(str(folder), "float32", "packed"), 1.0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = list(read_conversations(Source(**ling.source("sft_val"))))
    end = turn_end(str(folder), tokenizer, Prompting())
    sequences = [s for row in make_sequences(rows, tokenizer, Prompting(), end) for s in row]
    counts = [expert_counts(module(row).routes, module.lm.config.num_experts) for row in pack(sequences, 1, 512)[0]]
    return float(load(torch.stack(counts).sum(0)).max())


def test_router_losses_move_the_expert_load_in_sft(lopsided: Path, ling: Inputs, tmp_path: Path) -> None:
    one = sft(ling, tmp_path / "one", "balance=1", "z=1e-3")
    two = sft(ling, tmp_path / "two", "balance=1", "z=1e-3", *TWO)
    assert_same_numbers(one, two, "loss", "grad_norm", "balance_loss", "z_loss")
    off, *loads = (expert_load(path / "checkpoints" / "step_000008", ling) for path in (lopsided, one, two))
    assert max(loads) < 0.9 * off


def test_router_losses_move_the_expert_load_in_rl(lopsided: Path, ling: Inputs, tmp_path: Path) -> None:
    more = (f"model={lopsided}/checkpoints/step_000008", "stages.0.steps=5", "stages.0.samples=8",
            "stages.0.budget.phi=400", "save_every=100")  # fmt: skip
    off = rl(ling, tmp_path / "off", *more, "loss.balance=0", "loss.z=0")
    one = rl(ling, tmp_path / "one", *more, "loss.balance=1", "loss.z=1e-3")
    two = rl(ling, tmp_path / "two", *more, "loss.balance=1", "loss.z=1e-3", *TWO)
    assert_same_numbers(one, two, "tokens_trained", "loss", "grad_norm", "balance_loss", "z_loss")

    def after_the_first(run: Path, key: str) -> float:
        return float(torch.tensor([row[key] for row in lines(run / "metrics.jsonl")[1:]]).mean())

    for run in (one, two):
        assert after_the_first(run, "expert_load") < 0.95 * after_the_first(off, "expert_load")
        assert after_the_first(run, "balance_loss") - 1 < 0.5 * (after_the_first(off, "balance_loss") - 1)
