"""Every knob of ringrl, and how a YAML file with overrides becomes a checked, frozen configuration.

A knob has a unit and a default with its source: [P] is the Ring-lite paper (arXiv 2506.14731), [ours] a choice
of this project where the paper is silent. What can be computed is a property, not a knob.
Validation checks and never rewrites: what you wrote is what runs.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ringrl.errors import ConfigError

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."  # [P §3.3]
FENCED = "Write your solution in Python, in one ```python block."  # [ours]

Domain = Literal["math", "code", "science"]


class Knobs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Source(Knobs):
    """Where rows come from: JSONL files, or dataset names on the Hugging Face hub."""

    files: tuple[str, ...] = Field(min_length=1)
    split: str = "train"  # of hub datasets
    columns: dict[str, str] = {}  # our key -> the key in the file, e.g. {problem: question}
    domain: Literal["math", "code", "science", "row"] = "row"  # "row": every row names its own domain
    limit: int = Field(0, ge=0)  # rows to read, 0 = all


class Prompting(Knobs):
    """How a problem becomes a prompt."""

    suffix: dict[Domain, str] = {"math": BOXED, "science": BOXED, "code": FENCED}
    system: str = ""  # system message, none when empty
    max_tokens: int = Field(2048, ge=1)  # longer prompts are refused, by name
    template: str = ""  # Jinja chat template file, used instead of the tokenizer's


class Optimizer(Knobs):
    """AdamW. The paper gives the learning rate and, for SFT, weight decay 0.1; betas are [ours]."""

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of all steps, linear from 0
    final_lr: float = Field(0.0, ge=0, le=1)  # where cosine ends, as a share of lr
    clip_norm: float = Field(1.0, gt=0)  # global gradient norm


class Trainer(Knobs):
    """How the update is computed. None of these changes the result beyond rounding."""

    ranks: int = Field(1, ge=1)  # training processes on this node
    threads: int = Field(0, ge=0)  # OpenMP threads per rank; 0 = cores / ranks
    zero: Literal[0, 1, 2, 3] = 1  # DeepSpeed ZeRO stage
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # bfloat16 keeps fp32 master weights
    microbatch_tokens: int = Field(16384, ge=1)  # per forward pass and rank
    packing: bool = True  # False: one sequence per row, padded
    attention: Literal["packed", "sdpa", "flash_attention_2"] = "flash_attention_2"
    recompute: bool = False  # activation checkpointing


class Rollout(Knobs):
    """The engine that samples."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"  # auto: vLLM where it is installed
    workers: int = Field(1, ge=1)  # vLLM processes on this node
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    tensor_parallel: int = Field(1, ge=1)  # GPUs per worker
    concurrent: int = Field(256, ge=1)  # sequences decoded together by one worker
    kv_cache_mib: int = Field(0, ge=0)  # per worker; 0 = vLLM's default (a share of the GPU's memory)
    start_deadline_s: float = Field(600.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)  # for one batch, and for one weight sync
    parity_limit: float = Field(0.2, gt=0)  # nats: largest trainer/worker log-prob gap after a sync


class Verify(Knobs):
    workers: int = Field(2, ge=1)  # verifier processes
    deadline_s: float = Field(20.0, gt=0)  # per response


# ---------------------------------------------------------------- sft


class SFTConfig(Knobs):
    """`ringrl sft`: long-CoT distillation [P §2.1, §4.1.1]."""

    run: str
    model: str
    seed: int = 0
    data: Source
    validation: Source
    prompting: Prompting = Prompting()
    trainer: Trainer = Trainer()
    optimizer: Optimizer = Optimizer(lr=3e-4, weight_decay=0.1, schedule="cosine", warmup=0.01)  # [P §4.1.1]
    epochs: int = Field(3, ge=1)  # [P §4.1.1]
    batch_examples: int = Field(256, ge=1)  # per optimizer step [P §4.1.1]
    max_tokens: int = Field(32768, ge=2)  # longer examples are dropped and counted [P §4.1.1]
    save_every: int = Field(0, ge=0)  # steps; 0 = at the end of every epoch
    balance: float = Field(0.0, ge=0)  # router load-balance coefficient
    z: float = Field(0.0, ge=0)  # router z-loss coefficient

    @model_validator(mode="after")
    def _check(self) -> SFTConfig:
        if self.trainer.ranks > self.batch_examples:
            raise ValueError(_ranks_message(self.trainer.ranks, "batch_examples", self.batch_examples))
        return self


# ---------------------------------------------------------------- select-ckpt


class SelectConfig(Knobs):
    """`ringrl select-ckpt`: the checkpoint to start RL from [P §4.3]."""

    run: str
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


class Budget(Knobs):
    """C3PO's token budget Φ [P Eq. 2-3]. Where the paper is silent the choice is [ours]."""

    phi: int = Field(409_600, ge=1)  # tokens [P §4.1.1]
    scope: Literal["step", "rank", "minibatch"] = "step"  # what Φ counts: open in the paper
    order: Literal["prompt", "shuffle"] = "prompt"  # filling order [P Fig. 3 draws prompt by prompt]
    flat_groups: Literal["drop", "keep"] = "drop"  # groups whose rewards are all equal (A = 0)
    shortfall: Literal["resample", "train_fewer"] = "resample"  # fewer than Φ tokens to choose from
    max_resamples: int = Field(4, ge=0)  # further batches of prompts before a shortfall is accepted


class Loss(Knobs):
    """Coefficients of Eq. 1-6; defaults are the paper's [P §4.1.1, §4.3.2]."""

    method: Literal["c3po", "grpo"] = "c3po"  # token weights 1/Φ, or 1/(N |y|) over all tokens
    clip: float = Field(0.2, gt=0)  # ε
    kl: float = Field(1e-3, ge=0)  # β, k3 estimator; 0 = no reference model in memory
    reference: Literal["run", "stage"] = "run"  # frozen model of the KL term: the run's start, or the stage's [ours]
    entropy: float = Field(5e-4, ge=0)  # α of the exploration bonus (subtracted from the loss)
    balance: float = Field(1e-5, ge=0)  # router load balance
    z: float = Field(1e-7, ge=0)  # router z-loss


class HeldOut(Knobs):
    """A set of prompts evaluated during RL."""

    name: str
    data: Source


class Stage(Knobs):
    """One stage of RL: its data, lengths and steps [P §3.4]."""

    name: str
    data: tuple[Source, ...] = Field(min_length=1)
    steps: int = Field(ge=1)
    prompts: int = Field(512, ge=1)  # L, prompts per rollout batch [P §4.1.1]
    samples: int = Field(16, ge=2)  # K, responses per prompt [P §4.1.1]
    max_total_tokens: int = Field(24576, ge=2)  # prompt + response [P §4.1.1]
    budget: Budget = Budget()


class RLConfig(Knobs):
    """`ringrl rl`: C3PO in stages [P §3]."""

    run: str
    model: str
    seed: int = 0
    stages: tuple[Stage, ...] = Field(min_length=1)
    held_out: tuple[HeldOut, ...] = ()
    eval_every: int = Field(0, ge=0)  # steps; 0 = only at the end of every stage
    eval_samples: int = Field(8, ge=1)
    prompting: Prompting = Prompting()
    trainer: Trainer = Trainer()
    rollout: Rollout = Rollout()
    verify: Verify = Verify()
    optimizer: Optimizer = Optimizer(lr=3e-6)  # [P §4.1.1]
    loss: Loss = Loss()
    temperature: float = Field(1.0, gt=0)  # [P §4.3.2]
    updates: int = Field(1, ge=1)  # optimizer steps per rollout batch (minibatches): open in the paper
    save_every: int = Field(20, ge=1)  # steps
    rollouts_kept: int = Field(8, ge=0)  # sampled responses written per step

    @property
    def steps(self) -> int:
        return sum(s.steps for s in self.stages)

    @model_validator(mode="after")
    def _check(self) -> RLConfig:
        for i, s in enumerate(self.stages):
            at = f"stages.{i}"
            if self.trainer.ranks > s.prompts * s.samples // self.updates:
                raise ValueError(_ranks_message(self.trainer.ranks, f"{at}: prompts x samples / updates",
                                                s.prompts * s.samples // self.updates))  # fmt: skip
            if s.prompts % self.updates:
                raise ValueError(f"{at}.prompts: got {s.prompts}, expected a multiple of updates={self.updates}")
            if s.steps % self.updates:
                raise ValueError(f"{at}.steps: got {s.steps}, expected a multiple of updates={self.updates}")
            if self.loss.method == "grpo":
                continue
            most = s.prompts * s.samples * (s.max_total_tokens - 1)
            if self.step_phi(s) > most:
                raise ValueError(
                    f"{at}.budget.phi: got {s.budget.phi} (scope {s.budget.scope}: {self.step_phi(s)} tokens a "
                    f"rollout batch), expected at most {most}, what {s.prompts} prompts x {s.samples} samples "
                    f"x {s.max_total_tokens - 1} tokens can produce"
                )
            if self.step_phi(s) % self.parts(s):
                raise ValueError(f"{at}.budget.phi: got {s.budget.phi}, expected a multiple of {self.parts(s)}")
        return self

    def step_phi(self, stage: Stage) -> int:
        """Tokens trained on per rollout batch, over all ranks and minibatches."""
        per = {"step": 1, "rank": self.trainer.ranks, "minibatch": self.updates}[stage.budget.scope]
        return stage.budget.phi * per

    def parts(self, stage: Stage) -> int:
        """Into how many independently filled shares a rollout batch is divided."""
        return self.updates * (self.trainer.ranks if stage.budget.scope == "rank" else 1)

    def update_phi(self, stage: Stage) -> int:
        """Tokens per optimizer step: the constant divisor of the loss."""
        return self.step_phi(stage) // self.updates


# ---------------------------------------------------------------- eval


class Bench(Knobs):
    name: str  # a named benchmark, or any name when `data` is given
    data: str = ""  # JSONL file or hub dataset; empty = the named benchmark's own source
    columns: dict[str, str] = {}  # of `data`, as in Source
    samples: int = Field(0, ge=0)  # 0 = the configuration's `samples`


class EvalConfig(Knobs):
    """`ringrl eval`; defaults are the paper's protocol [P §4.1.2]."""

    run: str
    model: str
    seed: int = 0
    benchmarks: tuple[Bench, ...] = Field(min_length=1)
    data_dir: str = ""  # where NAME.jsonl of named benchmarks lies, for machines without the hub
    samples: int = Field(32, ge=1)  # k
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_total_tokens: int = Field(32768, ge=2)
    prompting: Prompting = Prompting()
    rollout: Rollout = Rollout()
    verify: Verify = Verify()


# ---------------------------------------------------------------- run


class PipelineConfig(Knobs):
    """`ringrl run`: sft -> select-ckpt -> rl stages -> eval. The sections are those commands' configurations
    without `run`, `model` and `seed`, which the pipeline fills in from one stage to the next."""

    run: str
    model: str
    seed: int = 0
    sft: dict[str, Any]
    select: dict[str, Any]
    rl: dict[str, Any]
    eval: dict[str, Any]

    def stage(self, name: str, model: str, directory: str = "") -> Any:
        """The checked configuration of one stage, started from `model`."""
        kinds: dict[str, type[Knobs]] = {"sft": SFTConfig, "select": SelectConfig, "rl": RLConfig, "eval": EvalConfig}
        for key in ("run", "model", "seed"):
            if key in getattr(self, name):
                raise ConfigError(f"{name}.{key}: set by the pipeline, remove it")
        path = f"{self.run}/{directory or name}"
        return check(kinds[name], {**getattr(self, name), "run": path, "model": model, "seed": self.seed}, name)

    @model_validator(mode="after")
    def _check(self) -> PipelineConfig:
        for name in ("sft", "select", "rl", "eval"):
            self.stage(name, self.model)
        return self


# ---------------------------------------------------------------- loading

C = TypeVar("C", bound=Knobs)


def load(cls: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Read `path`, apply `key.sub=value` overrides (values are YAML), check.

    Raises:
        ConfigError: missing file, bad YAML, unknown or ill-typed key; the message is one line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: got {type(raw).__name__}, expected a mapping of keys")
    return resolve(cls, raw, overrides, str(path))


def resolve(cls: type[C], raw: dict[str, Any], overrides: Sequence[str], where: str) -> C:
    """`raw` with overrides, checked. Raises ConfigError."""
    for item in overrides:
        _override(raw, item)
    return check(cls, raw, where)


def check(cls: type[C], raw: dict[str, Any], where: str) -> C:
    try:
        return cls.model_validate(raw)
    except ConfigError as e:  # from a section of a pipeline
        raise ConfigError(f"{where}: {e}") from None
    except ValidationError as e:
        raise ConfigError(f"{where}: {_explain(cls, e)}") from None


def dump(cfg: Knobs) -> str:
    return yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(raw: dict[str, Any], item: str) -> None:
    key, eq, value = item.partition("=")
    if not eq:
        raise ConfigError(f"override {item!r}: expected key.sub=value")
    node: Any = raw
    *parents, last = key.split(".")
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[int(last) if isinstance(node, list) else last] = yaml.safe_load(value)
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ConfigError(f"override {item!r}: the configuration has no {key!r}") from None
    except yaml.YAMLError:
        raise ConfigError(f"override {item!r}: {value!r} is not a YAML value") from None


def _explain(cls: type[Knobs], error: ValidationError) -> str:
    """One line: key, value got, value expected."""
    first = error.errors()[0]
    loc = [str(p) for p in first["loc"]]
    key = ".".join(loc)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], _fields_at(cls, loc[:-1]), n=1)
        return f"{key}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")
    if first["type"] == "missing":
        return f"{key}: missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" or not key:
        return f"{key}: {message}" if key else message
    return f"{key}: got {first['input']!r}, expected: {message[0].lower()}{message[1:]}"


def _fields_at(cls: type[Knobs], loc: Sequence[str]) -> list[str]:
    """Field names of the model that `loc` points into."""
    kind: Any = cls
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, Knobs):
            kind = typing.get_type_hints(kind)[part]
        elif typing.get_args(kind):  # tuple[X, ...]
            kind = typing.get_args(kind)[0]
    if typing.get_args(kind) and not isinstance(kind, type):
        kind = typing.get_args(kind)[0]
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Knobs) else []


def _ranks_message(ranks: int, what: str, most: int) -> str:
    return f"trainer.ranks: got {ranks}, expected at most {most} ({what}), one sequence per rank"
