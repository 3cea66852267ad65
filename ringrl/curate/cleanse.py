r"""Drops rows that no verifier can judge or that a guess would solve, each for the first reason in RULES that holds.

Invisible characters are repaired first. With `choices: convert`, a multiple-choice question that can stand alone is
kept without its options, which move into `choices`. The rules are in `wording`, `questions` and, for code, `programs`.
A shard calls the verifier once for all its programs.

An answer is in reach if it is plain (`ringrl.rewards.plain`), a text of few words, or an expression that the verifier
can use and evaluate (`ringrl.rewards.references`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ringrl.config.data import Cleanse, DataConfig
from ringrl.config.sections import Verify
from ringrl.curate import programs, questions, wording
from ringrl.curate.chain import MapShards
from ringrl.curate.programs import with_good_solutions, with_good_tests
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.workers import judge
from ringrl.domains import Domain, Domains
from ringrl.rewards.answers import last_boxed
from ringrl.rewards.plain import read, right_sides, split_unit
from ringrl.rewards.references import too_large, unusable
from ringrl.rewards.typography import clean

INVALID, EMPTY, LONG, IMAGE = "invalid characters", "empty", "too long", "image"
EARLIER = "earlier problem"
CHOICE, PARTS, YES_NO, PROOF = "multiple choice", "several parts", "yes or no", "proof"
NO_ANSWER, OUT_OF_REACH = "no answer", "answer out of reach"
RULES = {  # reason: (domains, description), in the order they are tried
    INVALID: ("all", "control characters, U+FFFD, surrogates, private use, bidirectional overrides, LaTeX escapes read "
              "as white space, UTF-8 read as Windows-1252"),
    EMPTY: ("all", "no word and no formula, or `[deleted]` and the like"),
    LONG: ("all", "more than `max_chars`"),
    IMAGE: ("all", "an image, a link to one, code that draws one; in words (\"as shown in the figure\") not of code"),
    CHOICE: ("math, science", "options; \"which of the following\"; unless `choices` converts or keeps them"),
    PARTS: ("math, science", "two or more labelled questions"),
    EARLIER: ("math, science", "a reference to another problem, or the continuation of one"),
    YES_NO: ("math, science", "the answer is yes, no, true, false, or the question wants that; unless `yes_no: keep`"),
    PROOF: ("math, science", "a proof is wanted, and no value"),
    NO_ANSWER: ("math, science", "none, or `N/A`, `see solution` and the like; in a user's domain: a required key"),
    OUT_OF_REACH: ("math, science", "braces that do not match, prose, what the verifier cannot read or evaluate"),
    programs.NO_TESTS: ("code", "none"),
    programs.BROKEN: ("code", "no test is left in a form that the verifier reads, with its line breaks"),
    programs.TRUNCATED: ("code", "no test is left that does not end with \"...\""),
    programs.NO_SOLUTION: ("code", "none, with `solutions: required`"),
    programs.FAILS: ("code", "no solution passes all tests; most give wrong output or an error"),
    programs.SLOW: ("code", "... most exceed the time limit of a test, or the verifier's of all tests"),
    programs.LARGE: ("code", "... most take too much memory"),
    programs.LACKS: ("code", "... most import what the sandbox does not have"),
    programs.UNCOMPILED: ("code", "... most are not in the row's language"),
    programs.NOT_RUN: ("code", "... most could not be judged: no compiler, no sandbox"),
}  # fmt: skip

MAX_ANSWER_CHARS = 200
MAX_WORDS = 4  # longest answer in words; longer prose is hardly ever worded the same way twice
MAX_MIXED_WORDS = 2  # longest text among formulas
_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{3,}(?:['’-][^\W\d_]+)*")
_LEFT, _RIGHT = re.compile(r"\\left(?![a-zA-Z])"), re.compile(r"\\right(?![a-zA-Z])")
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log",
              "exp", "sqrt", "mod", "gcd", "lcm", "max", "min", "and"}  # fmt: skip


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Cleanser:
    return Cleanser(cfg.cleanse, cfg.verify, cfg.known_domains)


@dataclass(frozen=True)
class Cleanser:
    """The step. Its result depends on the shard alone, except for programs close to their time limit."""

    cfg: Cleanse
    verify: Verify
    domains: Domains

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterator[Row | Dropped]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from parsing other people's programs and asserts
            results = [self.read(row) for row in rows]
            self._run_solutions(results)
        return iter(results)

    def read(self, row: Row) -> Row | Dropped:
        """Applies all rules that need no verifier."""
        domain, answer = self.domains[row["domain"]], ""
        problem = wording.repaired(row["problem"], markup=domain.comparison == "answer")
        row = {**row, "problem": problem}
        if domain.comparison == "answer":
            answer = row[domain.answer] = wording.repaired(row[domain.answer]).strip()
        if fault := wording.invalid_characters(problem) or wording.invalid_characters(answer):
            return Dropped(row, INVALID, {"detail": fault})
        if questions.is_empty(problem):
            return Dropped(row, EMPTY, {"detail": problem[:100]})
        if len(problem) > self.cfg.max_chars:
            return Dropped(row, LONG, {"detail": f"{len(problem)} characters"})
        if fault := wording.embedded_image(problem) or wording.embedded_image(answer):
            return Dropped(row, IMAGE, {"detail": fault})
        if domain.comparison == "equal":
            key = domain.missing(row) if self.cfg.answers == "required" else ""
            return Dropped(row, NO_ANSWER, {"detail": f"no {key}"}) if key else row
        return self._code(row, domain) if domain.comparison == "program" else self._words(row, domain.answer)

    def _words(self, row: Row, key: str) -> Row | Dropped:
        """The rules for domains with a final answer, which is under `key`."""
        if fault := wording.image_referred_to(row["problem"]):
            return Dropped(row, IMAGE, {"detail": fault})
        lists = questions.items_of(row["problem"])
        choice = questions.multiple_choice(row["problem"], row[key], lists) if self.cfg.choices != "keep" else None
        if choice and (self.cfg.choices == "drop" or not choice.question):
            return Dropped(row, CHOICE, {"detail": choice.detail})
        if choice:
            row = {**row, "problem": choice.question, key: choice.answer, "choices": list(choice.options)}
        elif fault := questions.several_parts(lists) or questions.asks_again(row["problem"]):
            return Dropped(row, PARTS, {"detail": fault})
        if fault := wording.earlier_problem(row["problem"]):
            return Dropped(row, EARLIER, {"detail": fault})
        if self.cfg.yes_no == "drop" and (fault := questions.yes_or_no(row["problem"], row[key])):
            return Dropped(row, YES_NO, {"detail": fault})
        if fault := questions.asks_for_proof(row["problem"]):
            return Dropped(row, PROOF, {"detail": fault})
        if questions.is_no_answer(row[key]) and self.cfg.answers != "ignored":
            if self.cfg.answers == "required" or row[key]:
                return Dropped(row, NO_ANSWER, {"detail": row[key]})
        elif self.cfg.answers != "ignored" and (fault := out_of_reach(row[key]) or self._unusable(row, key)):
            return Dropped(row, OUT_OF_REACH, {"detail": fault})
        return row

    def _unusable(self, row: Row, key: str) -> str:
        """Why the verifier cannot use or evaluate an answer, or ""."""
        if _needs_no_algebra(row[key]):
            return ""
        domain = self.domains[row["domain"]]
        fault = unusable(domain, domain.reference(row))
        return fault or (f"too large: {large[:80]}" if (large := too_large(row[key])) else "")

    def _code(self, row: Row, domain: Domain) -> Row | Dropped:
        if not row.get("tests"):
            return Dropped(row, programs.NO_TESTS) if self.cfg.answers == "required" else row
        if row.get("time_limit_s") is None:
            row["time_limit_s"] = self.cfg.time_limit_s
        if self.cfg.solutions == "required" and not row.get("solutions"):
            return Dropped(row, programs.NO_SOLUTION)
        return with_good_tests(row, domain) if self.cfg.answers != "ignored" else row

    def _run_solutions(self, results: list[Row | Dropped]) -> None:
        if self.cfg.solutions == "ignored":
            return
        rows = [(i, r) for i, r in enumerate(results) if isinstance(r, dict) and r.get("solutions") and r.get("tests")]
        solved = [(i, r) for i, r in rows if self.domains[r["domain"]].comparison == "program"]
        if solved:
            judge_programs = partial(judge, verify=self.verify, domains=self.domains)
            checked = with_good_solutions([r for _, r in solved], self.domains, judge_programs)
            for (i, _), result in zip(solved, checked, strict=True):
                results[i] = result


# ---- answers -----------------------------------------------------------------------------------------------


def out_of_reach(answer: str) -> str:
    """Why an answer cannot be verified, as far as that is known without the verifier, or ""."""
    if is_plain(answer):
        return ""
    inner = last_boxed(answer) or answer
    if not inner.strip("$ "):
        return "no content"
    if last_boxed(f"\\boxed{{{inner}}}") != inner or len(_LEFT.findall(inner)) != len(_RIGHT.findall(inner)):
        return "braces do not match"
    if len(inner) > MAX_ANSWER_CHARS:
        return f"{len(inner)} characters"
    words = [w for w in _WORD.findall(_COMMAND.sub(" ", inner)) if w.lower() not in _FUNCTIONS]
    most = MAX_WORDS if is_text(inner) else MAX_MIXED_WORDS
    prose = inner.split() if is_text(inner) else words
    return f"prose of {len(prose)} words" if len(prose) > most else ""


def _needs_no_algebra(answer: str) -> bool:
    return not answer or is_plain(answer) or is_text(answer)


def is_plain(answer: str) -> bool:
    """Whether the verifier reads this answer exactly, without algebra."""
    text = clean(answer)
    return read(split_unit(right_sides(text, text)[1]).magnitude) is not None


def is_text(answer: str) -> bool:
    """Whether the answer is words and nothing else."""
    return bool(re.fullmatch(r"[^\W\d_]+(?:[ '’,.&-]+[^\W\d_]+)*[.!]?", _COMMAND.sub("", answer).strip(" {}$")))
