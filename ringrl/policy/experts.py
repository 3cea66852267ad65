"""Expert parallelism: a rank holds E / size experts of every layer; tokens travel to their experts and back.

Only the `experts` module of a transformers MoE block is replaced; router, shared experts and the block itself stay, so
router losses, routing replay and every model class work as without it. Dropless: splits are uneven, and an
expert, or a rank, may get no token at all. DeepSpeed takes the module for one of its own (`deepspeed_internals`): it
reduces expert gradients over the expert-data-parallel group, clips by the true global norm, and saves each shard once,
under ZeRO 1 to 3.

Also here, since it must know of shards: the whole model's weights under checkpoint names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from ringrl.errors import DataError
from ringrl.models.transformers_internals import has_plain_experts
from ringrl.policy.deepspeed_internals import ExpertParallelLayer, gathered

_NUMBER = re.compile(r"\.experts\.(\d+)\.")
Compute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # rows by expert [n, H], rows per expert -> [n, H]


class _Exchange(torch.autograd.Function):
    """Rows [n, H] to the ranks of a group, `sent[r]` of them to rank r; the gradient takes the way back."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, sent: list[int], received: list[int], group: Any) -> torch.Tensor:
        ctx.way_back = (received, sent, group)
        out = rows.new_empty(sum(received), rows.shape[1])
        dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _Exchange.apply(grad, *ctx.way_back), None, None, None


class _Copies(torch.autograd.Function):
    """Rows [T, H] to as many copies of each, in another order [T top_k, H]. The gradient is gathered by the inverse,
    and summed over the copies: indexing's own would add it up row by row."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor, top_k: int) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return rows[order // top_k] if top_k > 1 else rows[order]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        grad = grad[inverse]
        return grad.view(-1, ctx.top_k, grad.shape[-1]).sum(1) if ctx.top_k > 1 else grad, None, None, None


def permuted(rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """rows[order], for a permutation and its inverse."""
    out: torch.Tensor = _Copies.apply(rows, order, inverse, 1)
    return out


def inverse_of(order: torch.Tensor) -> torch.Tensor:
    """Of a permutation [n] int64."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def dispatch(
    hidden: torch.Tensor,  # [T, H]
    chosen: torch.Tensor,  # [T, top_k] int64 expert ids
    gates: torch.Tensor,  # [T, top_k]
    experts: int,
    group: Any,  # a process group of `size` ranks; rank r holds experts r E/size to (r + 1) E/size
    size: int,
    compute: Compute,
) -> torch.Tensor:
    """Σ_k gate_k Expert_k(hidden) [T, H], wherever the experts are. A collective of `group`."""
    tokens, top_k = chosen.shape
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    inverse = inverse_of(order)
    rows = _Copies.apply(hidden, order, inverse, top_k)
    counts = torch.bincount(flat, minlength=experts).view(size, experts // size)  # [rank, its expert] rows to send
    arrived = torch.empty_like(counts)  # [rank, own expert] rows to receive
    dist.all_to_all_single(arrived, counts, group=group)
    sent, received = torch.stack([counts.sum(1), arrived.sum(1)]).tolist()  # the one time that the host waits
    rows = _Exchange.apply(rows, sent, received, group)
    # rows arrive sorted by source rank, then expert: sort them by expert
    own = torch.arange(experts // size, device=rows.device).repeat(size)
    by_expert = own.repeat_interleave(arrived.flatten(), output_size=len(rows)).argsort(stable=True)
    by_source = inverse_of(by_expert)
    done = compute(permuted(rows, by_expert, by_source), arrived.sum(0))
    done = _Exchange.apply(permuted(done, by_source, by_expert), received, sent, group)
    out, *others = permuted(done, inverse, order).view(tokens, top_k, -1).unbind(1)
    out = out * gates[:, :1]  # one [T, H] at a time in the gates' dtype, and not top_k of them
    for k, other in enumerate(others, 1):
        out = out + other * gates[:, k : k + 1]
    return out.to(hidden.dtype)


def gated_mlps(
    rows: torch.Tensor,  # [n, H], those of an expert behind those of the one before
    counts: torch.Tensor,  # [E] rows of each expert
    w1: torch.Tensor,  # [E, I, H]
    w2: torch.Tensor,  # [E, H, I]
    w3: torch.Tensor,  # [E, I, H]
    act: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """w2 (act(w1 x) * w3 x) [n, H], by the expert of each row."""
    if not len(rows):  # keep the weights in the graph: their gradient is a collective
        return rows + 0.0 * (w1.sum() + w2.sum() + w3.sum())
    ends = counts.cumsum(0, dtype=torch.int32)
    gate = F.grouped_mm(rows, w1.transpose(1, 2), offs=ends)
    up = F.grouped_mm(rows, w3.transpose(1, 2), offs=ends)
    return F.grouped_mm(act(gate) * up, w2.transpose(1, 2), offs=ends)


class _Shard(nn.Module):
    """The weights of the local experts; ZeRO-3 gathers them around this module's forward."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        w1, w3 = gate_up.chunk(2, dim=1)
        self.w1, self.w2, self.w3 = (nn.Parameter(w.detach().clone()) for w in (w1, down, w3))  # [E/size, I or H, ...]

    def forward(self, run: Callable[..., torch.Tensor]) -> torch.Tensor:
        return run(self.w1, self.w2, self.w3)


class ParallelExperts(ExpertParallelLayer):
    """Takes the place of a fused `experts` module: forward(hidden, top_k_index, top_k_weights)."""

    def __init__(self, fused: Any, size: int) -> None:
        super().__init__(fused.gate_up_proj.shape[0], size)
        # not as a submodule: a rank without tokens does not run it, and ZeRO-3 wants the same modules run everywhere
        object.__setattr__(self, "act_fn", fused.act_fn)
        local = slice(self.ep_rank * self.num_local_experts, (self.ep_rank + 1) * self.num_local_experts)
        self.experts = _Shard(fused.gate_up_proj[local], fused.down_proj[local])
        for p in self.experts.parameters():
            self.mark(p)

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        def run(w1: torch.Tensor, w2: torch.Tensor, w3: torch.Tensor) -> torch.Tensor:
            compute = functools.partial(gated_mlps, w1=w1, w2=w2, w3=w3, act=self.act_fn)
            return dispatch(hidden, chosen, gates, int(self.num_experts), self.ep_group, int(self.ep_size), compute)

        return self.experts(run)


def shard_experts(lm: PreTrainedModel, size: int, ranks: int) -> None:
    """Keep E / size experts of every layer on this rank. After the process group is made, before DeepSpeed's engine.

    Raises:
        DataError: the model has no fused experts, or their number or the ranks' do not divide by `size`.
    """
    blocks = fused_blocks(lm, size)
    count = blocks[0].experts.gate_up_proj.shape[0]
    if ranks % size or count % size:
        raise DataError(f"trainer.parallel.expert: got {size}, expected a divisor of {ranks} ranks and {count} experts")
    for block in blocks:
        block.experts = ParallelExperts(block.experts, size)


def fused_blocks(lm: PreTrainedModel, size: int) -> list[Any]:
    """The modules whose experts can be sharded. Raises DataError when the model's are none, or of another form."""
    blocks: list[Any] = [m for m in lm.modules() if _is_fused(getattr(m, "experts", None))]
    if not all(has_plain_experts(block.experts) for block in blocks):
        raise DataError(f"trainer.parallel.expert: got {size}, expected 1: the experts of {lm.config.model_type} are "
                        f"no gated MLPs without biases")  # fmt: skip
    if not blocks:
        raise DataError(f"trainer.parallel.expert: got {size}, expected 1: {lm.config.model_type} has no fused experts")
    return blocks


def _is_fused(experts: Any) -> bool:
    """A transformers 5 experts module: gate_up_proj [E, 2I, H], down_proj [E, H, I]."""
    weight = getattr(experts, "gate_up_proj", None)
    return isinstance(weight, torch.Tensor) and weight.dim() == 3


def weight_buckets(lm: PreTrainedModel, limit: int) -> Iterator[dict[str, torch.Tensor]]:
    """The whole model under the names of the Hugging Face checkpoint, in buckets of at most `limit` bytes.

    A collective with shards or ZeRO-3: every rank walks through it, and holds no more than a bucket, and under
    ZeRO-3 its own share of one layer's experts, at a time. What lies outside the experts of one layer, and one expert
    of each expert-parallel rank, are not cut further.
    """
    bucket: dict[str, torch.Tensor] = {}
    bucket_bytes = 0
    for piece in _pieces(lm, limit):
        piece_bytes = sum(t.nbytes for t in piece.values())
        if bucket and bucket_bytes + piece_bytes > limit:
            yield bucket
            bucket, bucket_bytes = {}, 0
        bucket |= piece
        bucket_bytes += piece_bytes
    if bucket:
        yield bucket


def _pieces(lm: PreTrainedModel, limit: int) -> Iterator[dict[str, torch.Tensor]]:
    """Under checkpoint names: what a layer has outside its experts, then some experts at a time."""
    experts = {f"{at}.": m for at, m in lm.named_modules() if isinstance(m, ParallelExperts) or _is_fused(m)}
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in lm.state_dict(keep_vars=True).items():
        if name not in lm.all_tied_weights_keys and not name.startswith(tuple(experts)):
            layer = re.match(r".*?\.\d+\.", name)
            layers.setdefault(layer[0] if layer else name, {})[name] = tensor
    for state in layers.values():
        with gathered(state.values()):
            yield revert_weight_conversion(lm, {n: t.detach().clone() for n, t in state.items()})
    for at, module in experts.items():
        with gathered(module.parameters()):
            yield from _expert_pieces(lm, at, module, limit)


def _expert_pieces(lm: PreTrainedModel, at: str, module: Any, limit: int) -> Iterator[dict[str, torch.Tensor]]:
    """The experts called `at` as single experts, as many at a time as `limit` bytes hold; all of the layer at once
    where the checkpoint has them in one tensor."""
    sharded = isinstance(module, ParallelExperts)
    size = int(module.ep_size) if sharded else 1
    weights = dict((module.experts if sharded else module).named_parameters())
    local = len(next(iter(weights.values())))

    def named(first: int, last: int) -> dict[str, torch.Tensor]:
        piece = {n: w.detach()[first:last].clone() for n, w in weights.items()}
        if sharded:
            piece = {n: _gather(w, module) for n, w in piece.items()}
            piece = {"gate_up_proj": torch.cat([piece["w1"], piece["w3"]], 1), "down_proj": piece["w2"]}
        converted: dict[str, torch.Tensor] = revert_weight_conversion(lm, {at + n: w for n, w in piece.items()})
        return converted

    if not all(_NUMBER.search(name) for name in named(0, 1)):
        yield named(0, local)
        return
    step = max(limit // (sum(w.nbytes for w in weights.values()) // local * size), 1)
    for first in range(0, local, step):
        count = min(step, local - first)
        ids = [rank * local + first + i for rank in range(size) for i in range(count)]
        # an expert of a piece is numbered there by its place, and in the model by its id
        yield {
            _NUMBER.sub(lambda m, ids=ids: f".experts.{ids[int(m[1])]}.", name): w  # type: ignore[misc]
            for name, w in named(first, first + count).items()
        }


def _gather(tensor: torch.Tensor, module: ParallelExperts) -> torch.Tensor:
    """[n, ...] of every rank of the expert-parallel group -> [size n, ...]."""
    parts = [torch.empty_like(tensor) for _ in range(int(module.ep_size))]
    dist.all_gather(parts, tensor.contiguous(), group=module.ep_group)
    return torch.cat(parts)
