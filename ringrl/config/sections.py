"""Sections shared by the commands' configurations: domains, data sources, prompts, optimizer, layout, engines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from ringrl.config.load import FIXED, FREE, ON_DEMAND, Knobs, Layout
from ringrl.domains import BOXED, FENCED, Domain, Domains, Reward
from ringrl.track.trackers import check_name
from ringrl.users.objects import NAMED

DATE = r"^(\d{4}-\d\d-\d\d)?$"
NAME = r"^\w[\w.-]*$"
SUFFIXES = {"math": BOXED, "science": BOXED, "code": FENCED}
VERIFIER = re.compile(r"[\w-]*|\w+(\.\w+)*:\w+|[^:]+\.py:\w+")


def _names_a_verifier(text: str) -> str:
    if not VERIFIER.fullmatch(text):
        raise ValueError(f"got {text!r}, expected a built-in verifier's name, module:function or path/file.py:function")
    return text


VerifierName = Annotated[str, AfterValidator(_names_a_verifier)]


def each_once(named: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuses duplicates among strings, or among objects by their `name`."""
    names = [n if isinstance(n, str) else n.name for n in named]
    if len(set(names)) < len(names):
        raise ValueError(f"got {', '.join(names)}, expected each name once")
    return named


def _names_a_class(text: str) -> str:
    if not NAMED.fullmatch(text):
        raise ValueError(f"got {text!r}, expected path/file.py:Class or module:Class")
    return text


class VerifierSection(Knobs):
    """Who judges a response."""

    verifier: VerifierName = ""
    options: dict[str, Any] = {}  # extra keyword arguments of the verifier
    on_error: Literal["error", "fail"] = "error"  # when the verifier itself fails: no verdict, or a reward of 0
    key_variable: str = ""  # name of the only secret environment variable passed to its process


class RewardSection(VerifierSection):
    """One of several verifiers of a domain."""

    verifier: VerifierName = Field(min_length=1)
    weight: float = Field(1.0, ge=0, le=1)  # share of the domain's reward; 0: only measured


class DomainSection(VerifierSection):
    """A user-defined domain: how a problem is asked, which keys it needs, and who judges a response: one verifier,
    whose reward is named after the domain, or several `rewards`."""

    rewards: dict[str, RewardSection] = {}  # keyed by their names in the metrics; weights sum to 1
    headline: str = ""  # the reward used for scores, pass rates and selection; empty: the only one
    suffix: str = ""  # appended to every problem, unless `prompting.suffix` overrides it
    keys: tuple[str, ...] = ()  # row keys passed to the verifier; empty: all that JSON can represent
    required: tuple[str, ...] = ()  # keys that every row must have
    answer: str = ""  # key of the answer that `ringrl data` compares; empty: none
    comparison: Literal["answer", "program", "equal"] = "equal"  # when `ringrl data` sees the same answer: as the math
    # and science verifiers compare final answers; programs passing each other's tests; equal values

    @model_validator(mode="after")
    def _one_or_several(self) -> DomainSection:
        if bool(self.verifier) == bool(self.rewards):
            got = "both" if self.verifier else "neither"
            raise ValueError(f"verifier: got {got} verifier and rewards, expected one of them")
        for key in ("headline",) if self.verifier else VerifierSection.model_fields:
            if (value := getattr(self, key)) != type(self).model_fields[key].default:
                where = "with a single verifier" if self.verifier else "beside rewards, each of which has its own"
                raise ValueError(f"{key}: got {value!r}, expected none {where}")
        return self

    def domain(self, name: str) -> Domain:
        """Raises ValueError when it contradicts itself."""
        sections: Mapping[str, VerifierSection] = self.rewards or {name: self}
        rewards = tuple(Reward(n, **r.model_dump(include={*RewardSection.model_fields})) for n, r in sections.items())
        headline = self.headline or (rewards[0].name if len(rewards) == 1 else "")
        return Domain(name, rewards, headline, self.suffix, self.keys, self.required, self.answer, self.comparison)


class RunConfig(Knobs):
    """Fields common to every command's configuration."""

    rows: ClassVar[bool] = False  # whether the command writes rows by step, which trackers take
    hooked: ClassVar[bool] = True  # whether it runs on ranks, of which the first calls hooks

    run: str  # run directory
    domains: dict[str, DomainSection] = {}  # user-defined domains by name
    # tensorboard, wandb, trackio, mlflow, or classes of the user's that take the run's rows: docs/trackers.md
    track: Annotated[tuple[Annotated[str, AfterValidator(check_name)], ...], AfterValidator(each_once), FREE] = ()
    # the user's classes, path/file.py:Class or module:Class, told of rows and checkpoints: docs/trackers.md
    hooks: Annotated[tuple[Annotated[str, AfterValidator(_names_a_class)], ...], AfterValidator(each_once), FREE] = ()
    strict_hooks: Annotated[bool, FREE] = False  # the run ends when a hook fails

    @field_validator("domains")
    @classmethod
    def _are_domains(cls, sections: dict[str, DomainSection]) -> dict[str, DomainSection]:
        _own_domains(sections)
        return sections

    @model_validator(mode="after")
    def _knows_domains(self) -> Self:
        for key, name in _named(self, ""):
            if name not in self.known_domains:
                others = ("row",) if key.endswith("domain") else ()
                raise ValueError(f"{key}: {self.known_domains.unknown(name, *others)}")
        return self

    @model_validator(mode="after")
    def _is_heard(self) -> Self:
        for key, can in (("track", self.rows), ("hooks", self.hooked)):
            if (given := getattr(self, key)) and not can:
                raise ValueError(f"{key}: got {', '.join(given)}, expected none: this command has nothing to tell them")
        return self

    def check_continues(self, was: Self, step: int) -> None:
        """Raises ValueError if a run that was begun with `was` and has done `step` steps cannot go on with this."""

    @cached_property
    def known_domains(self) -> Domains:
        """All available domains, those of this configuration included."""
        return _own_domains(self.domains)


def _own_domains(sections: dict[str, DomainSection]) -> Domains:
    """Raises ValueError; the message begins with the name of the domain."""
    domains = []
    for name, section in sections.items():
        for kind, label in (("a domain", name), *(("a reward", n) for n in section.rewards)):
            if not re.fullmatch(NAME, label) or label == "row":
                raise ValueError(f"{name}: got {kind} called {label!r}, expected letters, digits, _, . or -, not row")
        try:
            domains.append(section.domain(name))
        except ValueError as e:
            raise ValueError(f"{name}.{e}") from None
    return Domains(domains)


def _named(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """(key, domain) of every place in a configuration that names a domain."""
    if isinstance(value, NamesDomains):
        yield from ((at + key, name) for key, name in value.domain_names.items())
    if isinstance(value, Knobs):
        value = {key: getattr(value, key) for key in type(value).model_fields}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    for key, item in pairs:
        yield from _named(item, f"{at}{key}.")


class NamesDomains(Knobs):
    """A section that names domains; the enclosing configuration checks that they exist."""

    @property
    def domain_names(self) -> dict[str, str]:
        """Key -> name of the domain it holds."""
        raise NotImplementedError


SLICE = re.compile(r"(?P<split>[\w.-]+)(\[(?P<first>-?\d+%?)?:(?P<end>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Slice:
    """A part of a split of a hub dataset: a number of rows, or with % a share of them, below 0 from the end."""

    split: str
    first: str  # "" = from the start
    end: str  # "" = to the end

    @property
    def needs_size(self) -> bool:
        """Whether the number of all rows must be known."""
        return bool({"-", "%"} & {*self.first, *self.end})

    def bounds(self, rows: int | None) -> tuple[int, int | None]:
        """The first row and the one behind the last; `rows`, of the whole split, may be None unless it is needed."""
        return self._row(self.first, rows) or 0, self._row(self.end, rows) if self.end else rows

    def _row(self, text: str, rows: int | None) -> int:
        number = int(text.rstrip("%") or 0)
        if rows is None:
            return number
        if text.endswith("%"):
            number = round(number * rows / 100)  # as `datasets` does
        return min(max(number + rows * text.startswith("-"), 0), rows)


def slices(split: str) -> tuple[Slice, ...]:
    """The parts that a split such as "train[:100]+test" has. Raises ValueError."""
    matches = [SLICE.fullmatch(part) for part in split.split("+")]
    found = tuple(Slice(m["split"], m["first"] or "", m["end"] or "") for m in matches if m)
    if len(found) < len(matches):
        raise ValueError(f"got {split!r}, expected a split such as train, train[:1000], train[10%:] or train+test")
    return found


class Source(NamesDomains):
    """Where rows come from: data files, or dataset names on the Hugging Face hub."""

    files: tuple[str, ...] = Field(min_length=1)
    split: str = "train"  # only for hub datasets, also a slice: train[:1000], train[10%:], train[-500:], train+test
    columns: dict[str, str] = {}  # our key -> key in the file, e.g. {problem: question}
    format: Literal["messages", "sharegpt", "alpaca", "completion"] = "messages"  # how a row holds a conversation, with
    # `columns` applied (ringrl/data/formats.py): conversations, from and value; instruction, input, output; prompt
    domain: str = "row"  # "row": each row names its own
    limit: int = Field(0, ge=0)  # rows to read, 0 = all

    @field_validator("split")
    @classmethod
    def _is_split(cls, split: str) -> str:
        slices(split)
        return split

    @property
    def domain_names(self) -> dict[str, str]:
        return {} if self.domain == "row" else {"domain": self.domain}


class Prompting(NamesDomains):
    """How a problem becomes a prompt."""

    suffix: dict[str, str] = SUFFIXES  # domain -> text appended to its problems; a domain left out gets
    # none if it is one of these, else its own suffix
    system: str = ""  # system message; empty = none
    max_tokens: int = Field(2048, ge=1)  # a longer prompt is an error that names its row
    template: str = ""  # chat template: ring-lite, ring-lite-distill-preview, ling-lite-1.5, ring-mini-2.0, ling-2.0
    # or a Jinja file; empty: the tokenizer's own or, if it has none, that of the model's family
    stop: str = ""  # token that ends the assistant's turn where the template writes none, one of generation's eos
    # tokens; empty: the model family's, if known (docs/templates.md)
    thinking: bool = True  # `enable_thinking`, in templates that support it

    @property
    def domain_names(self) -> dict[str, str]:
        return {f"suffix.{name}": name for name in self.suffix}


Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Knobs):
    """AdamW. The paper gives the learning rate and, for SFT, weight decay 0.1; betas are [ours]. Decay applies to every
    trained parameter, norms and biases included."""

    lr: Annotated[float, ON_DEMAND] = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Annotated[Literal["constant", "cosine"], ON_DEMAND] = "constant"
    warmup: Annotated[float, ON_DEMAND] = Field(0.0, ge=0, lt=1)  # share of all steps; linear from 0
    final_lr: Annotated[float, ON_DEMAND] = Field(0.0, ge=0, le=1)  # end of the cosine schedule, as a share of lr
    clip_norm: float = Field(1.0, gt=0)  # largest global gradient norm


class Parallel(Knobs):
    """How the model is split over the ranks."""

    expert: int = Field(1, ge=1)  # ranks over which the experts of each layer are split
    zero: Literal[1, 2, 3] = 1  # DeepSpeed ZeRO stage; stage 0 lacks a gradient norm over all ranks' experts
    offload: Literal["none", "optimizer", "parameters"] = "none"  # to host memory; optimizer: AdamW's states, whose
    # step then runs on the CPU; parameters: the weights as well, zero 3 only


class Trainer(Layout):
    """How updates are computed. None of these settings changes the result beyond rounding."""

    ranks: int = Field(1, ge=1)  # training processes on this node
    threads: int = Field(0, ge=0)  # OpenMP threads per rank; 0 = cores / ranks
    parallel: Parallel = Parallel()
    dtype: Annotated[Literal["float32", "bfloat16"], FIXED] = "bfloat16"  # bfloat16 keeps fp32 master weights
    microbatch_tokens: int = Field(16384, ge=1)  # most tokens per forward pass on one rank
    packing: bool = True  # False: one sequence per row, padded
    attention: Literal["packed", "sdpa", "flash_attention_2", "flash_attention_3"] = "packed"  # packed needs nothing
    # but torch; the last two need their packages, flash_attn and flash_attn_interface, and a GPU
    recompute: bool = False  # activation checkpointing

    @model_validator(mode="after")
    def _check(self) -> Trainer:
        if self.ranks % self.parallel.expert:
            raise ValueError(f"parallel.expert: got {self.parallel.expert}, expected a divisor of ranks={self.ranks}")
        if self.parallel.offload == "parameters" and self.parallel.zero < 3:
            raise ValueError(f"parallel.offload: got parameters, expected none or optimizer with parallel.zero "
                             f"{self.parallel.zero}: only stage 3 can offload parameters")  # fmt: skip
        return self


PARITY = {"float32": 1e-3, "bfloat16": 0.1}  # nats; trainer and engine round differently, and near-ties of routers flip


class Rollout(Layout):
    """The sampling engine."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"  # auto: vLLM if installed
    workers: int = Field(1, ge=1)  # vLLM processes on this node
    addresses: tuple[str, ...] = ()  # "host:port" of every `ringrl worker`; instead of workers on this node
    key_file: str = ""  # file with the remote workers' secret in hexadecimal digits
    colocated: bool = False  # workers share the ranks' GPUs, sleep during training, and map weights without a copy
    in_flight: bool = False  # update weights in the middle of a generation
    dtype: Annotated[Literal["float32", "bfloat16"], FIXED] = "bfloat16"
    tensor_parallel: int = Field(1, ge=1)  # GPUs per worker
    concurrent: int = Field(256, ge=1)  # sequences one worker decodes together
    gpu_memory: float = Field(0.9, gt=0, lt=1)  # share of GPU memory used by a worker
    kv_cache_mib: int = Field(0, ge=0)  # per worker; 0 = the remainder of gpu_memory
    start_deadline_s: float = Field(1800.0, gt=0)  # large models are read and compiled by all workers at once
    deadline_s: float = Field(3600.0, gt=0)  # per batch
    update_deadline_s: float = Field(600.0, gt=0)  # per phase of a weight sync
    bucket_mib: int = Field(512, ge=1)  # size of one transfer in a weight sync
    max_restarts: int = Field(3, ge=0)  # restarts of failed workers before the run gives up
    parity_limit: float = Field(0.0, ge=0)  # nats: largest mean trainer/worker log-prob gap of a response after a
    # sync; 0 = by the dtypes, PARITY

    @model_validator(mode="after")
    def _check(self) -> Rollout:
        if bool(self.addresses) != bool(self.key_file):
            raise ValueError(f"key_file: got {self.key_file!r}, expected one exactly when there are addresses")
        if self.addresses and self.colocated:
            raise ValueError("colocated: got true, expected false with addresses")
        return self

    def parity(self, trainer_dtype: str) -> float:
        """Largest mean log-prob gap that is rounding, in nats."""
        return self.parity_limit or max(PARITY[self.dtype], PARITY[trainer_dtype])


class Verify(Layout):
    workers: int = Field(2, ge=1)  # verifier processes
    deadline_s: float = Field(20.0, gt=0)  # per response
    remote: str = Field("", pattern="^(https?://.+)?$")  # base URL of a service with SandboxFusion's API that
    # runs programs instead of this machine
    isolation: Literal["user-namespaces", "namespaces", "uid", "process"] = "namespaces"  # the least that programs
    # are run with on this machine; a run with programs does not start where it grants less
    max_error_share: float = Field(0.1, ge=0, le=1)  # [ours] a larger share of errors in a batch ends the run

    @property
    def programs(self) -> dict[str, str]:
        """Where and how programs are run."""
        return {"remote": self.remote, "isolation": self.isolation}


class Server(Layout):
    """An OpenAI-compatible server that answers instead of a rollout engine."""

    base_url: str = Field("", pattern="^(https?://.+)?$")  # e.g. http://host:8000/v1; empty = none
    key_variable: str = "OPENAI_API_KEY"  # environment variable with the API key, if the server needs one
    concurrent: int = Field(64, ge=1)  # requests in flight
    deadline_s: float = Field(3600.0, gt=0)  # per response
    retries: int = Field(8, ge=0)  # after a transient failure (429, 5xx, no connection), with growing pauses
