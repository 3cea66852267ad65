"""The trained policy: accelerate and DeepSpeed around a PolicyModule, one code path from one CPU process up.

Invariants: a step's gradient is the sum over its trained tokens of weight x term, over all microbatches and
ranks; DeepSpeed's own divisions (by ranks, by accumulation steps) are undone here and nowhere else.
The seam for expert parallelism is `_initialize`.
"""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DummyOptim
from transformers import PreTrainedTokenizerBase
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ringrl.config.sections import Optimizer, Trainer
from ringrl.errors import DataError
from ringrl.policy.check import check_forward
from ringrl.policy.checkpoint import SHARD_BYTES, Writer, to_universal, values
from ringrl.policy.deepspeed_internals import RedirectedSaving, separate_steps
from ringrl.policy.experts import shard_experts, weight_buckets
from ringrl.policy.forward import PolicyModule, TokenStats, load_lm, to_device
from ringrl.policy.ranks import Ranks
from ringrl.run import FORM
from ringrl.types import MicroBatch

Routes = Sequence[torch.Tensor]  # [rows] of [layers, B L, top_k] integer expert ids
FUSED, SHARDS = "fused", "shards"  # how a rank holds experts: all of them in transformers' own module, or its share in
# that of ringrl.policy.experts, which a run keeps if it is resumed with fewer ranks
WRITE_S = 3600.0  # deadline for all ranks' files of a checkpoint
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
        self.generation = Path(model) / "generation_config.json"
        self.experts, self.universal = SHARDS if trainer.parallel.expert > 1 else FUSED, False
        if resume:
            layout = saved_layout(resume, trainer)
            self.experts = layout["experts"]
            # DeepSpeed must know when it is built whether it will read converted trainer states: after a resume on
            # other ranks, a rollback converts this run's own checkpoints too
            self.universal = (layout["ranks"], layout["expert"]) != (ranks.size, trainer.parallel.expert)
        module = load_module(model, trainer, ranks, self.experts, temperature)
        self.packing = trainer.packing and module.packs
        if freeze_router:
            for router in module.routers.modules:
                router.requires_grad_(False)
        self.engine = _initialize(module, trainer, optimizer, self.universal)
        self.device = self.engine.device
        self.writer = Writer(ranks.rank, ranks.size, WRITE_S)
        self.engine.checkpoint_engine = RedirectedSaving(self.writer.file)

    @property
    def module(self) -> PolicyModule:
        return self.engine.module

    @torch.no_grad()
    def inspect(self, rows: list[MicroBatch], routes: Routes = ()) -> list[TokenStats]:
        """Statistics of every microbatch under the current weights, without a graph."""
        self.engine.eval()
        by_row = zip(rows, _routes_by_row(routes, rows), strict=True)
        return [self.engine(to_device(mb, self.device), forced) for mb, forced in by_row]

    def update(self, rows: list[MicroBatch], terms: TermsFn, lr: float, routes: Routes = ()) -> float:
        """One optimizer step on the sum of weight x terms over all rows of all ranks.

        Without a trained token on any rank nothing moves, neither weights nor optimizer states: momentum and weight
        decay would else go on without a gradient.

        Args:
            routes: for each row the experts that all its tokens must take; empty: the routers choose.

        Returns:
            The global gradient norm before clipping; 0 when nothing moved.
        """
        trained = torch.tensor(sum(int(row.trained.sum()) for row in rows), device=self.device)
        if not self.ranks.sum(trained):
            for i, (row, stats) in enumerate(zip(rows, self.inspect(rows, routes), strict=True)):
                terms(to_device(row, self.device), stats, i)
            return 0.0
        self.engine.train()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        for i, (row, forced) in enumerate(zip(rows, _routes_by_row(routes, rows), strict=True)):
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
            unfinished: rank 0's rollouts that are not trained on yet, as JSON values and arrays; the function of
                that name reads them.
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
            if self.generation.is_file():  # as it is: transformers refuses to write some that it reads
                shutil.copyfile(self.generation, writer.part / self.generation.name)
            else:
                lm.generation_config.save_pretrained(writer.part)
            self.tokenizer.save_pretrained(writer.part)
            writer.model(buckets)
            layout = {"ranks": self.ranks.size, "experts": self.experts, **self.trainer.parallel.model_dump()}
            writer.text("trainer/state.json", json.dumps({"layout": {"form": FORM, **layout}, **state}))
            writer.values("trainer/unfinished.safetensors", unfinished)
        self.engine.save_checkpoint(str(writer.part / "trainer"), tag="engine")
        writer.values(f"trainer/rng_{self.ranks.rank}.safetensors", rng_state())

    def settle(self) -> None:
        """Wait until the last checkpoint is there. A collective."""
        self.writer.settle()
        self.ranks.barrier()

    def restore(self, folder: Path) -> dict[str, Any]:
        """Continue from a folder that `save` wrote. A collective.

        Raises:
            DataError: a file has something else in it than `save` writes.
        """
        state = json.loads((folder / "trainer" / "state.json").read_text())
        del state["layout"]
        if self.universal and self.ranks.main:
            to_universal(folder, self.trainer.parallel.zero)
        self.ranks.barrier()
        # a checkpoint names the groups of ranks that shared experts out then
        names = [{k: v for k, v in group.items() if k == "name"} for group in self.engine.optimizer.param_groups]
        try:
            self.engine.load_checkpoint(str(folder / "trainer"), tag="universal" if self.universal else "engine")
        except pickle.UnpicklingError as e:
            named = re.search(r"GLOBAL (\S+)", str(e))
            raise DataError(f"{folder}/trainer: got {named[1] if named else e} in a file of DeepSpeed's, expected "
                            f"tensors, and nothing that could run code") from None  # fmt: skip
        for group, name in zip(self.engine.optimizer.param_groups, names, strict=True):
            group.update(name)
        separate_steps(self.engine)
        rng = folder / "trainer" / f"rng_{self.ranks.rank}.safetensors"
        if rng.is_file():  # else there are more ranks than before
            set_rng_state(values(rng))
        return state


def saved_layout(folder: Path, trainer: Trainer) -> dict[str, Any]:
    """How a checkpoint lies on ranks, which a policy that continues from it must know before it is built.

    Raises:
        DataError: the checkpoint cannot be continued with these settings.
    """
    layout = json.loads((folder / "trainer" / "state.json").read_text())["layout"]
    if layout["experts"] not in (FUSED, SHARDS):
        raise DataError(f"{folder}: got experts in the form {layout['experts']}, expected {FUSED} or {SHARDS}; start a "
                        f"new run with model: {folder}")  # fmt: skip
    now = {"zero": trainer.parallel.zero, "expert": layout["expert"]}
    if layout["experts"] == FUSED:
        now["expert"] = trainer.parallel.expert
    for key in now:
        if now[key] != layout[key]:
            raise DataError(f"trainer.parallel.{key}: got {now[key]}, expected {layout[key]}, with which {folder} was "
                            f"saved; or start a new run with model: {folder}")  # fmt: skip
    return layout


def load_module(path: str, trainer: Trainer, ranks: Ranks, experts: str, temperature: float) -> PolicyModule:
    """The model in `path`, checked, with this rank's experts only when they are SHARDS. A collective.

    Raises:
        DataError: its forward pass in training would not be the model's own.
    """
    module = PolicyModule(load_lm(path, trainer.dtype, trainer.attention), temperature)
    if trainer.recompute:
        module.lm.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    ranks.wait_for_main(lambda: check_forward(module, trainer, path))
    if experts == SHARDS:
        shard_experts(module.lm, trainer.parallel.expert, ranks.size)
    return module


def unfinished(folder: Path) -> Any:
    """What `Policy.save` was given of that name, with lists for tuples."""
    return values(folder / "trainer" / "unfinished.safetensors")


def _initialize(module: PolicyModule, trainer: Trainer, optimizer: Optimizer, universal: bool) -> Any:
    cpu = not torch.cuda.is_available()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.clip_norm,
        "bf16": {"enabled": trainer.dtype == "bfloat16", "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},  # the sum over microbatches, whatever the model's dtype
        # under stage 1 that sum goes over the ranks as it is; the other stages send each microbatch's gradients
        "communication_data_type": "fp32" if trainer.parallel.zero == 1 or trainer.dtype == "float32" else "bf16",
        "zero_optimization": {
            "stage": trainer.parallel.zero,
            "stage3_gather_16bit_weights_on_model_save": False,
            **_offload(trainer.parallel.offload, pinned=not cpu),
        },
        "zero_allow_untested_optimizer": True,
        # torch's AdamW: DeepSpeed's own, for GPUs and for offloading, are compiled where they run, with nvcc or g++
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.lr,
                "betas": list(optimizer.betas),
                "weight_decay": optimizer.weight_decay,
                "torch_adam": True,
                # one kernel for a step, also of what is offloaded; its last digits differ from those of a run on CPUs
                "fused": not cpu,
            },
        },
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
    }
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    trained = [p for p in module.parameters() if p.requires_grad]
    params = DummyOptim(trained, lr=optimizer.lr, weight_decay=optimizer.weight_decay)
    engine, _ = accelerator.prepare(module, params)
    unset_hf_deepspeed_config()  # else models that are loaded later, the reference's and the sampler's, are sharded too
    return engine


def _offload(what: str, pinned: bool) -> dict[str, Any]:
    to_host = {"device": "cpu", "pin_memory": pinned}
    keys = {"none": (), "optimizer": ("offload_optimizer",), "parameters": ("offload_optimizer", "offload_param")}
    return {key: dict(to_host) for key in keys[what]}


def _routes_by_row(routes: Routes, rows: list[MicroBatch]) -> Sequence[torch.Tensor | None]:
    return routes or [None] * len(rows)


def rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state().numpy() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "torch": torch.get_rng_state().numpy(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(torch.tensor(state["torch"]))
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"]))
