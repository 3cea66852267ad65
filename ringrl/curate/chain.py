"""The chain: reading, then the steps that the configuration names, each from the shards of the one before.

A step is a module with `prepare(cfg, before, after, over)`, which looks at all shards if it must and returns a
`ShardStep`; that is then called for every shard, in any process and order. What a step needs from a model is sampled
before it is prepared, teacher by teacher, into `after.work`: one *phase* per teacher, so that the launcher can start
its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ringrl.config.data import DataConfig, Sampled, Teacher
from ringrl.curate.shards import Dropped, Row, Shards

A = TypeVar("A")
T = TypeVar("T")


class ShardStep(Protocol):
    """Picklable. Gives every row of a shard back or drops it, with the rows' order kept; a step on responses may drop
    some of these besides."""

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterable[Row | Dropped]: ...


class MapShards(Protocol):
    """A function over items in all processes, results as they come, with a name for the user; see Workers.map. `here`:
    in this process, in order, for what must not be there once per process, as a model on a GPU.

    Raises:
        Interrupted: the user wants to stop.
    """

    def __call__(
        self, name: str, function: Callable[[A], T], items: Sequence[A], in_process: bool = False
    ) -> Iterator[tuple[A, T]]: ...


class PrepareStep(Protocol):
    """The first half of a step. Raises UserError for what the user can fix."""

    def __call__(self, cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> ShardStep: ...


class Interrupted(Exception):
    """What is finished is kept."""


@dataclass(frozen=True)
class Phase:
    """A part of the chain that one process works off: a step, or the sampling of one teacher for it."""

    index: int  # of the step; 0 reads
    step: str
    teacher: Teacher | None
    before: Shards | None  # what the step reads; none when it reads the sources
    shards: Shards  # what it writes

    @property
    def done_file(self) -> Path:
        """Written last; a teacher's has its seconds of sampling in it."""
        return self.shards.work / f"{self.teacher.name}.done" if self.teacher else self.shards.folder / "summary.json"

    @property
    def engine(self) -> Teacher | None:
        """Who must be sampled with workers of ours."""
        return self.teacher if self.teacher and not self.teacher.server.base_url else None


def phases(cfg: DataConfig) -> list[Phase]:
    """All, in their order."""
    out: list[Phase] = []
    for i, step in enumerate(("read", *cfg.steps)):
        before = out[-1].shards if out else None
        shards = Shards(Path(cfg.run) / "steps" / f"{i}_{step}")
        out += [Phase(i, step, teacher, before, shards) for teacher in (*sampled(cfg, step).teachers, None)]
    return out


def unfinished(cfg: DataConfig) -> list[Phase]:
    return [phase for phase in phases(cfg) if not phase.done_file.is_file()]


def sampled(cfg: DataConfig, step: str) -> Sampled:
    """Whose answers a step needs, and how they are sampled; no teachers if it needs none."""
    if step == "annotate":
        section, teacher = cfg.annotate, cfg.annotate.teacher
        # the suffixes of the domains ask to solve the problem
        suffix = {**dict.fromkeys(cfg.known_domains, ""), **section.prompting.suffix}
        return Sampled(teachers=(teacher,) if teacher else (), samples=1, temperature=0.0,
                       prompting=section.prompting.model_copy(update={"suffix": suffix}),
                       max_total_tokens=section.max_total_tokens)  # fmt: skip
    steps: dict[str, Sampled] = {"grade": cfg.grade, "distil": cfg.distil}
    return steps.get(step, Sampled())
