"""Every knob of ringrl.

Each has a unit and a default with its source: [P] is the Ring-lite paper (arXiv 2506.14731), [ours] a choice of this
project where the paper is silent. Whatever can be computed is a property, not a knob. The loss, its token budget and
the watchdog are in `ringrl.config.loss`; loading is in `ringrl.config.load`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo

from ringrl.config.data import DataConfig
from ringrl.config.load import ON_DEMAND, Knobs, Layout, check
from ringrl.config.loss import Budget, Loss, Watchdog
from ringrl.config.sections import (
    DATE,
    NAME,
    NamesDomains,
    Optimizer,
    Prompting,
    Rollout,
    RunConfig,
    Server,
    Source,
    Trainer,
    Verify,
    each_once,
)
from ringrl.errors import ConfigError

# ---------------------------------------------------------------- sft


class SFTConfig(RunConfig):
    """`ringrl sft`: long-CoT distillation [P §2.1, §4.1.1]."""

    rows = True

    model: str
    seed: int = 0
    data: Source
    validation: Source | None = None  # held-out conversations, whose loss is measured at every checkpoint
    prompting: Prompting = Prompting()
    trainer: Trainer = Trainer()
    optimizer: Optimizer = Optimizer(lr=3e-4, weight_decay=0.1, schedule="cosine", warmup=0.01)  # [P §4.1.1]
    epochs: Annotated[int, ON_DEMAND] = Field(3, ge=1)  # [P §4.1.1]
    batch_examples: int = Field(256, ge=1)  # per optimizer step [P §4.1.1]
    max_tokens: int = Field(32768, ge=2)  # longer examples are dropped and counted [P §4.1.1]
    save_every: Annotated[int, ON_DEMAND] = Field(0, ge=0)  # steps; 0 = once per epoch
    keep_resumable: Annotated[int, ON_DEMAND] = Field(2, ge=1)  # newest checkpoints that --resume can go on from; the
    # optimizer's state of each takes 12 bytes a parameter
    balance: float = Field(0.0, ge=0)  # router load-balance coefficient
    # tokens over which expert shares f are counted; "batch" costs a forward pass, "previous" is one batch late
    balance_over: Literal["batch", "previous"] = "batch"
    z: float = Field(0.0, ge=0)  # router z-loss coefficient

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.data, self.validation) if self.validation else (self.data,)

    @model_validator(mode="after")
    def _check(self) -> SFTConfig:
        if self.trainer.ranks > self.batch_examples:
            raise ValueError(_ranks_message(self.trainer.ranks, "batch_examples", self.batch_examples))
        return self


# ---------------------------------------------------------------- select-ckpt


class SelectConfig(RunConfig):
    """`ringrl select-ckpt`: the checkpoint to start RL from [P §4.3]."""

    model: str  # an SFT run directory, or a folder whose sub-folders are checkpoints
    seed: int = 0
    probe: Source
    prompting: Prompting = Prompting()
    trainer: Trainer = Trainer()
    rollout: Rollout = Rollout()
    verify: Verify = Verify()
    samples: int = Field(8, ge=1)  # responses per probe prompt, at temperature 1.0
    max_total_tokens: int = Field(32768, ge=2)
    band: tuple[float, float] = (0.3, 0.5)  # nats per token [P §4.3.1]: a property of the paper's models
    rule: Literal["entropy-band", "best-score"] = "entropy-band"

    @model_validator(mode="after")
    def _check(self) -> SelectConfig:
        if not self.band[0] < self.band[1]:
            raise ValueError(f"band: lower end {self.band[0]} must be below upper end {self.band[1]}")
        return self


# ---------------------------------------------------------------- rl


class HeldOut(Knobs):
    """A set of prompts evaluated during RL."""

    name: str = Field(pattern=NAME)
    data: Source


class Stage(Knobs):
    """One stage of RL: its data, lengths and steps [P §3.4]."""

    name: str = Field(pattern=NAME)
    data: tuple[Source, ...] = Field(min_length=1)
    steps: Annotated[int, ON_DEMAND] = Field(ge=1)
    prompts: int = Field(512, ge=1)  # L, prompts per rollout batch [P §4.1.1], no more than it has problems
    samples: int = Field(16, ge=2)  # K, responses per prompt [P §4.1.1]
    max_total_tokens: int = Field(24576, ge=2)  # prompt + response [P §4.1.1]
    curriculum: Literal["none", "easy-first", "around-half"] = "none"  # [ours] orders prompts by `pass_rate`, a key
    # that the grade step of `ringrl data` writes
    budget: Budget = Budget()


class Record(Layout):
    """rollouts/step_*.npz: every response of a rollout batch as arrays (`ringrl.rl.bundle`), 9 bytes a token."""

    every: int = Field(1, ge=0)  # steps from one file to the next; 0 = none
    keep: int = Field(0, ge=0)  # newest files; 0 = all


class RLConfig(RunConfig):
    """`ringrl rl`: C3PO in stages [P §3]."""

    rows = True

    model: str
    seed: int = 0
    stages: Annotated[tuple[Stage, ...], AfterValidator(each_once)] = Field(min_length=1)
    held_out: Annotated[tuple[HeldOut, ...], AfterValidator(each_once)] = ()
    eval_every: Annotated[int, ON_DEMAND] = Field(0, ge=0)  # steps; 0 = only when a stage ends
    eval_samples: int = Field(8, ge=1)
    prompting: Prompting = Prompting()
    trainer: Trainer = Trainer()
    rollout: Rollout = Rollout()
    verify: Verify = Verify()
    optimizer: Optimizer = Optimizer(lr=3e-6)  # [P §4.1.1]
    loss: Loss = Loss()
    watchdog: Annotated[Watchdog, ON_DEMAND] = Watchdog()
    temperature: float = Field(1.0, gt=0)  # [P §4.3.2]
    updates: int = Field(1, ge=1)  # optimizer steps (minibatches) per rollout batch; the paper gives no number
    max_staleness: int = Field(0, ge=0)  # rollout batches sampled ahead of training; 0 = sample, then train
    save_every: Annotated[int, ON_DEMAND] = Field(20, ge=1)  # steps
    keep_resumable: Annotated[int, ON_DEMAND] = Field(2, ge=1)  # newest checkpoints that --resume can go on from; the
    # optimizer's state of each takes 12 bytes a parameter
    keep_last: Annotated[int, ON_DEMAND] = Field(0, ge=0)  # newest checkpoints; 0 = all. Those that end a stage stay
    keep_best: Annotated[int, ON_DEMAND] = Field(0, ge=0)  # checkpoints kept in addition, by mean held-out score
    rollouts_kept: Annotated[int, ON_DEMAND] = Field(8, ge=0)  # responses written per step as text
    record: Record = Record()

    @property
    def steps(self) -> int:
        return sum(s.steps for s in self.stages)

    @property
    def budgeted(self) -> bool:
        """Whether the token budget Φ limits what is trained on and divides the loss."""
        return self.loss.denominator == "phi"

    @model_validator(mode="before")
    @classmethod
    def _whole_distribution(cls, raw: Any) -> Any:
        sections = [("", raw), ("rollout.", raw.get("rollout"))] if isinstance(raw, dict) else []
        for at, section in sections:
            for key in ("top_p", "top_k", "min_p"):
                if isinstance(section, dict) and key in section:
                    raise ValueError(
                        f"{at}{key}: got {section[key]}, expected no such key in training: log-probs of a truncated "
                        f"distribution are not the policy's; remove it (temperature is allowed)"
                    )
        return raw

    @model_validator(mode="after")
    def _check(self) -> RLConfig:
        if self.loss.ratio == "none" and self.updates > 1:
            raise ValueError(f"updates: got {self.updates}, expected 1 with loss.ratio none: without a ratio the "
                             f"second update would not know that the policy has moved")  # fmt: skip
        if self.loss.reference_every % self.updates:
            raise ValueError(f"loss.reference_every: got {self.loss.reference_every}, expected a multiple of "
                             f"updates={self.updates}")  # fmt: skip
        if self.keep_best and not self.keep_last:
            raise ValueError(f"keep_best: got {self.keep_best}, expected 0 with keep_last 0, which keeps all")
        self._check_staleness()
        if self.loss.router_replay == "engine" and self.rollout.engine == "transformers":
            raise ValueError("loss.router_replay: got engine, expected trainer or none with rollout.engine "
                             "transformers, which cannot say which experts it took")  # fmt: skip
        for i, s in enumerate(self.stages):
            self._check_stage(f"stages.{i}", s)
        return self

    def _check_staleness(self) -> None:
        ahead, rollout, loss = self.max_staleness, self.rollout, self.loss
        if ahead and loss.old_logprobs == "trainer" and loss.correction.method == "none":
            raise ValueError(f"max_staleness: got {ahead}, expected 0 with loss.old_logprobs trainer and "
                             f"loss.correction.method none, which take the responses of older weights for the "
                             f"policy's own")  # fmt: skip
        if ahead > 1 and not rollout.in_flight:
            raise ValueError(f"max_staleness: got {ahead}, expected at most 1 without rollout.in_flight: a batch that "
                             f"waits for another only grows older")  # fmt: skip
        if ahead and rollout.colocated:
            raise ValueError(f"max_staleness: got {ahead}, expected 0 with rollout.colocated: its workers sleep while "
                             f"the trainer works")  # fmt: skip
        if rollout.in_flight and not ahead:
            raise ValueError("rollout.in_flight: got true, expected false with max_staleness 0")
        if rollout.in_flight and rollout.engine == "transformers":
            raise ValueError("rollout.in_flight: got true, expected false with rollout.engine transformers")
        if rollout.in_flight and loss.router_replay == "engine":
            raise ValueError("rollout.in_flight: got true, expected false with loss.router_replay engine: a response "
                             "is asked for its routes once, at its end")  # fmt: skip

    def _check_stage(self, at: str, s: Stage) -> None:
        if self.trainer.ranks > s.prompts * s.samples // self.updates:
            raise ValueError(_ranks_message(self.trainer.ranks, f"{at}: prompts x samples / updates",
                                            s.prompts * s.samples // self.updates))  # fmt: skip
        if s.prompts % self.updates:
            raise ValueError(f"{at}.prompts: got {s.prompts}, expected a multiple of updates={self.updates}")
        if s.steps % self.updates:
            raise ValueError(f"{at}.steps: got {s.steps}, expected a multiple of updates={self.updates}")
        if not self.budgeted:
            for key, plain in (("retention", 0), ("order", "prompt")):
                if getattr(s.budget, key) not in (plain, "shuffle"):
                    raise ValueError(
                        f"{at}.budget.{key}: got {getattr(s.budget, key)}, expected {plain} with loss.denominator "
                        f"{self.loss.denominator}: without a token budget nothing is filled"
                    )
            return
        if s.budget.order == "informative" and self.loss.ratio == "sequence":
            raise ValueError(f"{at}.budget.order: got informative, expected another with loss.ratio sequence: it takes "
                             f"single tokens out of a response that has one ratio")  # fmt: skip
        most = s.prompts * s.samples * (s.max_total_tokens - 1)
        if self.step_phi(s) > most:
            raise ValueError(
                f"{at}.budget.phi: got {s.budget.phi} (scope {s.budget.scope}: {self.step_phi(s)} tokens a "
                f"rollout batch), expected at most {most}, what {s.prompts} prompts x {s.samples} samples "
                f"x {s.max_total_tokens - 1} tokens can produce"
            )
        if self.step_phi(s) % self.parts(s):
            raise ValueError(f"{at}.budget.phi: got {s.budget.phi}, expected a multiple of {self.parts(s)}")

    def check_continues(self, was: Self, step: int) -> None:
        """Raises ValueError when a stage that is over, or that more is sampled ahead than is left of, is to have
        another length, or when more steps are done than there are to be."""
        ahead = step + self.updates * self.max_staleness
        for i, (stage, before, end) in enumerate(zip(self.stages, was.stages, was.stage_ends, strict=True)):
            least = step if i + 1 == len(self.stages) else ahead + 1
            if stage.steps != before.steps and min(end, self.stage_ends[i]) < least:
                raise ValueError(f"stages.{i}.steps: got {stage.steps}, expected {before.steps}: {step} steps of the "
                                 f"run are done, {ahead} sampled")  # fmt: skip

    @property
    def stage_ends(self) -> list[int]:
        """The step count at which each stage ends."""
        return list(itertools.accumulate(s.steps for s in self.stages))

    @property
    def max_total_tokens(self) -> int:
        return max(s.max_total_tokens for s in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage of the next step, after `step` completed ones."""
        return next(s for s, end in zip(self.stages, self.stage_ends, strict=True) if step < end)

    def stage_start(self, stage: Stage) -> int:
        return self.stage_ends[self.stages.index(stage)] - stage.steps

    def step_phi(self, stage: Stage) -> int:
        """Tokens trained on per rollout batch, summed over ranks and minibatches."""
        per = {"step": 1, "rank": self.trainer.ranks, "minibatch": self.updates}[stage.budget.scope]
        return stage.budget.phi * per

    def parts(self, stage: Stage) -> int:
        """Number of shares of a rollout batch that fill their budgets independently."""
        return self.updates * (self.trainer.ranks if stage.budget.scope == "rank" else 1)

    def update_phi(self, stage: Stage) -> int:
        """Tokens per optimizer step: the constant divisor of the loss."""
        return self.step_phi(stage) // self.updates

    def max_tokens(self, stage: Stage) -> int:
        """Upper bound on the tokens of one optimizer step, prompts included."""
        return stage.prompts * stage.samples * stage.max_total_tokens // self.updates


# ---------------------------------------------------------------- eval


class Bench(NamesDomains):
    name: str = Field(pattern=NAME)  # a built-in benchmark, or any name when `data` is given
    data: str = ""  # JSONL, parquet or CSV file, or hub dataset; empty = the benchmark's own source
    columns: dict[str, str] = {}  # renames keys of `data`, as in Source
    samples: int = Field(0, ge=0)  # 0 = the configuration's `samples`
    release: Literal["", "v1", "v2", "v3", "v4", "v5", "v6"] = ""  # LiveCodeBench release; empty = the default
    since: str = Field("", pattern=DATE)  # YYYY-MM-DD; drops older dated problems; empty = the benchmark's default
    until: str = Field("", pattern=DATE)  # YYYY-MM-DD, inclusive
    domain: str = "row"  # domain of all problems in a file of your own; "row": every row names its own
    contests: str = ""  # file with contest standings (evals/codeforces.py); adds a rating and a percentile

    @property
    def domain_names(self) -> dict[str, str]:
        return {} if self.domain == "row" else {"domain": self.domain}


class EvalConfig(RunConfig):
    """`ringrl eval`; defaults are the paper's protocol [P §4.1.2]."""

    model: str  # a folder, or its name on the server
    seed: int = 0
    benchmarks: Annotated[tuple[Bench, ...], AfterValidator(each_once)] = Field(min_length=1)
    data: str = ""  # folder with NAME.jsonl (.parquet, .csv) per benchmark, or the file of the only one
    samples: int = Field(0, ge=0)  # k; 0 = the benchmark's default
    pass_k: tuple[int, ...] = ()  # values of k for pass@k, in addition to 1, 2, 4, ... and all samples
    precision: float = Field(0.5, gt=0)  # target standard error in points; the report gives the k it needs
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_total_tokens: int = Field(32768, ge=2)  # prompt + response; with a server, the response alone
    prompting: Prompting = Prompting()
    rollout: Rollout = Rollout()
    server: Server = Server()
    verify: Verify = Verify()


# ---------------------------------------------------------------- run


@dataclass(frozen=True)
class SectionOf:
    """Marks a raw mapping as the section of a command."""

    config: type[RunConfig]


def _section(field: FieldInfo) -> list[SectionOf]:
    """The mark of a field that is a section of the pipeline."""
    return [mark for mark in field.metadata if isinstance(mark, SectionOf)]


class PipelineConfig(RunConfig):
    """`ringrl run`: data -> sft -> select-ckpt -> rl stages -> general SFT -> eval. Sections are those commands'
    configurations without `run`, `model` and `seed`, which the pipeline sets for every stage."""

    rows = True

    model: str
    seed: int = 0
    data: Annotated[dict[str, Any], SectionOf(DataConfig)] = {}  # writes RUN/data/data/NAME.jsonl, which other sections
    # may name as sources; empty = no data stage
    sft: Annotated[dict[str, Any], SectionOf(SFTConfig)]
    select: Annotated[dict[str, Any], SectionOf(SelectConfig)]
    rl: Annotated[dict[str, Any], SectionOf(RLConfig)]
    general: Annotated[dict[str, Any], SectionOf(SFTConfig)] = {}  # SFT of the RL model [P Fig. 4]; empty = none
    eval: Annotated[dict[str, Any], SectionOf(EvalConfig)]

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the non-empty sections, in the order in which they run."""
        fields = type(self).model_fields.items()
        return tuple(name for name, f in fields if _section(f) and (f.is_required() or getattr(self, name)))

    def stage(self, name: str, model: str, directory: str = "") -> Any:
        """The checked configuration of one stage, starting from `model` where it has one."""
        [mark] = _section(type(self).model_fields[name])
        raw = getattr(self, name)
        own: dict[str, Any] = {"run": f"{self.run}/{directory or name}", "model": model, "seed": self.seed}
        own = {key: value for key, value in own.items() if key in mark.config.model_fields}
        for key in own:
            if key in raw:
                raise ConfigError(f"{name}.{key}: set by the pipeline, remove it")
        if isinstance(domains := raw.get("domains", {}), dict):
            own["domains"] = {**self.model_dump()["domains"], **domains}
        everywhere = {"track": self.track if mark.config.rows else (), "strict_hooks": self.strict_hooks,
                      "hooks": self.hooks if mark.config.hooked else ()}  # fmt: skip
        return check(mark.config, {**everywhere, **raw, **own}, name)

    def part(self, name: str) -> Any:
        return self.stage(name, self.model) if name in self.sections else getattr(self, name)

    @model_validator(mode="after")
    def _check(self) -> PipelineConfig:
        for name in self.sections:
            stage = self.stage(name, self.model)
            for i, s in enumerate(stage.stages if isinstance(stage, RLConfig) else ()):
                if s.name in ("sft", "general"):
                    raise ValueError(f"rl.stages.{i}.name: got {s.name}, expected another: the pipeline evaluates what "
                                     f"comes of its section {s.name} under this name")  # fmt: skip
        return self


def _ranks_message(ranks: int, source: str, most: int) -> str:
    return f"trainer.ranks: got {ranks}, expected at most {most} ({source}), one sequence per rank"
