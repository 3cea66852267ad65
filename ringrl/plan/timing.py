"""Tokens, FLOPs, bytes and seconds of a step, from the configuration, a GPU's peaks and stated assumptions.

    a training pass takes   FLOPs / (ranks x peak x mfu)          FLOPs that recompute adds count
    a decoding step takes   max(bytes / (tp x bandwidth x eff), FLOPs / (tp x peak x mfu))
                            bytes = weights outside experts + experts that some sequence takes + keys and values

Of E experts a batch of B sequences takes E (1 - (1 - k/E)^B), were routing uniform. All responses count as long as the
mean, which is too kind twice: attention is quadratic, and a batch waits for its longest response. The second has a line
of its own, a response of `max_total_tokens` decoded alone, which the rollout cannot beat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ringrl.config.commands import RLConfig, SFTConfig, Stage
from ringrl.config.sections import Rollout, Trainer
from ringrl.plan.hardware import NETWORK, NODE, Gpu
from ringrl.plan.memory import low_bytes, worker_memory
from ringrl.plan.shape import Shape


@dataclass(frozen=True)
class Assumed:
    """What no configuration says."""

    gpu: Gpu
    mfu: float  # share of the peak FLOP/s
    bandwidth: float  # share of the peak memory bandwidth while decoding
    prompt: float  # mean tokens
    response: float  # mean tokens; 0 = half of what max_total_tokens leaves
    rows: int  # of every data source that is not here

    def prompt_of(self, max_total_tokens: int) -> float:
        return min(self.prompt, max_total_tokens / 2)

    def response_of(self, max_total_tokens: int) -> float:
        room = max_total_tokens - self.prompt_of(max_total_tokens)
        return min(self.response, room) if self.response else room / 2


@dataclass(frozen=True)
class Decoding:
    """A batch of responses on all workers."""

    sequences: float  # decoded together by one worker
    cached: int  # tokens that fit into its cache
    step_bytes: float  # read in a decoding step
    step_flops: float
    step_s: float
    bound: str  # "memory" or "compute"
    prefill_s: float
    bulk_s: float  # all tokens, with full batches
    tail_s: float  # the longest response, alone
    flops: float  # in all

    @property
    def seconds(self) -> float:
        return self.prefill_s + max(self.bulk_s, self.tail_s)


def decode(
    shape: Shape, rollout: Rollout, workers: int, prompts: float, samples: int, longest: int, a: Assumed
) -> Decoding:
    """`prompts` x `samples` responses. A prompt is read once and cached for all of its samples."""
    tp, prompt, response = rollout.tensor_parallel, a.prompt_of(longest), a.response_of(longest)
    memory = worker_memory(shape, rollout, a.gpu.memory * 1e9)
    each = prompts * samples / workers
    together = max(min(rollout.concurrent, each, memory.tokens / (prompt + response)), 1.0)
    bytes_, flops, seconds, bound = decode_step(shape, rollout, together, prompt + response / 2, a)
    alone = decode_step(shape, rollout, 1.0, longest / 2, a)[2]
    peak = workers * tp * a.gpu.tflops * 1e12 * a.mfu
    prefill = prompts * sum(shape.cost.forward([prompt], 1))
    steps = max(each, 1.0) * response / together
    return Decoding(
        together, memory.tokens, bytes_, flops, seconds, bound, prefill / peak, steps * seconds,
        (longest - prompt) * alone, prefill + flops * steps * workers,
    )  # fmt: skip


def decode_step(
    shape: Shape, rollout: Rollout, batch: float, context: float, a: Assumed
) -> tuple[float, float, float, str]:
    """Bytes read, FLOPs, seconds, and which of the two bounds them, for one token of each of `batch` sequences."""
    low, tp = low_bytes(rollout.dtype), rollout.tensor_parallel
    taken = shape.experts * (1 - (1 - shape.top_k / shape.experts) ** batch) if shape.experts else 0.0
    looked_up = 0 if shape.tied else shape.vocab * shape.hidden
    weights = shape.outside - looked_up + shape.moe_layers * taken * shape.expert
    cache = batch * context * shape.attention.cached * shape.layers
    read = (weights + cache) * low
    cost = shape.cost
    flops = batch * (2 * (cost.layers + cost.head) + cost.pair * context)
    by_memory = read / (tp * a.gpu.bandwidth * 1e9 * a.bandwidth)
    by_compute = flops / (tp * a.gpu.tflops * 1e12 * a.mfu)
    return read, flops, max(by_memory, by_compute), "memory" if by_memory >= by_compute else "compute"


@dataclass(frozen=True)
class Training:
    """FLOPs of the passes of the updates on one rollout batch, or of one SFT step."""

    tokens: float  # trained
    seen: float  # with their prompts
    old: float
    reference: float
    update: float  # all that are computed

    @property
    def flops(self) -> float:
        return self.old + self.reference + self.update


def sft_training(shape: Shape, cfg: SFTConfig, a: Assumed) -> Training:
    """Of a step."""
    tokens = cfg.batch_examples * a.response_of(cfg.max_tokens)
    return _passes(shape, tokens, cfg.max_tokens, cfg.trainer, a, cfg.balance > 0, False)


def rl_training(shape: Shape, cfg: RLConfig, stage: Stage, a: Assumed) -> Training:
    """Of a rollout batch."""
    sampled = stage.prompts * stage.samples * a.response_of(stage.max_total_tokens)
    tokens = min(cfg.step_phi(stage), sampled) if cfg.budgeted else sampled
    best = cfg.budgeted and stage.budget.order == "informative"
    share = cfg.loss.balance > 0 and cfg.loss.balance_over == "batch" and shape.experts > 0
    counted = cfg.loss.old_logprobs == "trainer" or cfg.loss.router_replay == "trainer" or share or best
    old = counted * (1 / min(stage.budget.keep) if best else 1.0)
    return _passes(shape, tokens, stage.max_total_tokens, cfg.trainer, a, old, cfg.loss.kl > 0)


def _passes(
    shape: Shape, tokens: float, longest: int, trainer: Trainer, a: Assumed, old: float, reference: bool
) -> Training:
    """`old`: how often all tokens are scored before the update."""
    response = a.response_of(longest)
    count, length = tokens / response, a.prompt_of(longest) + response
    once = sum(shape.cost.forward([length], response)) * count
    update = shape.cost.update([length], response, trainer.recompute)[1] * count
    return Training(tokens, count * length, old * once, reference * once, update)


@dataclass(frozen=True)
class StepCost:
    """One rollout batch: sampled, trained on, synced."""

    decoding: Decoding
    training: Training
    train_s: float
    sync_bytes: float
    sync_s: float
    seconds: float
    gpus: int


def rl_step(shape: Shape, cfg: RLConfig, stage: Stage, a: Assumed) -> StepCost:
    workers = len(cfg.rollout.addresses) or cfg.rollout.workers
    sampling = workers * cfg.rollout.tensor_parallel
    gpus = max(cfg.trainer.ranks, sampling) if cfg.rollout.colocated else cfg.trainer.ranks + sampling
    d = decode(shape, cfg.rollout, workers, stage.prompts, stage.samples, stage.max_total_tokens, a)
    t = rl_training(shape, cfg, stage, a)
    train_s = t.flops / rank_speed(cfg.trainer.ranks, a)
    sync = shape.total * low_bytes(cfg.trainer.dtype)
    speed = a.gpu.bandwidth if cfg.rollout.colocated else a.gpu.link if gpus <= NODE else min(NETWORK, a.gpu.link)
    sync_s = sync / (speed * 1e9)
    both = max(d.seconds, train_s) if cfg.max_staleness else d.seconds + train_s
    return StepCost(d, t, train_s, sync, sync_s, both + sync_s, gpus)


def rank_speed(ranks: int, a: Assumed) -> float:
    """FLOP/s of all ranks."""
    return ranks * a.gpu.tflops * 1e12 * a.mfu


def balanced(shape: Shape, cfg: RLConfig, stage: Stage, a: Assumed) -> float:
    """GPUs that sample for every GPU that trains, for both to take equally long, were all responses equally long."""
    step = rl_step(shape, cfg, stage, a)
    workers = len(cfg.rollout.addresses) or cfg.rollout.workers
    sampling_s = (step.decoding.prefill_s + step.decoding.bulk_s) * workers * cfg.rollout.tensor_parallel
    return sampling_s / (step.train_s * cfg.trainer.ranks)


def laid_out(shape: Shape, cfg: RLConfig, gpus: int, a: Assumed) -> RLConfig:
    """`cfg` on so many GPUs, split between ranks and workers for the fastest first stage; too few are shared."""
    tp, unit, stage = cfg.rollout.tensor_parallel, cfg.trainer.parallel.expert, cfg.stages[0]
    if cfg.rollout.colocated or gpus < unit + tp:
        return resized(cfg, gpus, max(gpus // tp, 1), True)
    most = stage.prompts * stage.samples // cfg.updates
    splits = range(unit, min(gpus - tp, most) + 1, unit)
    options = (resized(cfg, ranks, (gpus - ranks) // tp, False) for ranks in splits)
    return min(options, key=lambda c: rl_step(shape, c, c.stages[0], a).seconds)


def resized(cfg: RLConfig, ranks: int, workers: int, colocated: bool) -> RLConfig:
    """On other numbers of processes. A Φ per rank is divided anew, so that a step's tokens stay."""
    stages = tuple(_with_phi(s, cfg.step_phi(s) // ranks) if s.budget.scope == "rank" else s for s in cfg.stages)
    to = {"workers": workers, "colocated": colocated, "addresses": (), "key_file": ""}
    ahead = 0 if colocated else cfg.max_staleness
    trainer, rollout = retrained(cfg.trainer, ranks), cfg.rollout.model_copy(update=to)
    return cfg.model_copy(update={"trainer": trainer, "rollout": rollout, "max_staleness": ahead, "stages": stages})


def _with_phi(stage: Stage, phi: int) -> Stage:
    return stage.model_copy(update={"budget": stage.budget.model_copy(update={"phi": max(phi, 1)})})


def retrained(trainer: Trainer, ranks: int) -> Trainer:
    """On another number of ranks, expert-parallel as far as that divides them."""
    parallel = trainer.parallel.model_copy(update={"expert": math.gcd(ranks, trainer.parallel.expert)})
    return trainer.model_copy(update={"ranks": ranks, "parallel": parallel})
