"""One process that trains two updates and says what it allocated, as JSON; `test_memory.py` starts it.

Weights, gradients, AdamW's states: from the tensors. Activations: the storages that autograd saves in forward. Peaks:
from the CPU allocator's own events in the second update, as the states are made in the first; DeepSpeed's bucket is
known by its size, where it has one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from ringrl.algo.pack import TokenSequence, pack
from ringrl.config.commands import RLConfig
from ringrl.config.load import load
from ringrl.data.chat import load_tokenizer
from ringrl.policy.engine import Policy
from ringrl.policy.objective import score_rows, update
from ringrl.policy.ranks import Ranks


def main(spec: dict[str, Any]) -> None:
    cfg = load(RLConfig, spec["config"])
    torch.manual_seed(0)
    tokenizer = load_tokenizer(spec["tokenizer"], cfg.prompting)
    policy = Policy(cfg.model, tokenizer, cfg.trainer, cfg.optimizer, 1.0, Ranks(600.0))
    vocab = policy.module.config.vocab_size
    sequences = [
        TokenSequence(tuple(torch.randint(0, vocab, (n,)).tolist()), (False,) * 8 + (True,) * (n - 8), 1e-4, 1.0)
        for n in spec["lengths"]
    ]
    rows = pack(sequences, 1, cfg.trainer.microbatch_tokens, cfg.trainer.packing)[0]
    before = score_rows(policy, cfg.loss, None, rows, torch.zeros(0, 1))

    def one() -> None:
        update(policy, cfg.loss, before, 1e-5, 0.0)

    found = tensors(policy, one)
    step = policy.engine.step

    def marked() -> None:
        with torch.profiler.record_function("step"):
            step()

    policy.engine.step = marked
    found |= peaks(*record(one, spec["bucket"]), spec["bucket"])
    policy.engine.step = step
    folder = Path(spec["folder"]) / "step_000001"
    policy.save(folder, {})
    policy.settle()
    found["model_files"] = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    found["trainer_files"] = sum(f.stat().st_size for f in (folder / "trainer" / "engine").rglob("*"))
    found["tokens"] = max(mb.inputs.numel() for mb in rows)
    Path(spec["result"]).write_text(json.dumps(found))
    policy.ranks.close()


def tensors(policy: Policy, one_update: Any) -> dict[str, Any]:
    """Bytes of what the first update makes and needs."""
    parameters = list(policy.module.parameters())
    weights = storages(parameters)
    saved: dict[int, int] = {}
    gradients: dict[int, int] = {}
    largest = 0
    backward, step = policy.engine.backward, policy.engine.step

    def keep(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in weights:
            saved.update(storages([t]))
        return t

    def before_backward(*args: Any, **kwargs: Any) -> Any:
        nonlocal largest
        largest = max(largest, sum(saved.values()))
        backward(*args, **kwargs)
        saved.clear()

    def before_step() -> None:
        lists = getattr(policy.engine.optimizer, "averaged_gradients", {}).values()
        gradients.clear()  # what counts is the last microbatch
        gradients.update(storages([g for part in lists for g in part or ()]))
        gradients.update(storages(sums))
        gradients.update(storages([p.grad for p in parameters if p.grad is not None]))
        step()

    outer = policy.engine.optimizer
    sums = getattr(outer, "fp32_groups_gradients_flat", [])  # of bfloat16 gradients, from the start
    policy.engine.backward, policy.engine.step = before_backward, before_step
    with saved_tensors_hooks(keep, lambda t: t):
        one_update()
    policy.engine.backward, policy.engine.step = backward, step
    masters = outer.fp32_groups_flat_partition if sums else outer.single_partition_of_fp32_groups
    states = [t for slot in outer.optimizer.state.values() for t in slot.values() if torch.is_tensor(t)]
    return {
        "weights": sum(weights.values()),
        "gradients": sum(gradients.values()),
        "optimizer": sum(storages([*states, *masters]).values()),
        "activations": largest,
        "sums": sum(storages(sums).values()),
    }


def storages(found: list[Any]) -> dict[int, int]:
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}


def record(one_update: Any, bucket: int) -> tuple[list[int], int]:
    """Bytes that an update takes and gives back (negative), in order, and how many come before its last `step`.

    The profiler loses an event now and then, often on a busy machine: what seems to be kept tells, and another
    update is recorded.
    """
    for _ in range(9):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorded:
            one_update()
        events = sorted(recorded.profiler.kineto_results.events(), key=lambda e: e.start_ns())
        step = max(e.start_ns() for e in events if e.name() == "step")
        memory = [e for e in events if e.name() == "[memory]"]
        found = [e.nbytes() for e in memory]
        if abs(sum(found)) < 0.1 * max(n for n in found if n != bucket):
            return found, sum(e.start_ns() < step for e in memory)
    raise RuntimeError("the profiler lost events of 9 updates")


def peaks(events: list[int], before: int, bucket: int) -> dict[str, int]:
    """Most bytes above the start: outside the bucket in the `before` events before the step, and in it."""
    now, passes, step, held = 0, 0, 0, 0
    for i, n in enumerate(events):
        held += n if abs(n) == bucket else 0
        now += n
        passes = max(passes, now - held) if i < before else passes
        step = max(step, now) if i >= before else step
    return {"passes": passes, "step": step}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
