"""Suggests settings, with numbers, when a rank or a worker does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ringrl.config.sections import Rollout, Trainer
from ringrl.plan.memory import GIB, SPARE, keeps_gradients, rank_memory, worker_memory
from ringrl.plan.shape import Shape

Peak = Callable[[Trainer], float]
MOST_RANKS = 4096


def for_rank(shape: Shape, trainer: Trainer, longest: int, reference: bool, memory: float) -> list[str]:
    """Single settings that make a rank fit into `memory` bytes, or else a combination. Empty if it fits already."""

    def peak(t: Trainer) -> float:
        return rank_memory(shape, t, longest, reference).peak + SPARE

    if peak(trainer) <= memory:
        return []
    lines = [f"a rank needs {peak(trainer) / GIB:.1f} GiB of {memory / GIB:.1f} GiB"]
    sufficient = [(text, t) for text, t in _single(shape, trainer, longest) if peak(t) <= memory]
    lines += [f"{text} alone would do: {peak(t) / GIB:.1f} GiB" for text, t in _first_of_each_key(sufficient)]
    return lines if sufficient else [*lines, _together(shape, trainer, longest, peak, memory)]


def for_worker(shape: Shape, rollout: Rollout, longest: int, memory: float) -> list[str]:
    """Advice when a worker cannot hold its weights and one response of full length. Empty if it can."""
    if worker_memory(shape, rollout, memory).tokens >= longest:
        return []
    short = f"a worker has no room for its weights and {longest:,} tokens of cache"
    for tp in (2 * rollout.tensor_parallel, 4 * rollout.tensor_parallel, 8 * rollout.tensor_parallel):
        worker = worker_memory(shape, _with(rollout, tensor_parallel=tp), memory)
        if worker.tokens >= longest:
            return [f"{short}; rollout.tensor_parallel={tp} would have room for {worker.tokens:,} tokens"]
    return [f"{short}, and splitting it up would not help: rollout.gpu_memory, rollout.kv_cache_mib or a larger GPU"]


def for_cache(rollout: Rollout, cached: int, length: float) -> list[str]:
    """Advice when a worker starts more sequences than its cache holds once they have the mean `length`, in tokens."""
    held = int(cached / length)
    if held < 1 or rollout.concurrent <= held:
        return []
    return [f"rollout.concurrent={rollout.concurrent}: the cache holds {held:,} responses of {length:,.0f} tokens, and "
            f"vLLM would put others aside and compute them again; rollout.concurrent={held}"]  # fmt: skip


def for_shared(
    shape: Shape, trainer: Trainer, rollout: Rollout, longest: int, reference: bool, memory: float
) -> list[str]:
    """Advice when a rank and the colocated worker that samples on its GPU do not fit together. Empty if they do."""
    m = rank_memory(shape, trainer, longest, reference)
    resident = m.resident - m.gradients * (not keeps_gradients(trainer)) + SPARE
    share = rollout.kv_cache_mib * 2.0**20 + shape.total * 2 if rollout.kv_cache_mib else rollout.gpu_memory * memory
    if not rollout.colocated or resident + share <= memory:
        return []
    most = max(int(100 * (1 - resident / memory)), 0) / 100
    return [f"a rank keeps {resident / GIB:.1f} GiB while the worker on its GPU samples with {share / GIB:.1f} GiB of "
            f"{memory / GIB:.1f} GiB; rollout.gpu_memory={most:g} at most"]  # fmt: skip


def _single(shape: Shape, trainer: Trainer, longest: int) -> Iterator[tuple[str, Trainer]]:
    """Variants with one setting changed, the least costly first."""
    if not trainer.recompute:
        yield "trainer.recompute=true", _with(trainer, recompute=True)
    tokens = trainer.microbatch_tokens // 2
    while tokens >= longest:
        yield f"trainer.microbatch_tokens={tokens}", _with(trainer, microbatch_tokens=tokens)
        tokens //= 2
    for expert in range(trainer.parallel.expert + 1, trainer.ranks + 1):
        if shape.experts and shape.experts % expert == 0 and trainer.ranks % expert == 0:
            yield f"trainer.parallel.expert={expert}", _parallel(trainer, expert=expert)
    for zero in (2, 3):
        if zero > trainer.parallel.zero and trainer.ranks > 1:
            yield f"trainer.parallel.zero={zero}", _parallel(trainer, zero=zero)
    if trainer.parallel.offload == "none":
        yield "trainer.parallel.offload=optimizer", _parallel(trainer, offload="optimizer")
    if trainer.parallel.offload != "parameters":
        both = _parallel(trainer, offload="parameters", zero=3)
        yield "trainer.parallel.offload=parameters trainer.parallel.zero=3", both
    ranks = 2 * trainer.ranks
    while ranks <= MOST_RANKS:
        yield f"trainer.ranks={ranks}", _with(trainer, ranks=ranks)
        ranks *= 2


def _first_of_each_key(options: list[tuple[str, Trainer]]) -> list[tuple[str, Trainer]]:
    first: dict[str, tuple[str, Trainer]] = {}
    for text, t in options:
        first.setdefault(text.split("=")[0], (text, t))
    return list(first.values())


def _together(shape: Shape, trainer: Trainer, longest: int, peak: Peak, memory: float) -> str:
    """Changes one setting after the other, each to its limit, until a rank fits; the number of ranks stays."""
    texts: list[str] = []
    for key in ("recompute", "microbatch_tokens", "parallel.expert", "parallel.zero", "parallel.offload"):
        options = [(text, t) for text, t in _single(shape, trainer, longest) if text.startswith(f"trainer.{key}=")]
        options = [(text, t) for text, t in options if peak(t) < peak(trainer)]
        if options:
            text, trainer = next(((x, t) for x, t in options if peak(t) <= memory), options[-1])
            texts.append(text)
        if peak(trainer) <= memory:
            return f"no single setting is enough; together {' '.join(texts)} would do: {peak(trainer) / GIB:.1f} GiB"
    return f"even {' '.join(texts)} needs {peak(trainer) / GIB:.1f} GiB: more ranks, or GPUs with more memory"


def _parallel(trainer: Trainer, **changes: Any) -> Trainer:
    return _with(trainer, parallel=_with(trainer.parallel, **changes))


def _with(knobs: Any, **changes: Any) -> Any:
    return knobs.model_copy(update=changes)
