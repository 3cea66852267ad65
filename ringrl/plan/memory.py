"""Bytes per trainer rank and per rollout worker, by part.

Weights, gradients, AdamW's states and the reference model stay on a rank for a whole update. Two peaks come on top, one
after the other: the passes of a microbatch (activations, DeepSpeed's buffers, and either a chunk of logits or the
activations inside one recomputed layer), and the optimizer step (a flat fp32 copy of the gradients, unless they were
added up in one). Activations are the tensors that autograd saves in transformers' modules, each storage counted once;
`tests/plan/test_memory.py` compares them with what a CPU allocates. The size of ZeRO-3's gathered weights is
DeepSpeed's documented limit; that of the CUDA context, NCCL and fragmentation is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringrl.config.sections import Rollout, Trainer
from ringrl.plan.shape import Shape

CHUNK = 2048  # tokens per chunk of logits; copied from ringrl.algo.entropy, which imports torch
LOGITS = 20  # bytes per token of a chunk and vocabulary entry in the head's backward pass: five fp32 arrays
ADAMW = 12  # bytes per parameter: two fp32 moments and an fp32 master copy, which ZeRO keeps even for fp32 weights
BUCKET = 500_000_000  # elements: DeepSpeed's reduce_bucket_size, independent of the model
LIVE = 1_000_000_000  # elements: DeepSpeed's stage3_max_live_parameters
GIB = 1 << 30
SPARE = 2 * GIB  # assumption: CUDA context, NCCL, fragmentation
WORKSPACE = 2 * GIB  # assumption: vLLM's needs besides weights and cache


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank's device and, in `host`, in host memory."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    again: float  # with recompute: activations inside the layer being recomputed
    buffers: float  # gradient reduction and, with ZeRO-3, gathered weights
    step: float
    host: float

    @property
    def resident(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.reference

    @property
    def peak(self) -> float:
        return self.resident + max(self.activations + max(self.logits, self.again) + self.buffers, self.step)


def rank_memory(shape: Shape, trainer: Trainer, longest: int, reference: bool) -> RankMemory:
    """Memory of the fullest rank; experts are split over `parallel.expert` ranks.

    Args:
        longest: tokens of the longest sequence; it is never cut, so a microbatch may exceed `microbatch_tokens`.
        reference: whether a reference model is in memory.
    """
    low = low_bytes(trainer.dtype)
    zero, ranks, ep, offload = (
        trainer.parallel.zero, trainer.ranks, trainer.parallel.expert, trainer.parallel.offload,
    )  # fmt: skip
    weights = gradients = optimizer = step = 0.0
    # bfloat16 gradients are added up in float32, in a buffer that AdamW reads under stages 1 and 2
    copied = low == 4 or zero == 3
    shares = ((shape.outside, ranks), (shape.routed / ep, ranks // ep)) if ep > 1 else ((shape.total, ranks),)
    for count, copies in shares:  # ZeRO shards each group over its copies
        weights += count * low / (copies if zero == 3 else 1)
        gradients += count * 4 / (copies if zero >= 2 else 1)
        optimizer += count * ADAMW / copies
        step = max(step, count / copies * 4 * copied)  # groups are stepped one after the other
    ref = (shape.outside + shape.routed / ep) * low * reference
    tokens = max(trainer.microbatch_tokens, longest)
    gathered = min(LIVE, shape.outside + shape.routed / ep) * low if zero == 3 else 0.0
    host = 0.0
    if offload != "none":
        host = optimizer * (ADAMW + 4) / ADAMW + weights * (offload == "parameters")  # 4: fp32 gradients
        optimizer, step = 0.0, 0.0
        weights -= weights * (offload == "parameters")
        if zero >= 2 and copied:
            host, gradients = host + gradients, 0.0
    kept, again = activations(shape, trainer, tokens)
    logits = LOGITS * min(CHUNK, tokens) * shape.vocab
    bucket = 0 if zero == 1 and not copied and offload == "none" else BUCKET * (4 if zero == 1 else low)
    return RankMemory(
        weights, gradients, optimizer, ref, kept, logits, again, bucket + gathered, step, host
    )  # fmt: skip


def keeps_gradients(trainer: Trainer) -> bool:
    """Whether DeepSpeed's sum of gradients stays on the device between two updates."""
    zero, offload = trainer.parallel.zero, trainer.parallel.offload
    return offload == "none" and (zero == 3 or (zero == 1 and trainer.dtype == "bfloat16"))


def activations(shape: Shape, trainer: Trainer, tokens: int) -> tuple[float, float]:
    """Bytes that a forward pass over `tokens` saves for backward, and those inside one layer if it is recomputed."""
    low, dense = low_bytes(trainer.dtype), shape.layers - shape.moe_layers
    # on a CPU the output is copied into the layout of the next projection
    copied = not trainer.attention.startswith("flash")
    moe_bytes, dense_bytes = (layer_bytes(shape, moe, low, copied) for moe in (True, False))
    last = shape.hidden * (4 + 2 * low)  # final norm and the head's input
    if not trainer.recompute:
        return tokens * (shape.moe_layers * moe_bytes + dense * dense_bytes + last), 0.0
    router = 8 * shape.experts * shape.moe_layers  # router logits, for the router losses
    inside = max(moe_bytes if shape.moe_layers else 0.0, dense_bytes if dense else 0.0)
    return tokens * (shape.layers * shape.hidden * low + router + last), tokens * inside


def layer_bytes(shape: Shape, moe: bool, low: int, copied: bool) -> float:
    """Bytes per token that one layer saves for backward."""
    h, attention = shape.hidden, shape.attention
    norm = 4 + low  # the input in fp32 and the normalised values
    mla = attention.normed * low if attention.kv_heads == 1 else 0  # the normalised values are inputs of a matmul
    out = attention.heads * attention.v * (1 + copied)
    values = 2 * h * norm + 2 * h * low + attention.normed * norm + mla + (attention.kept + out) * low
    if not moe:
        return values + 4 * shape.dense_width * low
    routed = shape.top_k * ((2 * h + 4 * shape.expert_width) * low + 40)  # 40: bytes of indices and gate weights
    return values + routed + 4 * shape.shared_width * low + 12 * shape.experts


def low_bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes on each GPU of a rollout worker."""

    weights: float
    cache: float  # key-value cache; not positive when the weights leave no room
    token: float  # cache bytes per token

    @property
    def tokens(self) -> int:
        """Number of tokens that fit into the cache."""
        return max(int(self.cache / self.token), 0)


def worker_memory(shape: Shape, rollout: Rollout, memory: float) -> WorkerMemory:
    """Memory of a worker on a GPU with `memory` bytes."""
    low, tp = low_bytes(rollout.dtype), rollout.tensor_parallel
    weights = shape.total * low / tp
    share = min(tp, shape.attention.kv_heads)
    cache = rollout.kv_cache_mib * 2.0**20 or rollout.gpu_memory * memory - weights - WORKSPACE
    return WorkerMemory(weights, cache, shape.attention.cached * shape.layers * low / share)


def checkpoint_bytes(shape: Shape, dtype: str) -> tuple[float, float]:
    """Bytes of the model's files and of the trainer state: AdamW's states and DeepSpeed's own copy of the weights."""
    return shape.total * low_bytes(dtype), shape.total * (ADAMW + low_bytes(dtype))
