"""Labels each problem: `topic` and `level` of math by the rules in `labels`, other labels by rules from the
configuration, the rest by asking a teacher.

Precedence: a label set by the source; the first rule whose expression matches; the teacher's choice, i.e. the last
allowed value in its answer; UNKNOWN. Rules look at the problem text alone and recognise only explicit wording: a
`topic` by the vocabulary of a subject, narrowest subject first; a `level` is university or high school when their
concepts appear, and primary school when there is no formula at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringrl.config.data import Annotate, DataConfig
from ringrl.curate.chain import MapShards, Phase
from ringrl.curate.labels import BY_DOMAIN
from ringrl.curate.sample import Asking
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.verdicts import Verdicts
from ringrl.rewards.answers import after_thinking
from ringrl.rollout.respond import Ask

UNKNOWN = "unknown"
QUESTION = """Label the problem below; do not solve it.

{problem}

The {label} of this problem is one of: {values}. Answer with one of these and nothing else."""


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Label:
    teacher = cfg.annotate.teacher
    return Label(Verdicts(after, (teacher.name,) if teacher else (), cfg.verify, cfg.known_domains), cfg.annotate)


def questions(phase: Phase, cfg: Annotate) -> Asking:
    """One question for every label that no rule decides and the teacher may choose."""
    assert phase.teacher
    name = f"{phase.step}/{phase.teacher.name}"

    def ask(row: Row) -> list[Ask]:
        choices = open_labels(by_rules(row, cfg), cfg)
        return [Ask(name, question(row, label, choice), 0) for label, choice in choices.items() if choice]

    return ask


def question(row: Row, label: str, choice: Sequence[str]) -> Row:
    text = QUESTION.format(problem=row["problem"], label=label, values=", ".join(choice))
    return {"id": f"{row['id']} {label}", "domain": row["domain"], "problem": text}


@dataclass(frozen=True)
class Label:
    """The step; it drops nothing."""

    store: Verdicts
    cfg: Annotate

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterable[Row | Dropped]:
        for row, by_teacher in self.store.answers(shard, rows):
            answers = iter([a for own in by_teacher.values() for a in own])
            labelled = by_rules(row, self.cfg)
            from_teacher = {
                label: chosen(next(answers), choice) if choice and by_teacher else UNKNOWN
                for label, choice in open_labels(labelled, self.cfg).items()
            }
            yield {**labelled, **from_teacher}


def open_labels(row: Row, cfg: Annotate) -> dict[str, tuple[str, ...]]:
    """Labels the row lacks, each with the values a teacher may choose from."""
    rules = rules_of(row, cfg)
    labels = dict.fromkeys((*rules, *cfg.values))
    return {label: cfg.values.get(label) or tuple(rules.get(label, ())) for label in labels if label not in row}


def by_rules(row: Row, cfg: Annotate) -> Row:
    """The row plus the labels that rules decide, leaving labels set by the source alone."""
    from_rules: dict[str, str] = {}
    for label, values in rules_of(row, cfg).items():
        if label not in row:
            hits = (value for value, pattern in values.items() if re.search(pattern, row["problem"], re.IGNORECASE))
            if value := next(hits, ""):
                from_rules[label] = value
    return {**row, **from_rules}


def rules_of(row: Row, cfg: Annotate) -> Mapping[str, Mapping[str, str]]:
    return {**BY_DOMAIN.get(row["domain"], {}), **cfg.rules}


def chosen(answer: Mapping[str, Any], choice: Sequence[str]) -> str:
    """The last allowed value in the answer; the longer one if one value is a prefix of another."""
    longest = sorted(choice, key=len, reverse=True)
    pattern = r"(?<!\w)(?:" + "|".join(re.escape(v) for v in longest) + r")(?!\w)"
    named = re.findall(pattern, after_thinking(answer["text"]), re.IGNORECASE)
    return next((v for v in choice if named and v.lower() == named[-1].lower()), UNKNOWN)
