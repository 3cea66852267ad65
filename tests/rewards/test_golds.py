"""Golds of every form: a wrong neighbour never passes, and the gold in other spellings always does."""

from __future__ import annotations

import random

import pytest

from ringrl.rewards.answers import verify_math, verify_science
from ringrl.rewards.references import check_reference
from tests.rewards.golds import MATH, RESPONSES, SCIENCE

FORMS = [(form, "math", verify_math) for form in MATH] + [(form, "science", verify_science) for form in SCIENCE]


@pytest.mark.parametrize("golds", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_wrong_neighbours_fail_and_other_spellings_pass(golds):
    r = random.Random(golds)
    found = []
    for n in range(golds):
        form, domain, verify = FORMS[n % len(FORMS)]
        gold, wrong, right = form(r)
        assert len(set(wrong)) >= 3, form.__name__
        assert len(set(right)) >= 5, form.__name__
        check_reference(domain, {"answer": gold})
        responses = [(rf"So \boxed{{{answer}}}.", "fail") for answer in wrong]
        responses += [(rf"So \boxed{{{answer}}}.", "pass") for answer in right]
        responses += [(said(gold), "pass") for said in r.sample(RESPONSES, 3)]
        found += [
            (domain, form.__name__, gold, response, verdict)
            for response, expected in responses
            if (verdict := verify(response, {"answer": gold})).kind != expected
        ]
    assert found == []
