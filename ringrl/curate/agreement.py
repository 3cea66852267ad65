"""Whether the answers of two rows are the same: read as numbers where they are plain, by the verifier otherwise.

What neither can tell is None, and None is no agreement.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ringrl.config.sections import Verify
from ringrl.curate.lsh import kind_of
from ringrl.curate.shards import Row
from ringrl.curate.workers import judge
from ringrl.domains import Domains
from ringrl.rewards.answers import last_boxed
from ringrl.rewards.plain import read, right_sides, same, split_unit
from ringrl.rewards.typography import clean, skeleton

MAX_ANSWER_CHARS = 1000  # longer ones are not read
_COUNTED = re.compile(r"(?:\\text\s*\{)?([-+]?\d[\d.,/]*)\s*[^\W\d_a-zA-Z]{1,12}\}?")  # 3元, 7 яблок
_UNREAD = ("too_long", "unreadable")  # reasons of a verifier that did not compare
FinalAnswer = tuple[str, str]  # kind of problem (`lsh.kind_of`), and the answer as a text: "" for none, and for code


@dataclass(frozen=True)
class Answers:
    """Compares the answers of rows."""

    verify: Verify
    domains: Domains

    def agree(self, one: Row, two: Row) -> bool | None:
        """True or False; None if one of the rows has no answer or nothing can compare the two."""
        left, right = final_answer(one, self.domains), final_answer(two, self.domains)
        if left[0] != right[0]:
            return False
        if not left[1] or not right[1]:
            return None
        if left[0] != "answer":
            return left[1] == right[1]
        quick = same_answer(left[1], right[1])
        return self._verified(one, two) if quick is None else quick

    def contradict(self, one: Row, two: Row) -> bool:
        """Whether two rows have answers that are not known to be the same."""
        has = [bool(final_answer(row, self.domains)[1]) for row in (one, two)]
        return kind_of(self.domains[one["domain"]]) != kind_of(self.domains[two["domain"]]) or (
            all(has) and self.agree(one, two) is not True
        )

    def _verified(self, one: Row, two: Row) -> bool | None:
        requests = []
        for row, other in ((one, two), (two, one)):
            domain, answer = self.domains[row["domain"]], other[self.domains[other["domain"]].answer]
            if len(answer) > MAX_ANSWER_CHARS:
                return None
            requests.append((row["domain"], rf"\boxed{{{last_boxed(answer) or answer}}}", domain.reference(row)))
        verdicts = judge(requests, self.verify, self.domains)
        if any(v.kind == "pass" for v in verdicts):
            return True
        return False if any(v.kind == "fail" and v.reason not in _UNREAD for v in verdicts) else None


def final_answer(row: Row, domains: Domains) -> FinalAnswer:
    """The final answer without its box and typesetting."""
    domain = domains[row["domain"]]
    answer = row.get(domain.answer, "") if domain.answer else ""
    if domain.comparison != "answer":
        return kind_of(domain), "" if answer in (None, "") else json.dumps(answer, sort_keys=True)
    return kind_of(domain), clean(last_boxed(answer) or answer) if len(answer) <= MAX_ANSWER_CHARS else answer


def same_answer(a: str, b: str) -> bool | None:
    """Whether two clean answers are equal; None if that takes the verifier or one is missing."""
    if not a or not b:
        return None
    if skeleton(a).casefold() == skeleton(b).casefold():
        return True
    if max(len(a), len(b)) > MAX_ANSWER_CHARS:
        return None
    left, right = (split_unit(_without_counter(side)) for side in right_sides(a, b))
    x, y = read(left.magnitude), read(right.magnitude)
    if x is None or y is None:
        return None
    units = left.unit is not None and right.unit is not None and left.unit != right.unit
    if same(x, y, lambda p, q: p == q):
        return None if units else True
    return None if left.unit != right.unit else False


def _without_counter(text: str) -> str:
    match = _COUNTED.fullmatch(text)
    return match[1] if match else text
