"""Sums over microbatches in bfloat16, and steps that must not move anything. Real engine, one process or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from ringrl.processes import free_port
from tests.conftest import as_rank

ONE = {f"zero {zero}": ({"zero": zero}, (1, 64)) for zero in (1, 2, 3)}
LONG = {"zero 1, 512 parts": ({"zero": 1}, (1, 128, 256, 512))}
OFFLOADED = {f"zero {zero}, {what} offloaded": ({"zero": zero, "offload": what}, (1, 64)) for zero, what in (
    (1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "parameters"))}  # fmt: skip
SHARED = {f"zero {zero}, experts shared out": ({"zero": zero, "expert": 2}, (1, 64)) for zero in (1, 2, 3)}


def build(folder: Path) -> None:
    """A layer of four experts, all of which are taken by every token: rounding cannot choose others."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    lm = Qwen3MoeForCausalLM(Qwen3MoeConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, head_dim=16,
                                            num_key_value_heads=1, num_experts=4, num_experts_per_tok=4,
                                            moe_intermediate_size=8, vocab_size=32, pad_token_id=None))  # fmt: skip
    for p in lm.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.2)
    lm.save_pretrained(folder / "model")


def policy_of(folder: Path, parallel: dict[str, Any], ranks: Any, dtype: str) -> Any:
    from accelerate.state import AcceleratorState

    from ringrl.config.sections import Optimizer, Parallel, Trainer
    from ringrl.policy.engine import Policy

    AcceleratorState._reset_state()  # one process, many engines
    trainer = Trainer(ranks=ranks.size, dtype=dtype, attention="packed", parallel=Parallel(**parallel))
    optimizer = Optimizer(lr=1e-2, weight_decay=0.1)
    return Policy(str(folder / "model"), None, trainer, optimizer, 1.0, ranks)  # type: ignore[arg-type]


def rows_of(ranks: Any, count: int, trained: bool) -> list[Any]:
    """`count` equal rows for every rank, whose weights make the same sum whatever `count` is."""
    from ringrl.algo.pack import TokenSequence, pack

    ids = tuple(torch.randint(0, 32, (24,), generator=torch.Generator().manual_seed(1)).tolist())
    s = TokenSequence(ids, (False,) + (trained,) * 23, 1 / (23 * count * ranks.size))
    return pack([s] * ranks.size, ranks.size, 64)[ranks.rank] * count


def minus_logprobs(mb: Any, stats: Any, i: int) -> torch.Tensor:
    return -stats.logprobs


def everything(policy: Any) -> list[torch.Tensor]:
    """Copies of the weights as they would be saved, of the masters and of AdamW's states."""
    from ringrl.policy.experts import weight_buckets

    weights = [w.clone() for bucket in weight_buckets(policy.module.lm, 1 << 20) for w in bucket.values()]
    inner = policy.engine.optimizer.optimizer
    states = [t.clone() for slot in inner.state.values() for t in slot.values() if torch.is_tensor(t)]
    return weights + [p.detach().clone() for group in inner.param_groups for p in group["params"]] + states


def one_rank(rank: int, size: int, port: int, folder: Path, wanted: dict[str, Any]) -> None:
    as_rank(rank, size, port)
    from ringrl.policy.ranks import Ranks

    ranks = Ranks(200)
    for name, (parallel, counts) in wanted.items():
        policy = policy_of(folder, parallel, ranks, "bfloat16")
        norms = [policy.update(rows_of(ranks, n, True), minus_logprobs, 0.0) for n in counts]
        if rank == 0:
            torch.save(norms, folder / f"{name}.pt")
        policy.engine.destroy()
    for dtype, zero in (("float32", 1), ("float32", 3), ("bfloat16", 1)):
        policy = policy_of(folder, {"zero": zero}, ranks, dtype)
        first = policy.update(rows_of(ranks, 2, True), minus_logprobs, 1e-2)
        before = everything(policy)
        still = policy.update(rows_of(ranks, 2, False), minus_logprobs, 1e-2)
        after = everything(policy)
        moved = policy.update(rows_of(ranks, 2, rank == size - 1), minus_logprobs, 1e-2)  # one rank has tokens
        same = [
            len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in ((before, after), (after, everything(policy)))
        ]
        if rank == 0:
            torch.save((first, still, moved, same), folder / f"still, {dtype}, zero {zero}, {size}.pt")
        policy.engine.destroy()
    ranks.close()


def run(size: int, folder: Path, wanted: dict[str, Any]) -> Path:
    build(folder)
    multiprocessing.spawn(one_rank, (size, free_port(), folder, wanted), size)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(1, tmp_path_factory.mktemp("alone"), ONE)


def check_still(folder: Path) -> None:
    files = sorted(folder.glob("still*.pt"))
    assert len(files) == 3
    for file in files:
        first, still, moved, same = torch.load(file)
        assert first > 0 < moved, file.name
        assert (still, same) == (0.0, [True, False]), file.name


@pytest.mark.parametrize("layout", ONE)
def test_the_sum_does_not_depend_on_its_number_of_parts(layout: str, alone: Path) -> None:
    norms = torch.load(alone / f"{layout}.pt")
    assert norms == pytest.approx(norms[:1] * len(norms), rel=1e-4)  # powers of two: the parts themselves are exact


def test_without_a_trained_token_nothing_moves(alone: Path) -> None:
    check_still(alone)


@pytest.mark.slow
def test_neither_does_it_on_two_ranks(tmp_path: Path) -> None:
    layouts = OFFLOADED | SHARED | LONG
    folder = run(2, tmp_path, layouts)
    for layout in layouts:
        norms = torch.load(folder / f"{layout}.pt")
        assert norms == pytest.approx(norms[:1] * len(norms), rel=1e-4), layout
    check_still(folder)
