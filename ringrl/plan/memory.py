"""Bytes per trainer rank and per rollout worker, by part.

What lies on a rank for a whole update are weights, gradients, AdamW's states and the reference model. On top, one after
the other: the passes of a microbatch (activations, DeepSpeed's buffers, and either a chunk of logits or the insides of
a layer that is computed again), and the step (a flat copy of the gradients, in fp32). Activations count what autograd
keeps of transformers' modules, tensor by tensor, each storage once. `tests/plan/test_memory.py` compares all that with
what a CPU really allocates. ZeRO-3's gathered weights are DeepSpeed's documented limit; what the CUDA context, NCCL and
fragmentation take is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringrl.config.sections import Rollout, Trainer
from ringrl.plan.shape import Shape

CHUNK = 2048  # tokens whose logits exist at a time: that of ringrl.algo.entropy, which would import torch
LOGITS = 20  # bytes per chunk token and vocabulary entry in the head's backward pass: five fp32 arrays
ADAMW = 12  # bytes per parameter: two moments and the master copy in fp32, which ZeRO keeps of fp32 weights too
BUCKET = 500_000_000  # elements: DeepSpeed's reduce_bucket_size, whatever the model
LIVE = 1_000_000_000  # elements: DeepSpeed's stage3_max_live_parameters
GIB = 1 << 30
SPARE = 2 * GIB  # assumption: CUDA context, NCCL, fragmentation
WORKSPACE = 2 * GIB  # assumption: of vLLM, besides weights and cache


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank's device, and on the host for it."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    again: float  # the insides of one layer, with recompute
    buffers: float  # for reducing gradients and, under ZeRO-3, gathered weights
    step: float
    host: float

    @property
    def resident(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.reference

    @property
    def peak(self) -> float:
        return self.resident + max(self.activations + max(self.logits, self.again) + self.buffers, self.step)


def rank_memory(shape: Shape, trainer: Trainer, longest: int, reference: bool) -> RankMemory:
    """Of the rank with the most; experts lie on `parallel.expert` ranks.

    Args:
        longest: tokens of the longest sequence, which is not cut: a microbatch may be larger than `microbatch_tokens`.
        reference: whether a reference model is in memory.
    """
    low = low_bytes(trainer.dtype)
    zero, ranks, ep, offload = (
        trainer.parallel.zero, trainer.ranks, trainer.parallel.expert, trainer.parallel.offload,
    )  # fmt: skip
    weights = gradients = optimizer = step = 0.0
    shares = ((shape.outside, ranks), (shape.routed / ep, ranks // ep)) if ep > 1 else ((shape.total, ranks),)
    for count, copies in shares:  # ZeRO shards over the copies
        weights += count * low / (copies if zero == 3 else 1)
        gradients += count * low / (copies if zero >= 2 else 1)
        optimizer += count * ADAMW / copies
        step = max(step, count / copies * (4 + low % 4))  # one group after the other
    ref = (shape.outside + shape.routed / ep) * low * reference
    tokens = max(trainer.microbatch_tokens, longest)
    gathered = min(LIVE, shape.outside + shape.routed / ep) * low if zero == 3 else 0.0
    host = 0.0
    if offload != "none":
        host = optimizer * (ADAMW + 4) / ADAMW + weights * (offload == "parameters")  # and gradients in fp32
        optimizer, step = 0.0, 0.0
        weights -= weights * (offload == "parameters")
        if zero >= 2:
            host, gradients = host + gradients, 0.0
    kept, again = activations(shape, trainer, tokens)
    logits = LOGITS * min(CHUNK, tokens) * shape.vocab
    return RankMemory(
        weights, gradients, optimizer, ref, kept, logits, again, BUCKET * low + gathered, step, host
    )  # fmt: skip


def activations(shape: Shape, trainer: Trainer, tokens: int) -> tuple[float, float]:
    """What a forward pass over `tokens` leaves for backward, and the insides of one layer if they are recomputed."""
    low, dense = low_bytes(trainer.dtype), shape.layers - shape.moe_layers
    copied = trainer.attention != "flash_attention_2"  # the output is laid out anew for the projection after it
    of_moe, of_dense = (layer_bytes(shape, moe, low, copied) for moe in (True, False))
    last = shape.hidden * (4 + 2 * low)  # the final norm, and the head's input
    if not trainer.recompute:
        return tokens * (shape.moe_layers * of_moe + dense * of_dense + last), 0.0
    heard = 8 * shape.experts * shape.moe_layers  # router logits, for the router losses
    inside = max(of_moe if shape.moe_layers else 0.0, of_dense if dense else 0.0)
    return tokens * (shape.layers * shape.hidden * low + heard + last), tokens * inside


def layer_bytes(shape: Shape, moe: bool, low: int, copied: bool) -> float:
    """Bytes per token that one layer leaves for backward."""
    h, a = shape.hidden, shape.attention
    norm = 4 + low  # its input in fp32, and the normalised values
    mla = a.normed * low if a.kv_heads == 1 else 0  # what is normed goes into a product
    out = a.heads * a.v * (1 + copied)
    values = 2 * h * norm + 2 * h * low + a.normed * norm + mla + (a.kept + out) * low
    if not moe:
        return values + 4 * shape.dense_width * low
    routed = shape.top_k * ((2 * h + 4 * shape.expert_width) * low + 40)  # 40: indices and gate weights
    return values + routed + 4 * shape.shared_width * low + 12 * shape.experts


def low_bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes on each GPU of a rollout worker."""

    weights: float
    cache: float  # for keys and values; not positive when the weights leave no room
    token: float  # of the cache

    @property
    def tokens(self) -> int:
        """How many fit into the cache."""
        return max(int(self.cache / self.token), 0)


def worker_memory(shape: Shape, rollout: Rollout, memory: float) -> WorkerMemory:
    """On a GPU with `memory` bytes."""
    low, tp = low_bytes(rollout.dtype), rollout.tensor_parallel
    weights = shape.total * low / tp
    share = min(tp, shape.attention.kv_heads)
    cache = rollout.kv_cache_mib * 2.0**20 or rollout.gpu_memory * memory - weights - WORKSPACE
    return WorkerMemory(weights, cache, shape.attention.cached * shape.layers * low / share)


def checkpoint_bytes(shape: Shape, dtype: str) -> tuple[float, float]:
    """The model's files, and the trainer's state beside them: AdamW's, and DeepSpeed's own copy of the weights."""
    return shape.total * low_bytes(dtype), shape.total * (ADAMW + low_bytes(dtype))
