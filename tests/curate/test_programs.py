"""Tests that say what they mean, and programs run against them in the sandbox; nothing else goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ringrl.config.data import Cleanse
from ringrl.config.sections import Verify
from ringrl.curate import programs
from ringrl.curate.cleanse import Cleanser
from ringrl.curate.programs import has_typed_breaks, is_cut_off, with_good_tests
from ringrl.curate.shards import Dropped, Row
from ringrl.curate.workers import verifier
from ringrl.domains import BUILT_IN, Domains
from ringrl.rewards.code import same_output

SUM = "print(sum(map(int, input().split())))"
PAIRS = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 6\n", "output": "11\n"}]
CODE = BUILT_IN["code"]
VERIFY = Verify(deadline_s=20)


@pytest.fixture(scope="module", autouse=True)
def _verifier() -> Iterator[None]:
    yield
    verifier(VERIFY.deadline_s, Domains()).close()
    verifier.cache_clear()


def row(tests: Any, *solutions: str, **more: Any) -> Row:
    problem = {"id": "s/0", "source": "s", "domain": "code", "problem": "Print the sum of the numbers."}
    return {**problem, "tests": tests, "solutions": list(solutions), **more}


def cleansed(*rows: Row, **how: Any) -> list[Row | Dropped]:
    return list(Cleanser(Cleanse(**how), VERIFY, Domains())(0, rows))


def left_of(tests: Any, **more: Any) -> Row | Dropped:
    return with_good_tests(row(tests, **more), CODE)


BROKEN = [  # one broken test each, with what goes with it
    ("1 2 3", {}),
    ({"input": "1 2"}, {}),
    ({"output": "3"}, {}),
    ({"input": 1, "output": "3"}, {}),
    ({"input": ["1"], "output": "3"}, {}),
    ({"input": "1 2", "output": None}, {}),
    ({"input": "2\\n1 2\\n", "output": "3"}, {}),
    ({"input": "1 2", "output": "3\\n4\\n5"}, {}),
    ({"input": "3\\r\\n1 2 3", "output": "6"}, {}),
    ({"input": "abc\\n", "output": "3"}, {}),
    ({"input": "", "output": ""}, {}),
    ({"input": "1 \ufffd", "output": "3"}, {}),
    ("assert f(1) == ", {}),
    ("assert f([1, 2 == 3", {}),
    ("assert f('a) == 3", {}),
    ({"input": "[1, 2\n3", "output": "3"}, {"entry_point": "f"}),
    ({"input": "[1]\\n2", "output": "3"}, {"entry_point": "f"}),
    ({"input": [1, 2]}, {"entry_point": "f"}),
]
TRUNCATED = [
    ({"input": "3\n1 2...", "output": "3"}, {}),
    ({"input": "3\n1 2 3", "output": "1 2 3 ..."}, {}),
    ({"input": "5", "output": "..."}, {}),
    ({"input": "abcde...", "output": "5"}, {}),
    ({"input": "9 9\n9 8…", "output": "5"}, {}),
    ({"input": "1", "output": "1\n2\n..."}, {}),
    ({"input": "1 2 3 [truncated]", "output": "6"}, {}),
    ({"input": "100000\n" + "999 " * 60 + "9...", "output": "6"}, {}),
    ("assert f([1, 2, ...]) == 3", {}),
    ("assert f([1, 2, 3...", {}),
    ({"input": [[1, 2, "..."]], "output": 3}, {"entry_point": "f"}),
    ({"input": "[1, 2, ...", "output": "3"}, {"entry_point": "f"}),
]
SOUND = [  # that look a little like it
    ({"input": "2 3\n#..\n...\n", "output": "5"}, {}),
    ({"input": "3", "output": ".#.\n#..\n..."}, {}),
    ({"input": "1", "output": "Loading..."}, {"problem": "Print Loading... that often."}),
    ({"input": "1 3\nS..", "output": "2"}, {}),
    ({"input": "1 4\nS...", "output": "3"}, {"problem": "'S' is the start and '.' is free."}),
    ({"input": "a\\nb\nc", "output": "3"}, {}),
    ({"input": "C:\\new", "output": "3"}, {}),
    ({"input": 'print("a\\n")', "output": "3"}, {}),
    ({"input": "1\\n2", "output": "1\n2"}, {"problem": 'Expand the escape sequence \\n.'}),
    ({"input": "", "output": "Hello"}, {}),
    ({"input": "0", "output": ""}, {}),
    ({"input": "end.", "output": "1.5"}, {}),
    ({"input": "...", "output": "3"}, {"problem": "Count the dots."}),
    ("assert f('a...') == 4", {}),
    ("def check(candidate):\n    assert candidate(1) == 2\n", {"entry_point": "f"}),
    ({"input": [["..", ".."]], "output": ["..."]}, {"entry_point": "f"}),
    ({"input": "\"a\\nb\"\n[1]", "output": "3"}, {"entry_point": "f"}),
]  # fmt: skip


def test_there_are_enough():
    assert min(len(BROKEN), len(TRUNCATED), len(SOUND)) >= 6


@pytest.mark.parametrize(("broken", "more"), BROKEN)
def test_a_row_with_nothing_but_broken_tests_is_dropped(broken: Any, more: Row):
    said = left_of([broken], **more)
    assert isinstance(said, Dropped)
    assert said.reason == programs.BROKEN
    assert "test 0: " in said.more["detail"]


@pytest.mark.parametrize(("cut", "more"), TRUNCATED)
def test_a_row_with_nothing_but_truncated_tests_is_dropped(cut: Any, more: Row):
    said = left_of([cut], **more)
    assert isinstance(said, Dropped)
    assert (said.reason, said.more["detail"][:17]) == (programs.TRUNCATED, "test 0: truncated")


@pytest.mark.parametrize(("test", "more"), SOUND)
def test_sound_tests_stay_as_they_are(test: Any, more: Row):
    before = row([test], **more)
    assert with_good_tests(before, CODE) == before


@pytest.mark.parametrize(("broken", "more"), [b for b in BROKEN + TRUNCATED if not isinstance(b[0], str)])
def test_a_broken_test_goes_and_the_others_stay(broken: Any, more: Row):
    good = {"input": [1], "output": 2} if more else PAIRS[0]
    said = left_of([good, broken, good], **more)
    assert isinstance(said, dict)
    assert said["tests"] == [with_good_tests(row([good], **more), CODE)["tests"][0]] * 2
    assert len(said["removed"]) == 1
    assert said["removed"][0].startswith("test 1: ")


def test_asserts_in_one_text_are_tests_of_their_own():
    said = left_of("assert f(1) == 2\nassert f([1, 2, ...]) == 3\nassert f(2) ==")
    assert isinstance(said, dict)
    assert said["tests"] == "assert f(1) == 2"
    assert [r[:17] for r in said["removed"]] == ["test 1: truncated", "test 2: broken: S"]
    whole = "x = 1\nassert f(x) == 2"
    assert left_of(whole) == row(whole)


@pytest.mark.parametrize("tests", [{"inputs": [1]}, 7, [], {}, "", None, [7], {"private_test_cases": "x"}])
def test_what_are_no_tests(tests: Any):
    [said] = cleansed(row(tests, SUM))
    assert isinstance(said, Dropped)
    assert said.reason == (programs.NO_TESTS if not tests else programs.BROKEN)


@pytest.mark.parametrize("more", [{"language": "rust"}, {"checker": "x = 1"}, {"time_limit_s": -1}])
def test_a_row_that_the_verifier_cannot_read(more: Row):
    [said] = cleansed(row(PAIRS, SUM, **more))
    assert isinstance(said, Dropped)
    assert said.reason == programs.BROKEN
    assert next(iter(more)) in said.more["detail"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.30000000000000004", "0.3"),
        ("0.7999999999999999 x 1.0", "0.8 x 1.0"),
        ("0.99999999999999999", "1.0"),
        ("-2.0000000000000001\n3", "-2.0\n3"),
        ("3.14159", "3.14159"),
        ("12345678901234567890", "12345678901234567890"),
        ("0.1000", "0.1000"),
        ("v1.2.3000000000000000000004", "v1.2.3000000000000000000004"),
        ("a  \r\nb\t\rc\n", "a\nb\nc\n"),
    ],
)
def test_outputs_are_normalised_to_what_the_judge_takes_for_the_same(given: str, expected: str):
    said = left_of([{"input": "1", "output": given}])
    assert isinstance(said, dict)
    assert said["tests"][0]["output"] == expected
    assert same_output(given.replace("\r\n", "\n").replace("\r", "\n"), expected)
    assert same_output(expected, expected)


def test_what_must_not_be_normalised():
    text = {"input": "a \n1 2 \r\nb", "output": "0.30000000000000004"}
    exact, checked = left_of([text], compare="exact"), left_of([text], checker="def check(i, o, e): return True")
    assert isinstance(exact, dict)
    assert isinstance(checked, dict)
    for said in (exact, checked):
        assert said["tests"] == [{"input": "a \n1 2\nb", "output": "0.30000000000000004"}]
    called = left_of([{"input": [0.1, 0.2], "output": [0.30000000000000004, 7]}], entry_point="f")
    assert isinstance(called, dict)
    assert called["tests"] == [{"input": [0.1, 0.2], "output": [0.3, 7]}]
    text = "assert f(0.1, 0.2) == 0.30000000000000004"
    assert left_of([text]) == row([text])


def test_long_texts_are_read_in_linear_time():
    text = "1 " * 500_000
    assert not is_cut_off(text, "")
    assert is_cut_off(f"{text}1...", "")
    assert not has_typed_breaks(text, "")


GREEDY = "x = [0] * (1 << 29)\nprint(sum(map(int, input().split())))"
SOLUTIONS = {
    programs.FAILS: ["print(0)", "print(1 / 0)", "print(input(), input())"],
    programs.SLOW: ["while True: pass", "import time\ntime.sleep(60)"],
    programs.LARGE: [GREEDY],
    programs.LACKS: ["import no_such_module\nprint(3)", "from no_such_package.part import x\n" + SUM],
    programs.UNCOMPILED: ["print 3", "def f(:", ""],
}


@pytest.mark.parametrize("reason", SOLUTIONS)
def test_solutions_that_do_not_pass(reason: str):
    found = cleansed(*(row(PAIRS, s) for s in SOLUTIONS[reason]), time_limit_s=1)
    assert [r.reason if isinstance(r, Dropped) else "kept" for r in found] == [reason] * len(found)
    assert all(isinstance(r, Dropped) and r.more["detail"].startswith(reason) for r in found)


def test_those_that_pass_stay_and_the_others_are_told():
    [said] = cleansed(row(PAIRS, "print(0)", SUM, "import no_such_module", f"# again\n{SUM}"))
    assert isinstance(said, dict)
    assert said["solutions"] == [SUM, f"# again\n{SUM}"]
    assert said["removed"] == ["solution fails: wrong in test 0 (0)", "solution lacks a module: no_such_module (2)"]
    assert said["time_limit_s"] == 6.0


def test_the_most_frequent_fault_is_the_reason():
    [said] = cleansed(row(PAIRS, "print(0)", "import no_such_module", "import no_such_module\nx"))
    assert isinstance(said, Dropped)
    assert said.reason == programs.LACKS
    assert said.more["detail"].count(";") == 2


def test_a_module_that_is_there_is_not_to_blame():
    [said] = cleansed(row(PAIRS, "import json, collections\nprint(0)"))
    assert isinstance(said, Dropped)
    assert said.reason == programs.FAILS


def test_functions_and_asserts_are_run():
    good, bad = "def f(x):\n    return x + 1", "def f(x):\n    return x"
    called = row([{"input": [1], "output": 2}], good, bad, entry_point="f")
    texts = row(["assert f(1) == 2", "assert f(2) == 3"], bad, good)
    found = cleansed(called, texts)
    assert [r["solutions"] for r in found if isinstance(r, dict)] == [[good], [good]]


def test_a_test_that_goes_may_be_what_made_a_solution_fail():
    [said] = cleansed(row([*PAIRS, {"input": "1 2 3...", "output": "1"}], SUM))
    assert isinstance(said, dict)
    assert (said["tests"], said["solutions"]) == (PAIRS, [SUM])


@pytest.mark.parametrize(
    ("solutions", "given", "expected"),
    [
        ("required", [], programs.NO_SOLUTION), ("required", ["print(0)"], programs.FAILS),
        ("required", [SUM], [SUM]), ("checked", [], []), ("checked", ["print(0)"], programs.FAILS),
        ("checked", ["print(0)", SUM], [SUM]), ("ignored", ["print(0)"], ["print(0)"]), ("ignored", [], []),
    ],
)  # fmt: skip
def test_knob_solutions(solutions: str, given: list[str], expected: Any):
    [said] = cleansed(row(PAIRS, *given), solutions=solutions)
    assert (said.reason if isinstance(said, Dropped) else said["solutions"]) == expected


def test_a_row_without_tests_may_go_on():
    before = row([], SUM)
    assert cleansed(before, answers="checked") == [before]


def test_each_row_once_and_in_order():
    rows = [{**row(PAIRS, SUM), "id": f"s/{i}"} for i in range(4)]
    rows[1]["solutions"] = ["print(0)"]
    rows[2] = {"id": "s/2", "source": "s", "domain": "math", "problem": "What is 1+1?", "answer": "x^2"}
    found = cleansed(*rows)
    assert [(r.row if isinstance(r, Dropped) else r)["id"] for r in found] == [f"s/{i}" for i in range(4)]
    assert [isinstance(r, Dropped) for r in found] == [False, True, False, False]


def test_a_sandbox_that_does_not_answer_is_not_the_solutions_fault():
    step = Cleanser(Cleanse(), Verify(deadline_s=3, remote="http://127.0.0.1:9"), Domains())
    [said] = step(0, [row(PAIRS, SUM)])
    verifier(3, Domains(), "http://127.0.0.1:9").close()
    assert isinstance(said, Dropped)
    assert said.reason == programs.NOT_RUN
    assert "127.0.0.1:9" in said.more["detail"]
