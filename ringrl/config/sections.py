"""Sections that several commands' configurations share: where rows come from, prompts, optimizer, layout, engines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from ringrl.config.load import FIXED, Knobs, Layout
from ringrl.domains import BOXED, FENCED, Domain, Domains, Reward

DATE = r"^(\d{4}-\d\d-\d\d)?$"
NAME = r"^\w[\w.-]*$"
SUFFIXES = {"math": BOXED, "science": BOXED, "code": FENCED}
VERIFIER = re.compile(r"[\w-]*|\w+(\.\w+)*:\w+|[^:]+\.py:\w+")


def _names_a_verifier(text: str) -> str:
    if not VERIFIER.fullmatch(text):
        raise ValueError(f"got {text!r}, expected a built-in verifier's name, module:function or path/file.py:function")
    return text


VerifierName = Annotated[str, AfterValidator(_names_a_verifier)]


class VerifierSection(Knobs):
    """Who judges a response."""

    verifier: VerifierName = ""
    options: dict[str, Any] = {}  # further keyword arguments of the verifier
    on_error: Literal["error", "fail"] = "error"  # what its own failure is: no verdict, or a reward of 0
    key_variable: str = ""  # the one environment variable with a secret that its process is given


class RewardSection(VerifierSection):
    """One of several verifiers of a domain."""

    verifier: VerifierName = Field(min_length=1)
    weight: float = Field(1.0, ge=0, le=1)  # share of the domain's reward; 0: it is measured only


class DomainSection(VerifierSection):
    """A domain of the user's: how a problem is asked, what it must hold, and who judges a response: one verifier, whose
    reward is called as the domain, or several `rewards`."""

    rewards: dict[str, RewardSection] = {}  # by the names that metrics have for them; weights sum to 1
    headline: str = ""  # the reward that scores, pass rates and selection go by; empty: the only one
    suffix: str = ""  # what follows every problem in a prompt, unless `prompting.suffix` says otherwise
    keys: tuple[str, ...] = ()  # of a row, that reach the verifier; empty: all that JSON can carry
    required: tuple[str, ...] = ()  # keys that a row must have
    answer: str = ""  # the key of the answer that `ringrl data` compares; empty: answers are not compared
    comparison: Literal["answer", "program", "equal"] = "equal"  # what it takes for the same answer: final answers as
    # the verifiers of math and science read them; programs that pass each other's tests; equal values

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
    """What the configuration of every command begins with."""

    run: str  # its directory
    domains: dict[str, DomainSection] = {}  # the user's own, by name

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

    @cached_property
    def known_domains(self) -> Domains:
        """All that there are, these among them."""
        return _own_domains(self.domains)


def _own_domains(sections: dict[str, DomainSection]) -> Domains:
    """Raises ValueError that begins with a domain's name."""
    found = []
    for name, section in sections.items():
        for what, called in (("a domain", name), *(("a reward", n) for n in section.rewards)):
            if not re.fullmatch(NAME, called) or called == "row":
                raise ValueError(f"{name}: got {what} called {called!r}, expected letters, digits, _, . or -, not row")
        try:
            found.append(section.domain(name))
        except ValueError as e:
            raise ValueError(f"{name}.{e}") from None
    return Domains(found)


def _named(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """(key, domain) of every place in a configuration that names a domain."""
    if isinstance(value, NamesDomains):
        yield from ((at + key, name) for key, name in value.domain_names.items())
    if isinstance(value, Knobs):
        value = {key: getattr(value, key) for key in type(value).model_fields}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    for key, each in pairs:
        yield from _named(each, f"{at}{key}.")


class NamesDomains(Knobs):
    """A section that names domains, of which the configuration that it is in knows whether they are there."""

    @property
    def domain_names(self) -> dict[str, str]:
        """By key."""
        raise NotImplementedError


class Source(NamesDomains):
    """Where rows come from: JSONL files, or dataset names on the Hugging Face hub."""

    files: tuple[str, ...] = Field(min_length=1)
    split: str = "train"  # of hub datasets
    columns: dict[str, str] = {}  # our key -> the key in the file, e.g. {problem: question}
    domain: str = "row"  # "row": every row names its own domain
    limit: int = Field(0, ge=0)  # rows to read, 0 = all

    @property
    def domain_names(self) -> dict[str, str]:
        return {} if self.domain == "row" else {"domain": self.domain}


class Prompting(NamesDomains):
    """How a problem becomes a prompt."""

    suffix: dict[str, str] = SUFFIXES  # what follows a problem, by domain; those of the default have none when they are
    # left out, all others their own
    system: str = ""  # system message, none when empty
    max_tokens: int = Field(2048, ge=1)  # longer prompts are refused, by name
    template: str = ""  # used instead of the tokenizer's: bailing (Ling-lite, Ring-lite), bailing_v2 (Ling 2.0), or a
    # Jinja file; empty: the tokenizer's own, or its family's among these when it has none
    thinking: bool = True  # `enable_thinking` of templates that have this switch

    @property
    def domain_names(self) -> dict[str, str]:
        return {f"suffix.{name}": name for name in self.suffix}


class Optimizer(Knobs):
    """AdamW. The paper gives the learning rate and, for SFT, weight decay 0.1; betas are [ours]."""

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of all steps, linear from 0
    final_lr: float = Field(0.0, ge=0, le=1)  # where cosine ends, as a share of lr
    clip_norm: float = Field(1.0, gt=0)  # global gradient norm


class Parallel(Knobs):
    """How the model lies on the ranks."""

    expert: int = Field(1, ge=1)  # ranks that share out the experts of every layer
    zero: Literal[1, 2, 3] = 1  # DeepSpeed ZeRO stage; stage 0 knows no gradient norm over all ranks' experts
    offload: Literal["none", "optimizer", "parameters"] = "none"  # what lies in the host's memory; optimizer: AdamW's
    # states, and its step is computed there; parameters: they too, zero 3 only


class Trainer(Layout):
    """How the update is computed. None of these changes the result beyond rounding."""

    ranks: int = Field(1, ge=1)  # training processes on this node
    threads: int = Field(0, ge=0)  # OpenMP threads per rank; 0 = cores / ranks
    parallel: Parallel = Parallel()
    dtype: Annotated[Literal["float32", "bfloat16"], FIXED] = "bfloat16"  # bfloat16 keeps fp32 master weights
    microbatch_tokens: int = Field(16384, ge=1)  # per forward pass and rank
    packing: bool = True  # False: one sequence per row, padded
    attention: Literal["packed", "sdpa", "flash_attention_2"] = "flash_attention_2"
    recompute: bool = False  # activation checkpointing

    @model_validator(mode="after")
    def _check(self) -> Trainer:
        if self.ranks % self.parallel.expert:
            raise ValueError(f"parallel.expert: got {self.parallel.expert}, expected a divisor of ranks={self.ranks}")
        if self.parallel.offload == "parameters" and self.parallel.zero < 3:
            raise ValueError(f"parallel.offload: got parameters, expected none or optimizer with parallel.zero "
                             f"{self.parallel.zero}: only stage 3 can offload parameters")  # fmt: skip
        return self


class Rollout(Layout):
    """The engine that samples."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"  # auto: vLLM where it is installed
    workers: int = Field(1, ge=1)  # vLLM processes on this node
    addresses: tuple[str, ...] = ()  # "host:port" of every `ringrl worker`; instead of workers on this node
    key_file: str = ""  # the secret that they ask for: a file of hexadecimal digits
    colocated: bool = False  # workers share the ranks' GPUs, sleep while those train, and map weights, not copy them
    in_flight: bool = False  # new weights arrive in the middle of a generation
    dtype: Annotated[Literal["float32", "bfloat16"], FIXED] = "bfloat16"
    tensor_parallel: int = Field(1, ge=1)  # GPUs per worker
    concurrent: int = Field(256, ge=1)  # sequences decoded together by one worker
    gpu_memory: float = Field(0.9, gt=0, lt=1)  # share of the GPU's memory that a worker takes
    kv_cache_mib: int = Field(0, ge=0)  # per worker; 0 = what is left of gpu_memory
    start_deadline_s: float = Field(600.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)  # for one batch
    update_deadline_s: float = Field(600.0, gt=0)  # for one phase of a weight sync
    bucket_mib: int = Field(512, ge=1)  # weights gathered and sent at a time
    max_restarts: int = Field(3, ge=0)  # how often workers that failed are started again
    parity_limit: float = Field(0.2, gt=0)  # nats: largest mean trainer/worker log-prob gap after a sync

    @model_validator(mode="after")
    def _check(self) -> Rollout:
        if bool(self.addresses) != bool(self.key_file):
            raise ValueError(f"key_file: got {self.key_file!r}, expected one exactly when there are addresses")
        if self.addresses and self.colocated:
            raise ValueError("colocated: got true, expected false with addresses")
        return self


class Verify(Layout):
    workers: int = Field(2, ge=1)  # verifier processes
    deadline_s: float = Field(20.0, gt=0)  # per response
    remote: str = Field("", pattern="^(https?://.+)?$")  # a service with SandboxFusion's API, which runs programs
    # instead of this machine
    max_error_share: float = Field(0.1, ge=0, le=1)  # [ours] of the responses of a batch; more errors end the run


class Server(Layout):
    """An OpenAI-compatible server that answers instead of an engine of ours."""

    base_url: str = ""  # e.g. http://host:8000/v1; empty = none
    key_variable: str = "OPENAI_API_KEY"  # the environment variable with the secret, where the server wants one
    concurrent: int = Field(64, ge=1)  # requests under way
    deadline_s: float = Field(3600.0, gt=0)  # for one response
    retries: int = Field(8, ge=0)  # of a request that fails for now (429, 5xx, no connection), with growing pauses
