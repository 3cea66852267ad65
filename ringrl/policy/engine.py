"""The trained policy: accelerate and DeepSpeed around a PolicyModule, one code path from one CPU process up.

Invariants: a step's gradient is the sum over its trained tokens of weight x term, over all microbatches and
ranks; DeepSpeed's own divisions (by ranks, by accumulation steps) are undone here and nowhere else.
The seam for expert parallelism is `_initialize`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DummyOptim
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ringrl.config.sections import Optimizer, Trainer
from ringrl.errors import DataError
from ringrl.policy import autoep
from ringrl.policy.checkpoint import SHARD_BYTES, Writer, check, to_universal
from ringrl.policy.experts import fused_blocks, shard_experts, weight_buckets
from ringrl.policy.forward import PolicyModule, TokenStats, load_lm
from ringrl.policy.ranks import Ranks
from ringrl.types import MicroBatch

Routes = Sequence[torch.Tensor]  # [rows] of [layers, B L, top_k] integer expert ids
FUSED, SHARDS, AUTOEP = "fused", "shards", "autoep"  # how a rank holds experts: all in transformers' own module; its
# share in ringrl.policy.experts', which a run keeps if it is resumed with fewer ranks; its share in DeepSpeed's
WRITE_S = 3600.0  # for a checkpoint
TermsFn = Callable[[MicroBatch, TokenStats, int], torch.Tensor]  # (microbatch, its stats, its index) -> [n] loss terms


class Policy:
    """A model being trained.

    `inspect(rows)` is a forward pass without gradient; `update(rows, terms, lr)` is one optimizer step.
    """

    def __init__(
        self,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        trainer: Trainer,
        optimizer: Optimizer,
        temperature: float,
        ranks: Ranks,
        freeze_router: bool = False,
        resume: Path | None = None,  # the checkpoint that `restore` will be called with
    ) -> None:
        self.ranks, self.trainer, self.tokenizer = ranks, trainer, tokenizer
        self.experts = saved_experts(resume, trainer) if resume else experts_of(trainer)
        module = PolicyModule(load_part(model, trainer, ranks, self.experts), temperature)
        if trainer.recompute:
            module.lm.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        if freeze_router:
            for router in module.routers.modules:
                router.requires_grad_(False)
        self.engine = _initialize(module, trainer, optimizer, ranks)
        self.device = self.engine.device
        self.writer = Writer(ranks.rank, ranks.size, WRITE_S)
        self.engine.checkpoint_engine.save = lambda state_dict, path: self.writer.file(path, state_dict)

    @property
    def module(self) -> PolicyModule:
        return self.engine.module

    @torch.no_grad()
    def inspect(self, rows: list[MicroBatch], routes: Routes = ()) -> list[TokenStats]:
        """Statistics of every microbatch under the current weights, without a graph."""
        self.engine.eval()
        return [
            self.engine(to_device(mb, self.device), forced)
            for mb, forced in zip(rows, _each(routes, rows), strict=True)
        ]

    def update(self, rows: list[MicroBatch], terms: TermsFn, lr: float, routes: Routes = ()) -> float:
        """One optimizer step on the sum of weight x terms over all rows of all ranks.

        Args:
            routes: for each row the experts that all its tokens must take; empty: the routers choose.

        Returns:
            The global gradient norm before clipping.
        """
        self.engine.train()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        for i, (row, forced) in enumerate(zip(rows, _each(routes, rows), strict=True)):
            mb = to_device(row, self.device)
            stats = self.engine(mb, forced)
            loss = (mb.weights[mb.trained] * terms(mb, stats, i)).sum() + stats.zero
            self.engine.set_gradient_accumulation_boundary(i == len(rows) - 1)
            # DeepSpeed averages over ranks; the weights already are the whole denominator.
            self.engine.backward(loss * self.ranks.size, scale_wrt_gas=False)
            self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def save(
        self,
        folder: Path,
        state: dict[str, Any],
        unfinished: Sequence[Any] = (),
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to write a plain Hugging Face folder with `trainer/` in it; returns when everything is copied.

        `folder` appears only when everything is in it. A collective.

        Args:
            state: JSON values that the loop continues with.
            unfinished: rank 0's rollouts that are not trained on yet; the function of that name reads them.
            then: called on rank 0, from another thread, when the folder is there.

        Raises:
            RingError: the checkpoint before could not be written.
        """
        with self.writer.guard():
            self.writer.begin(folder)
            self.ranks.barrier()
            self._copy(state, unfinished)
        self.writer.end(then)

    def _copy(self, state: dict[str, Any], unfinished: Sequence[Any]) -> None:
        """Everything that a checkpoint holds, to the writer."""
        writer, lm = self.writer, self.module.lm
        buckets = []
        for bucket in weight_buckets(lm, SHARD_BYTES):
            if self.ranks.main:
                buckets.append({n: t.cpu() for n, t in bucket.items()})
        if self.ranks.main:
            lm.config.architectures = [type(lm).__name__]
            lm.config.save_pretrained(writer.part)
            lm.generation_config.save_pretrained(writer.part)
            self.tokenizer.save_pretrained(writer.part)
            writer.model(buckets)
            layout = {"ranks": self.ranks.size, "experts": self.experts, **self.trainer.parallel.model_dump()}
            writer.text("trainer/state.json", json.dumps({"layout": layout, **state}))
            writer.file("trainer/unfinished.pt", unfinished)
        self.engine.save_checkpoint(str(writer.part / "trainer"), tag="engine")
        writer.file(f"trainer/rng_{self.ranks.rank}.pt", _rng_state())

    def settle(self) -> None:
        """Wait until the last checkpoint is there. A collective."""
        self.writer.settle()
        self.ranks.barrier()

    def restore(self, folder: Path) -> dict[str, Any]:
        """Continue from a folder that `save` wrote. A collective."""
        state = json.loads((folder / "trainer" / "state.json").read_text())
        universal = self._is_other(state.pop("layout"))
        if universal and self.ranks.main:
            to_universal(folder, self.trainer.parallel.zero)
        self.ranks.barrier()
        self.engine._config.load_universal_checkpoint = universal
        self.engine.load_checkpoint(str(folder / "trainer"), tag="universal" if universal else "engine")
        if universal:  # DeepSpeed 0.19.8, ZeRO-3: all groups of parameters come back with one step tensor
            for slot in self.engine.optimizer.optimizer.state.values():
                slot["step"] = slot["step"].clone()
        rng = folder / "trainer" / f"rng_{self.ranks.rank}.pt"
        if rng.is_file():  # else there are more ranks than before
            _set_rng_state(torch.load(rng, weights_only=False))
        return state

    def _is_other(self, layout: Mapping[str, Any]) -> bool:
        """Whether the trainer state must be converted for this number of ranks."""
        return (layout["ranks"], layout["expert"]) != (self.ranks.size, self.trainer.parallel.expert)


def experts_of(trainer: Trainer) -> str:
    """How a model that starts now holds experts."""
    if trainer.parallel.implementation == "autoep":
        return AUTOEP
    return SHARDS if trainer.parallel.expert > 1 else FUSED


def saved_experts(folder: Path, trainer: Trainer) -> str:
    """How a checkpoint holds experts, which a policy that continues from it must know before it is built.

    Raises:
        DataError: the checkpoint is damaged, or cannot be continued with these settings.
    """
    check(folder)
    layout = json.loads((folder / "trainer" / "state.json").read_text())["layout"]
    now = {**layout, "zero": trainer.parallel.zero, "implementation": trainer.parallel.implementation}
    if layout["experts"] == FUSED:
        now["expert"] = trainer.parallel.expert
    for key in ("zero", "implementation", "expert"):
        if now[key] != layout[key]:
            raise DataError(f"trainer.parallel.{key}: got {now[key]}, expected {layout[key]}, with which {folder} was "
                            f"saved; or start a new run with model: {folder}")  # fmt: skip
    return layout["experts"]


def load_part(path: str, trainer: Trainer, ranks: Ranks, experts: str) -> PreTrainedModel:
    """The model in `path`, with this rank's experts only when they are SHARDS."""
    lm = load_lm(path, trainer.dtype, trainer.attention)
    if experts == AUTOEP:  # DeepSpeed's engine takes the others away
        fused_blocks(lm, trainer.parallel.expert, ranks.size)
    elif experts == SHARDS:
        shard_experts(lm, trainer.parallel.expert, ranks.size)
    return lm


def unfinished(folder: Path) -> Any:
    """The rollouts that `Policy.save` was given."""
    return torch.load(folder / "trainer" / "unfinished.pt", weights_only=False)


def _initialize(module: PolicyModule, trainer: Trainer, optimizer: Optimizer, ranks: Ranks) -> Any:
    cpu = not torch.cuda.is_available()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.clip_norm,
        "bf16": {"enabled": trainer.dtype == "bfloat16"},
        "zero_optimization": {
            "stage": trainer.parallel.zero,
            "stage3_gather_16bit_weights_on_model_save": False,
            **_offload(trainer.parallel.offload, pinned=not cpu),
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": not cpu,  # with offload; it is a C++ extension too
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.lr,
                "betas": list(optimizer.betas),
                "weight_decay": optimizer.weight_decay,
                "torch_adam": cpu,  # the other one compiles a C++ extension
            },
        },
        "steps_per_print": 10**9,
    }
    own = trainer.parallel.implementation == "experts"
    if not own:
        config["expert_parallel"] = autoep.section(module.lm, trainer.parallel.expert)
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    trained = [p for p in module.parameters() if p.requires_grad]
    params = DummyOptim(trained, lr=optimizer.lr, weight_decay=optimizer.weight_decay)
    engine, _ = accelerator.prepare(module, params)
    if not own:
        module.routers = autoep.AutoEPRouters(module.lm)
    unset_hf_deepspeed_config()  # else models that are loaded later, the reference's and the sampler's, are sharded too
    return engine


def _offload(what: str, pinned: bool) -> dict[str, Any]:
    to_host = {"device": "cpu", "pin_memory": pinned}
    keys = {"none": (), "optimizer": ("offload_optimizer",), "parameters": ("offload_optimizer", "offload_param")}
    return {key: dict(to_host) for key in keys[what]}


def _each(routes: Routes, rows: list[MicroBatch]) -> Sequence[torch.Tensor | None]:
    return routes or [None] * len(rows)


def to_device(mb: MicroBatch, device: torch.device) -> MicroBatch:
    return replace(mb, **{f.name: getattr(mb, f.name).to(device, non_blocking=True) for f in fields(mb)})


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}


def _set_rng_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
