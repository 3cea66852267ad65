"""A command as one object: all that the command line, the launcher, `ringrl plan` and the pipeline ask of it.

`ringrl.commands.table` has them all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ringrl.config.load import Knobs, dump
from ringrl.config.sections import Rollout, Source, Trainer
from ringrl.launch.machine import started_by_others
from ringrl.plan.report import Section
from ringrl.plan.timing import Assumed

C = TypeVar("C", bound=Knobs)


@dataclass(frozen=True)
class WorkerSpec:
    """What the vLLM workers of a command must be able to do."""

    model: str
    rollout: Rollout
    max_total_tokens: int
    routes: bool = False  # tell which experts they took
    ahead: bool = False  # sample while the ranks train

    def worker(self, authkey: str, host: str = "127.0.0.1", port: int = 0, name: str = "") -> dict[str, Any]:
        """The specification that a worker reads, but for the file that it writes its address to.

        Args:
            name: this host's, for a controller elsewhere.
        """
        same = [
            "dtype",
            "concurrent",
            "tensor_parallel",
            "kv_cache_mib",
            "gpu_memory",
            "update_deadline_s",
            "in_flight",
        ]
        return {
            **{key: getattr(self.rollout, key) for key in same},
            "shared": self.rollout.colocated,
            "model": self.model,
            "max_total_tokens": self.max_total_tokens,
            "routes": self.routes,
            "authkey": authkey,
            "host": host,
            "port": port,
            "name": name,
        }


@dataclass(frozen=True)
class Needs:
    """What a command must be given, and the processes that it takes."""

    parent: str  # where the run comes from, for lineage.json
    sources: tuple[Source, ...] = ()
    model: str = ""  # the folder whose weights and tokenizer the ranks load; none when workers load it, or a server
    trainer: Trainer | None = None  # none: one rank, which trains nothing and needs no GPU
    launches: tuple[WorkerSpec | None, ...] = (None,)  # one after the other, each with the workers that it samples with


@dataclass(frozen=True)
class Command(Generic[C]):
    """The functions are given a checked configuration."""

    name: str
    help: str
    config: type[C]
    key: str  # of its configuration, which no other command's has
    arithmetic: Callable[[C], list[str]]  # lines that --dry-run and a launch show
    plan: Callable[[C, Assumed, int], Iterator[Section]]  # laid out on that many GPUs, 0 = as it says
    main: str = ""  # module with `main(context) -> exit code`, which the ranks import; none if it has no ranks
    needs: Callable[[C], Needs] | None = None  # raises DataError when a model folder is not one
    check: Callable[[C], None] | None = None  # of the data; raises UserError
    show: Callable[[Path, bool], None] | None = None  # tells the terminal of a finished run, with a report or without
    starter: str = ""  # module with `start(command, cfg, resume)`, called in the command line's process; by default the
    # launcher's or, where torchrun has started this process, a rank's

    def start(self, cfg: C, resume: bool) -> int:
        """To the end. Returns the exit code; raises UserError."""
        usual = "ringrl.launch.torchrun" if started_by_others() else "ringrl.launch.start"
        return importlib.import_module(self.starter or usual).start(self, cfg, resume)

    def describe(self, cfg: C) -> str:
        """What --dry-run prints: the configuration as YAML, then the arithmetic as comments."""
        return dump(cfg) + "\n".join(f"# {line}" for line in self.arithmetic(cfg))
