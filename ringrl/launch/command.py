"""A command as one object: what the command line, the launcher, `ringrl plan` and the pipeline need to know of it.

The table of all commands is `ringrl.commands.table`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ringrl.config.load import Knobs, dump
from ringrl.config.sections import Rollout, Source, Trainer
from ringrl.launch.machine import started_by_others
from ringrl.launch.opening import Resume
from ringrl.plan.report import Section
from ringrl.plan.timing import Assumed

C = TypeVar("C", bound=Knobs)


@dataclass(frozen=True)
class WorkerSpec:
    """What a command requires of its vLLM workers."""

    model: str
    rollout: Rollout
    max_total_tokens: int
    routes: bool = False  # report the experts used for each token
    ahead: bool = False  # workers sample while the ranks train

    def worker(self, authkey: str, host: str = "127.0.0.1", port: int = 0, name: str = "") -> dict[str, Any]:
        """The specification that a worker reads; the caller adds the file that receives the worker's address.

        Args:
            name: the name of this host, for a controller on another machine.
        """
        copied = ["dtype", "concurrent", "tensor_parallel", "kv_cache_mib", "gpu_memory", "update_deadline_s",
                  "in_flight"]  # fmt: skip
        return {
            **{key: getattr(self.rollout, key) for key in copied},
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
    """The inputs of a command and the processes that it runs in."""

    parent: str  # origin of the run, for lineage.json
    sources: tuple[Source, ...] = ()
    model: str = ""  # folder whose weights and tokenizer the ranks load; empty if workers or a server do
    models: tuple[str, ...] = ()  # folders of all models that the results depend on
    trainer: Trainer | None = None  # None: a single rank that trains nothing and needs no GPU
    launches: tuple[WorkerSpec | None, ...] = (None,)  # run one after the other, each with its own workers
    isolation: str = ""  # how programs that the data ask for are isolated on this machine; empty: there are none


@dataclass(frozen=True)
class Command(Generic[C]):
    """The functions take a checked configuration."""

    name: str
    help: str
    config: type[C]
    key: str  # configuration key that identifies this command
    arithmetic: Callable[[C], list[str]]  # lines shown by --dry-run and at a launch
    plan: Callable[[C, Assumed, int], Iterator[Section]]  # the integer: GPUs to lay it out on, 0 = as configured
    main: str = ""  # module with `main(context) -> exit code`, imported by the ranks; empty without ranks
    needs: Callable[[C], Needs] | None = None  # raises DataError for a folder that is no model
    check: Callable[[C], Set[str]] | None = None  # checks the data, returns their domains; raises UserError
    show: Callable[[Path], None] | None = None  # prints a finished run
    trains: bool = False  # whether --resume takes --change and --from-checkpoint
    starter: str = ""  # module with `start(command, cfg, resume)`, called in the command line's process; empty: the
    # launcher or, in a process started by torchrun, a rank

    def start(self, cfg: C, resume: Resume | None) -> int:
        """Run the command to its end; `resume`: how to go on with a run that is there, None for a new one. Returns the
        exit code; raises UserError."""
        default = "ringrl.launch.torchrun" if started_by_others() else "ringrl.launch.start"
        return importlib.import_module(self.starter or default).start(self, cfg, resume)

    def describe(self, cfg: C) -> str:
        """What --dry-run prints: the configuration as YAML, then the arithmetic as comments."""
        return dump(cfg) + "\n".join(f"# {line}" for line in self.arithmetic(cfg))
