"""Knobs of `ringrl data`: the sources, and a section for every step that they go through.

Every step works without its section, on defaults; `steps` says which are taken, and in which order. Thresholds are
[ours]: the paper names these steps (§2.2-2.3) and none of their numbers.
"""

from __future__ import annotations

import math
import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ringrl.config.load import FREE, Knobs
from ringrl.config.sections import NAME, NamesDomains, Prompting, Rollout, RunConfig, Server, Source, Verify
from ringrl.domains import BUILT_IN

SET_HERE = ("id", "own_id", "source", "where", "step", "reason", "output",
            "pass_rates", "agreement", "lengths", "pass_rate", "bin")  # keys of rows  # fmt: skip
StepName = Literal["cleanse", "deduplicate", "decontaminate", "grade", "distil", "annotate", "mix"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as e:
        raise ValueError(f"got {pattern!r}, expected a regular expression: {e}") from None
    return pattern


def _each_once(named: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of texts, or of what has a name."""
    names = [n if isinstance(n, str) else n.name for n in named]
    if len(set(names)) < len(names):
        raise ValueError(f"got {', '.join(names)}, expected each name once")
    return named


Regex = Annotated[str, AfterValidator(_compiles)]


class Pile(Source):
    """One source of raw rows. Besides a problem's keys a row may have `solutions` (programs that were accepted
    elsewhere) and `responses` (of a teacher); a row of `messages` is a problem with one response."""

    name: str = Field(pattern=NAME)  # what reports call it; kept on every row as `source`
    remove: tuple[Regex, ...] = ()  # what these match is no part of the problem, e.g. an instruction
    labels: dict[str, str] = {}  # written on every row, e.g. {level: high school}


class Teacher(Knobs):
    """A model that solves problems or labels them: a folder, through an engine of ours, or a server's."""

    name: str = Field(pattern=NAME)  # what rows and reports call it
    model: str  # a folder, or the name that the server knows it by
    rollout: Rollout = Rollout()  # its deadline_s is for the answers to one shard
    server: Server = Server()


class Sampled(Knobs):
    """What the steps with models have in common."""

    teachers: Annotated[tuple[Teacher, ...], AfterValidator(_each_once)] = ()
    samples: int = Field(8, ge=1)  # k, responses per problem and model
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_total_tokens: int = Field(32768, ge=2)  # prompt + response; of the response alone with a server
    prompting: Prompting = Prompting()


class Embedding(Knobs):
    """A model whose embeddings tell meaning; none unless `model` is given."""

    model: str = ""  # a folder that transformers.AutoModel loads (mean over tokens), or the server's name for it
    server: Server = Server()  # of POST BASE_URL/embeddings
    similarity: float = Field(0.95, gt=0, le=1)  # cosine, from which on two problems mean the same; models differ


class Paraphrases(Embedding):
    """Less is asked: a wrong hit costs a row, a miss a benchmark."""

    similarity: float = Field(0.85, gt=0, le=1)


class Cleanse(Knobs):
    """What is no problem for a verifier [P §2.2]."""

    choices: Literal["drop", "convert", "keep"] = "drop"  # multiple choice; convert: ask for the answer itself
    yes_no: Literal["drop", "keep"] = "drop"  # and true or false
    max_chars: int = Field(20_000, ge=1)  # of a problem
    answers: Literal["required", "checked", "ignored"] = "required"  # and tests of code; checked: those that are there
    solutions: Literal["required", "checked", "ignored"] = "required"  # of code: one must pass all tests [P §2.3];
    # checked: rows without any go on
    time_limit_s: float = Field(6.0, gt=0)  # CPU time of a test, written on rows of code that name none


class Deduplicate(Knobs):
    """Exact and near duplicates within the set, and of meaning with an embedding model."""

    threshold: float = Field(0.7, gt=0, le=1)  # Jaccard similarity of character or word n-grams, of the same numbers
    embedding: Embedding = Embedding()


class Decontaminate(Knobs):
    """Against benchmarks and any other file: n-grams in common, near duplicates, and meaning."""

    benchmarks: tuple[str, ...] = ("all",)  # names as `ringrl eval` knows them, or "all" of these
    data: str = ""  # folder with NAME.jsonl (.parquet, .csv) of benchmarks; those without a file come from the hub
    files: tuple[str, ...] = ()  # further problems to keep out: rows with problem, question or messages
    ngram: int = Field(13, ge=5, le=64)  # words; as GPT-3's study of contamination has it (arXiv 2005.14165, app. C)
    share: float = Field(0.5, gt=0, le=1)  # of a known problem's words, in n-grams in common
    threshold: float = Field(0.5, gt=0, le=1)  # share of its weighed runs of characters in one passage [ours]; towards
    # 1 if all problems come from a few templates: other numbers in the same words are found, too
    embedding: Paraphrases = Paraphrases()


class Grade(Sampled):
    """Pass rates by sampling. The first of `teachers` is the model that RL starts from; the others are stronger
    [P §2.3]."""

    bins: int = Field(10, ge=1)  # of difficulty, of equal width in the first teacher's pass rate; 0 is the hardest
    keep_right: bool = False  # responses that are right stay on the row: `distil` filters them without sampling again


class Distil(Sampled):
    """SFT data by rejection sampling: responses that are right and well formed [P §2.1]. Without `teachers` only of
    those that rows come with."""

    verify: bool = True  # false: responses are filtered, not judged
    keep: Literal["all", "shortest"] = "all"  # of the responses that are left
    most: int = Field(0, ge=0)  # kept per problem, the first or the shortest; 0 = all, or the one that is shortest
    min_chars: int = Field(1, ge=0)
    max_chars: int = Field(200_000, ge=1)
    repetition: float = Field(0.2, gt=0, le=1)  # share of the text that repeated passages may take, near Gopher's
    # 0.1 to 0.2 for n-grams of 5 to 10 words (arXiv 2112.11446)
    think: Literal["required", "balanced"] = "balanced"  # tags; balanced: or none


class Annotate(Knobs):
    """Labels, by rules or by a model: `level`, `topic`, or any other; what a source sets stays."""

    rules: dict[str, dict[str, Regex]] = {}  # label -> value -> regular expression over the problem (case aside), the
    # first that matches; built in, for math: topic and level
    teacher: Teacher | None = None  # asked for what no rule knows, once, at temperature 0
    values: dict[str, tuple[str, ...]] = {}  # label -> what the teacher may choose from; none: the values of its rules
    prompting: Prompting = Prompting(suffix={})
    max_total_tokens: int = Field(4096, ge=2)  # prompt + answer; of the answer alone with a server


class Output(NamesDomains):
    """One file of the result."""

    name: str = Field(pattern=NAME)  # RUN/data/NAME.jsonl
    form: Literal["problems", "conversations"] = "problems"  # conversations: one for every response kept (SFT)
    rows: int = Field(0, ge=0)  # problems, at most; 0 = all that are left
    domains: tuple[str, ...] = ()  # empty = all
    weights: dict[str, float] = {}  # shares of domains in problems, e.g. {math: 0.645, code: 0.255, science: 0.092}
    # [P §2.1], as parts of their sum; a domain without one gives nothing. Empty = as they come
    caps: dict[str, int] = {}  # source -> at most so many problems of it

    @property
    def domain_names(self) -> dict[str, str]:
        listed = {f"domains.{i}": name for i, name in enumerate(self.domains)}
        return listed | {f"weights.{name}": name for name in self.weights}

    @model_validator(mode="after")
    def _check(self) -> Output:
        for domain, weight in self.weights.items():
            if self.domains and domain not in self.domains:
                raise ValueError(f"weights.{domain}: got {weight}, expected one of domains {', '.join(self.domains)}")
        if self.weights and (min(self.weights.values()) < 0 or not 0 < sum(self.weights.values()) < math.inf):
            raise ValueError(f"weights: got {self.weights}, expected none below 0 and one above")
        if self.caps and min(self.caps.values()) < 0:
            raise ValueError(f"caps: got {self.caps}, expected none below 0")
        return self


class Mix(Knobs):
    """Which rows go into which file, by a seeded draw; an output takes what those before it left over."""

    outputs: Annotated[tuple[Output, ...], AfterValidator(_each_once)] = Field((Output(name="train"),), min_length=1)
    prompting: Prompting = Prompting()  # how `rl` will ask: so do conversations


class DataConfig(RunConfig):
    """`ringrl data`: from raw problems to trainable data [P §2]."""

    seed: int = 0
    sources: Annotated[tuple[Pile, ...], AfterValidator(_each_once)] = Field(min_length=1)
    steps: Annotated[tuple[StepName, ...], AfterValidator(_each_once)] = (
        "cleanse", "deduplicate", "decontaminate", "annotate", "mix",
    )  # after reading  # fmt: skip
    workers: Annotated[int, FREE] = Field(0, ge=0)  # processes; 0 = one per core
    shard_rows: int = Field(2000, ge=1)  # rows in a worker's hands at a time: its memory, and what a kill loses
    cleanse: Cleanse = Cleanse()
    deduplicate: Deduplicate = Deduplicate()
    decontaminate: Decontaminate = Decontaminate()
    grade: Grade = Grade()
    distil: Distil = Distil()
    annotate: Annotate = Annotate()
    mix: Mix = Mix()
    verify: Verify = Verify()

    @property
    def processes(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        names = [s.name for s in self.sources]
        if "mix" in self.steps[:-1]:
            raise ValueError(f"steps: got {', '.join(self.steps)}, expected mix at the end")
        for i, output in enumerate(self.mix.outputs):
            if unknown := [source for source in output.caps if source not in names]:
                raise ValueError(f"mix.outputs.{i}.caps.{unknown[0]}: expected one of sources {', '.join(names)}")
        if "grade" in self.steps and not self.grade.teachers:
            raise ValueError("grade.teachers: got none, expected at least the model that RL starts from")
        self._check_domains()
        return self

    def _check_domains(self) -> None:
        """That nothing of the user's domains is lost on the way."""
        for name, section in self.domains.items():
            for key in (*section.keys, *section.required, section.answer):
                if key in SET_HERE:
                    raise ValueError(f"domains.{name}: got the key {key!r} of a row, expected another: ringrl data "
                                     f"sets {', '.join(SET_HERE)} itself")  # fmt: skip
        outputs = self.mix.outputs if "mix" in self.steps else ()
        taken = {name for output in outputs for name in output.domains}
        for source in self.sources if outputs and all(output.domains for output in outputs) else ():
            if source.domain not in ("row", *taken, *BUILT_IN):
                raise ValueError(f"mix.outputs: got none that takes domain {source.domain} of source {source.name}, "
                                 f"expected it among the domains of one")  # fmt: skip
