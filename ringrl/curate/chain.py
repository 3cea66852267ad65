"""The chain: reading, then the configured steps, each working on the shards of the step before it.

A step is a module with `prepare(cfg, before, after, over)`, which may look at all shards and returns a `ShardStep`;
that is then called for every shard, in any process and order. Responses that a step needs from models are sampled
before it is prepared, into `after.work`, in one *phase* per teacher so that the launcher can start its workers.
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
    """Picklable. Yields every row of a shard, kept or dropped, in order; a step on responses may also yield dropped
    responses."""

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterable[Row | Dropped]: ...


class MapShards(Protocol):
    """Maps a function over items in all processes and yields results as they finish; see Workers.map. `name` is shown
    to the user. `in_process` runs it here, in order: a model on a GPU must not be loaded once per process.

    Raises:
        Interrupted: the user wants to stop.
    """

    def __call__(
        self, name: str, function: Callable[[A], T], items: Sequence[A], in_process: bool = False
    ) -> Iterator[tuple[A, T]]: ...


class PrepareStep(Protocol):
    """Prepares a step for all shards. Raises UserError for what the user can fix."""

    def __call__(self, cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> ShardStep: ...


class Interrupted(Exception):
    """The user stopped the run; finished shards and answers stay on disk."""


@dataclass(frozen=True)
class Phase:
    """One unit of work of the chain: a step, or the sampling of one teacher for it."""

    index: int  # position of the step; 0 is reading
    step: str
    teacher: Teacher | None
    before: Shards | None  # input of the step; None for reading
    shards: Shards  # output

    @property
    def done_file(self) -> Path:
        """Written last; for a teacher it holds the seconds spent sampling."""
        return self.shards.folder / (f"work/{self.teacher.name}.done" if self.teacher else "summary.json")

    @property
    def engine(self) -> Teacher | None:
        """The teacher if it needs workers of ours, None if a server runs it."""
        return self.teacher if self.teacher and not self.teacher.server.base_url else None


def phases(cfg: DataConfig) -> list[Phase]:
    """All phases in order."""
    out: list[Phase] = []
    for i, step in enumerate(("read", *cfg.steps)):
        before = out[-1].shards if out else None
        shards = Shards(Path(cfg.run) / "steps" / f"{i}_{step}")
        out += [Phase(i, step, teacher, before, shards) for teacher in (*sampled(cfg, step).teachers, None)]
    return out


def unfinished(cfg: DataConfig) -> list[Phase]:
    return [phase for phase in phases(cfg) if not phase.done_file.is_file()]


def sampled(cfg: DataConfig, step: str) -> Sampled:
    """The teachers a step needs and how they are sampled; no teachers if it needs none."""
    if step == "annotate":
        section, teacher = cfg.annotate, cfg.annotate.teacher
        suffix = {**dict.fromkeys(cfg.known_domains, ""), **section.prompting.suffix}  # the default asks for a solution
        return Sampled(teachers=(teacher,) if teacher else (), samples=1, temperature=0.0,
                       prompting=section.prompting.model_copy(update={"suffix": suffix}),
                       max_total_tokens=section.max_total_tokens)  # fmt: skip
    steps: dict[str, Sampled] = {"grade": cfg.grade, "distil": cfg.distil}
    return steps.get(step, Sampled())
