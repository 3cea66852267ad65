"""Knobs of `ringrl data`: the sources, and a section for each step.

`steps` lists the steps to run, in order; a step without a section runs on defaults. Thresholds are [ours]: the paper
names these steps (§2.2-2.3) but gives no numbers for them.
"""

from __future__ import annotations

import math
import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ringrl.config.load import FREE, Knobs
from ringrl.config.sections import NAME, NamesDomains, Prompting, Rollout, RunConfig, Server, Source, Verify, each_once
from ringrl.domains import BUILT_IN

SET_HERE = ("id", "own_id", "source", "where", "step", "reason", "output",
            "pass_rates", "agreement", "lengths", "pass_rate", "bin")  # row keys  # fmt: skip
StepName = Literal["cleanse", "deduplicate", "decontaminate", "grade", "distil", "annotate", "mix"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as e:
        raise ValueError(f"got {pattern!r}, expected a regular expression: {e}") from None
    return pattern


Regex = Annotated[str, AfterValidator(_compiles)]


class Pile(Source):
    """One source of raw rows. Besides a problem's keys a row may have `solutions` (programs accepted elsewhere)
    and `responses` (from a teacher); a row with `messages` is a problem with one response."""

    name: str = Field(pattern=NAME)  # label in reports, written to every row as `source`
    remove: tuple[Regex, ...] = ()  # matches are cut out of the problem, e.g. an instruction
    labels: dict[str, str] = {}  # added to every row, e.g. {level: high school}


class Teacher(Knobs):
    """A model that solves or labels problems: a folder that a rollout engine loads, or one behind a server."""

    name: str = Field(pattern=NAME)  # label in rows and reports
    model: str  # a folder, or its name on the server
    rollout: Rollout = Rollout()  # deadline_s covers the answers to one shard
    server: Server = Server()


class Sampled(Knobs):
    """Knobs shared by the steps that sample from models."""

    teachers: Annotated[tuple[Teacher, ...], AfterValidator(each_once)] = ()
    samples: int = Field(8, ge=1)  # k, responses per problem and model
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_total_tokens: int = Field(32768, ge=2)  # prompt + response; with a server, the response alone
    prompting: Prompting = Prompting()


class Embedding(Knobs):
    """A model whose embeddings measure meaning; unused while `model` is empty."""

    model: str = ""  # a folder that transformers.AutoModel loads (mean over tokens), or the server's name for it
    server: Server = Server()  # answers POST BASE_URL/embeddings
    similarity: float = Field(0.95, gt=0, le=1)  # cosine at which two problems count as the same; depends on the model


class Paraphrases(Embedding):
    """A lower threshold: a false match costs one row, a missed one contaminates a benchmark."""

    similarity: float = Field(0.85, gt=0, le=1)


class Cleanse(Knobs):
    """Drops what a verifier cannot judge [P §2.2]."""

    choices: Literal["drop", "convert", "keep"] = "drop"  # multiple choice; convert: ask for the answer instead
    yes_no: Literal["drop", "keep"] = "drop"  # includes true/false questions
    max_chars: int = Field(20_000, ge=1)  # characters of the problem text
    answers: Literal["required", "checked", "ignored"] = "required"  # also for tests of code; checked: only if present
    solutions: Literal["required", "checked", "ignored"] = "required"  # code: one must pass all tests [P §2.3];
    # checked: rows without solutions stay
    time_limit_s: float = Field(6.0, gt=0)  # CPU time per test, for rows of code that set none


class Deduplicate(Knobs):
    """Drops exact and near duplicates within the set and, with an embedding model, paraphrases."""

    threshold: float = Field(0.7, gt=0, le=1)  # Jaccard similarity of character or word n-grams; numbers must match
    embedding: Embedding = Embedding()


class Decontaminate(Knobs):
    """Drops what is close to a benchmark or another file: common n-grams, near duplicates, paraphrases."""

    benchmarks: tuple[str, ...] = ("all",)  # names known to `ringrl eval`, or "all" of them
    data: str = ""  # folder with NAME.jsonl (.parquet, .csv) per benchmark; missing files come from the hub
    files: tuple[str, ...] = ()  # more problems to exclude: rows with problem, question or messages
    ngram: int = Field(13, ge=5, le=64)  # words, as in GPT-3's contamination study (arXiv 2005.14165, app. C)
    share: float = Field(0.5, gt=0, le=1)  # fraction of a known problem's words inside common n-grams
    threshold: float = Field(0.5, gt=0, le=1)  # fraction of its weighted character n-grams in one passage [ours]; raise
    # towards 1 for templated problems, where the same words with other numbers match as well
    embedding: Paraphrases = Paraphrases()


class Grade(Sampled):
    """Pass rates by sampling. `teachers`: first the model that RL starts from, then stronger ones
    [P §2.3]."""

    bins: int = Field(10, ge=1)  # difficulty bins of equal width in the first teacher's pass rate; 0 is hardest
    keep_right: bool = False  # keep correct responses on the row, so that `distil` need not sample again


class Distil(Sampled):
    """SFT data by rejection sampling: correct, well-formed responses [P §2.1]. Without `teachers`, only
    those that rows already carry."""

    verify: bool = True  # false: filter responses without judging them
    keep: Literal["all", "shortest"] = "all"  # which of the remaining responses
    most: int = Field(0, ge=0)  # per problem, the first or the shortest; 0 = all, or the single shortest
    min_chars: int = Field(1, ge=0)
    max_chars: int = Field(200_000, ge=1)
    repetition: float = Field(0.2, gt=0, le=1)  # largest fraction of repeated passages; Gopher allows 0.1 to 0.2 for
    # n-grams of 5 to 10 words (arXiv 2112.11446)
    think: Literal["required", "balanced"] = "balanced"  # think tags; balanced: none is fine


class Annotate(Knobs):
    """Labels by rules or by a model: `level`, `topic`, or any other. Labels set by a source stay."""

    rules: dict[str, dict[str, Regex]] = {}  # label -> value -> case-insensitive regular expression over the
    # problem; the first match wins. Built in for math: topic and level
    teacher: Teacher | None = None  # labels what no rule matches, with one sample at temperature 0
    values: dict[str, tuple[str, ...]] = {}  # label -> the teacher's choices; missing: the values of its rules
    prompting: Prompting = Prompting(suffix={})
    max_total_tokens: int = Field(4096, ge=2)  # prompt + answer; with a server, the answer alone


class Output(NamesDomains):
    """One output file."""

    name: str = Field(pattern=NAME)  # RUN/data/NAME.jsonl
    form: Literal["problems", "conversations"] = "problems"  # conversations: one per kept response (SFT)
    rows: int = Field(0, ge=0)  # most problems; 0 = all remaining
    domains: tuple[str, ...] = ()  # empty = all
    weights: dict[str, float] = {}  # relative number of problems per domain, e.g. {math: 0.645, code: 0.255,
    # science: 0.092} [P §2.1]; a domain without a weight is left out. Empty = no weighting
    caps: dict[str, int] = {}  # source -> most problems taken from it

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
    """Assigns rows to files by a seeded draw; each output draws from what earlier ones left."""

    outputs: Annotated[tuple[Output, ...], AfterValidator(each_once)] = Field((Output(name="train"),), min_length=1)
    prompting: Prompting = Prompting()  # conversations are prompted as `rl` will prompt


class DataConfig(RunConfig):
    """`ringrl data`: from raw problems to trainable data [P §2]."""

    hooked = False

    seed: int = 0
    sources: Annotated[tuple[Pile, ...], AfterValidator(each_once)] = Field(min_length=1)
    steps: Annotated[tuple[StepName, ...], AfterValidator(each_once)] = (
        "cleanse", "deduplicate", "decontaminate", "annotate", "mix",
    )  # after reading  # fmt: skip
    workers: Annotated[int, FREE] = Field(0, ge=0)  # processes; 0 = one per core
    shard_rows: int = Field(2000, ge=1)  # rows per unit of work: bounds memory and what a kill loses
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
        """Refuses settings that would silently drop or overwrite data of the user's domains."""
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
