"""Tokens, FLOPs, bytes and seconds of a step, from the configuration, a GPU's peak rates and stated assumptions.

    a training pass takes   FLOPs / (ranks x peak x mfu)          FLOPs of recomputation included
    a decoding step takes   max(bytes / (tp x bandwidth x eff), FLOPs / (tp x peak x mfu))
                            bytes = weights outside experts + experts used by any sequence + keys and values

With uniform routing, a batch of B sequences uses E (1 - (1 - k/E)^B) of E experts. All responses are taken to have the
mean length, which is optimistic in two ways: attention is quadratic, and a batch waits for its longest response. The
latter is shown separately: a response of `max_total_tokens` decoded alone, a lower bound of the rollout's time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ringrl.config.commands import RLConfig, SFTConfig, Stage
from ringrl.config.sections import Rollout, Trainer
from ringrl.plan.hardware import NETWORK, NODE, Gpu
from ringrl.plan.memory import low_bytes, worker_memory
from ringrl.plan.shape import Shape

# a worker's time for a tensor of a weight sync besides moving it: 0.94 s for the 5,603 of Ling-lite, on a CPU
LOAD_S = 1.7e-4


@dataclass(frozen=True)
class Assumed:
    """Assumptions that a configuration does not contain."""

    gpu: Gpu
    mfu: float  # share of the peak FLOP/s that is reached
    bandwidth: float  # share of the peak memory bandwidth that decoding reaches
    prompt: float  # mean tokens of a prompt
    response: float  # mean tokens of a response; 0 = half of the room within max_total_tokens
    rows: int  # rows of each data source that is not on this machine
    source: str = "assumed"  # where shares and lengths come from

    def prompt_of(self, max_total_tokens: int) -> float:
        return min(self.prompt, max_total_tokens / 2)

    def response_of(self, max_total_tokens: int) -> float:
        room = max_total_tokens - self.prompt_of(max_total_tokens)
        return min(self.response, room) if self.response else room / 2


@dataclass(frozen=True)
class Decoding:
    """Cost of a batch of responses on all workers."""

    sequences: float  # decoded together by one worker
    cached: int  # tokens that fit into one worker's cache
    step_bytes: float  # bytes read in a decoding step
    step_flops: float
    step_s: float
    bound: str  # "memory" or "compute"
    prefill_s: float
    bulk_s: float  # time for all tokens in full batches
    tail_s: float  # time for the longest response alone
    flops: float  # total over the batch

    @property
    def seconds(self) -> float:
        return self.prefill_s + max(self.bulk_s, self.tail_s)


def decode(
    shape: Shape, rollout: Rollout, workers: int, prompts: float, samples: int, longest: int, assumed: Assumed
) -> Decoding:
    """Cost of `prompts` x `samples` responses. A prompt is prefilled once for all of its samples."""
    tp, prompt, response = rollout.tensor_parallel, assumed.prompt_of(longest), assumed.response_of(longest)
    memory = worker_memory(shape, rollout, assumed.gpu.memory * 1e9)
    per_worker = prompts * samples / workers
    together = max(min(rollout.concurrent, per_worker, memory.tokens / (prompt + response)), 1.0)
    bytes_, flops, seconds, bound = decode_step(shape, rollout, together, prompt + response / 2, assumed)
    alone = decode_step(shape, rollout, 1.0, longest / 2, assumed)[2]
    peak = workers * tp * assumed.gpu.tflops * 1e12 * assumed.mfu
    prefill = prompts * sum(shape.cost.forward([prompt], 1))
    steps = max(per_worker, 1.0) * response / together
    return Decoding(
        together, memory.tokens, bytes_, flops, seconds, bound, prefill / peak, steps * seconds,
        (longest - prompt) * alone, prefill + flops * steps * workers,
    )  # fmt: skip


def decode_step(
    shape: Shape, rollout: Rollout, batch: float, context: float, assumed: Assumed
) -> tuple[float, float, float, str]:
    """(bytes read, FLOPs, seconds, "memory" or "compute" as bottleneck) for one token of each of `batch` sequences."""
    low, tp = low_bytes(rollout.dtype), rollout.tensor_parallel
    used = shape.experts * (1 - (1 - shape.top_k / shape.experts) ** batch) if shape.experts else 0.0
    looked_up = 0 if shape.tied else shape.vocab * shape.hidden
    weights = shape.outside - looked_up + shape.moe_layers * used * shape.expert
    cache = batch * context * shape.attention.cached * shape.layers
    read = (weights + cache) * low
    cost = shape.cost
    flops = batch * (2 * (cost.layers + cost.head) + cost.pair * context)
    by_memory = read / (tp * assumed.gpu.bandwidth * 1e9 * assumed.bandwidth)
    by_compute = flops / (tp * assumed.gpu.tflops * 1e12 * assumed.mfu)
    return read, flops, max(by_memory, by_compute), "memory" if by_memory >= by_compute else "compute"


@dataclass(frozen=True)
class Training:
    """Tokens of the updates on one rollout batch, or of one SFT step, and the FLOPs of their passes."""

    tokens: float  # tokens trained on
    tokens_read: float  # trained tokens and their prompts
    old: float
    reference: float
    update: float  # includes recomputation

    @property
    def flops(self) -> float:
        return self.old + self.reference + self.update


def sft_training(shape: Shape, cfg: SFTConfig, assumed: Assumed) -> Training:
    """Cost of one SFT step."""
    tokens = cfg.batch_examples * assumed.response_of(cfg.max_tokens)
    counting = cfg.balance > 0 and cfg.balance_over == "batch" and shape.experts > 0
    return _passes(shape, tokens, cfg.max_tokens, cfg.trainer, assumed, counting, False)


def rl_training(shape: Shape, cfg: RLConfig, stage: Stage, assumed: Assumed) -> Training:
    """Cost of the updates on one rollout batch."""
    sampled = stage.prompts * stage.samples * assumed.response_of(stage.max_total_tokens)
    tokens = min(cfg.step_phi(stage), sampled) if cfg.budgeted else sampled
    best = cfg.budgeted and stage.budget.order == "informative"
    share = cfg.loss.balance > 0 and cfg.loss.balance_over == "batch" and shape.experts > 0
    moves = cfg.loss.old_logprobs == "trainer" and 1 - 1 / cfg.updates  # the first update's own pass gives π_old
    everything = cfg.loss.router_replay == "trainer" or share or best
    old = (1.0 if everything else moves) * (1 / min(stage.budget.keep) if best else 1.0)
    return _passes(shape, tokens, stage.max_total_tokens, cfg.trainer, assumed, old, cfg.loss.kl > 0)


def _passes(
    shape: Shape, tokens: float, longest: int, trainer: Trainer, assumed: Assumed, old: float, reference: bool
) -> Training:
    """`old`: scoring passes over all tokens before the update; may be a fraction or above 1."""
    response = assumed.response_of(longest)
    count, length = tokens / response, assumed.prompt_of(longest) + response
    once = sum(shape.cost.forward([length], response)) * count
    update = shape.cost.update([length], response, trainer.recompute)[1] * count
    return Training(tokens, count * length, old * once, reference * once, update)


@dataclass(frozen=True)
class StepCost:
    """Cost of one rollout batch: sampling, training, weight sync."""

    decoding: Decoding
    training: Training
    train_s: float
    sync_bytes: float
    sync_s: float
    seconds: float
    gpus: int


def rl_step(shape: Shape, cfg: RLConfig, stage: Stage, assumed: Assumed) -> StepCost:
    workers = len(cfg.rollout.addresses) or cfg.rollout.workers
    sampling = workers * cfg.rollout.tensor_parallel
    gpus = max(cfg.trainer.ranks, sampling) if cfg.rollout.colocated else cfg.trainer.ranks + sampling
    d = decode(shape, cfg.rollout, workers, stage.prompts, stage.samples, stage.max_total_tokens, assumed)
    t = rl_training(shape, cfg, stage, assumed)
    train_s = t.flops / rank_speed(cfg.trainer.ranks, assumed)
    sync = shape.total * low_bytes(cfg.trainer.dtype)
    gpu = assumed.gpu
    speed = gpu.bandwidth if cfg.rollout.colocated else gpu.link if gpus <= NODE else min(NETWORK, gpu.link)
    sync_s = sync / (speed * 1e9) + shape.tensors * LOAD_S
    both = max(d.seconds, train_s) if cfg.max_staleness else d.seconds + train_s
    return StepCost(d, t, train_s, sync, sync_s, both + sync_s, gpus)


def rank_speed(ranks: int, assumed: Assumed) -> float:
    """FLOP/s of all ranks together."""
    return ranks * assumed.gpu.tflops * 1e12 * assumed.mfu


def balanced(shape: Shape, cfg: RLConfig, stage: Stage, assumed: Assumed) -> float:
    """Sampling GPUs per training GPU at which both take equally long, if all responses had the same length."""
    step = rl_step(shape, cfg, stage, assumed)
    workers = len(cfg.rollout.addresses) or cfg.rollout.workers
    sampling_s = (step.decoding.prefill_s + step.decoding.bulk_s) * workers * cfg.rollout.tensor_parallel
    return sampling_s / (step.train_s * cfg.trainer.ranks)


def laid_out(shape: Shape, cfg: RLConfig, gpus: int, assumed: Assumed) -> RLConfig:
    """`cfg` on `gpus` GPUs, split into ranks and workers for the fastest first stage; colocated if too few."""
    tp, unit, stage = cfg.rollout.tensor_parallel, cfg.trainer.parallel.expert, cfg.stages[0]
    if cfg.rollout.colocated or gpus < unit + tp:
        return resized(cfg, gpus, max(gpus // tp, 1), True)
    most = stage.prompts * stage.samples // cfg.updates
    splits = range(unit, min(gpus - tp, most) + 1, unit)
    options = (resized(cfg, ranks, (gpus - ranks) // tp, False) for ranks in splits)
    return min(options, key=lambda c: rl_step(shape, c, c.stages[0], assumed).seconds)


def resized(cfg: RLConfig, ranks: int, workers: int, colocated: bool) -> RLConfig:
    """`cfg` with other numbers of processes. A Φ per rank is rescaled to keep the tokens of a step."""
    stages = tuple(_with_phi(s, cfg.step_phi(s) // ranks) if s.budget.scope == "rank" else s for s in cfg.stages)
    changes = {"workers": workers, "colocated": colocated, "addresses": (), "key_file": ""}
    staleness = 0 if colocated else cfg.max_staleness
    trainer, rollout = retrained(cfg.trainer, ranks), cfg.rollout.model_copy(update=changes)
    return cfg.model_copy(update={"trainer": trainer, "rollout": rollout, "max_staleness": staleness, "stages": stages})


def _with_phi(stage: Stage, phi: int) -> Stage:
    return stage.model_copy(update={"budget": stage.budget.model_copy(update={"phi": max(phi, 1)})})


def retrained(trainer: Trainer, ranks: int) -> Trainer:
    """`trainer` on `ranks` ranks; expert parallelism shrinks to a common divisor."""
    parallel = trainer.parallel.model_copy(update={"expert": math.gcd(ranks, trainer.parallel.expert)})
    return trainer.model_copy(update={"ranks": ranks, "parallel": parallel})
