"""Verifiers of users, in real children: what they may return, all that they may do wrong, and what they may not see."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from ringrl.domains import BUILT_IN, Domain, Reward
from ringrl.errors import ConfigError
from ringrl.rewards import Verdict, VerifierPool, check_verifiers
from ringrl.rewards.verdict import Part
from tests.conftest import until

MINE = '''
import asyncio, ctypes, json, os, resource, signal, subprocess, sys, threading, time
import numpy as np
import beside
from ringrl.rewards import Verdict, after_thinking

def right(response, row):
    return after_thinking(response) == row["answer"]

def share(response, row, *, best=10):
    return float(response) / best

async def later(response, row):
    await asyncio.sleep(0.01)
    return 0.25

def awaitable(response, row):
    return later(response, row)

def number(response, row):
    return {"bool": np.bool_(True), "small": np.float32(0.5), "array": np.array(0.5), "int": 0, "sum": 0.1 + 0.2,
            "almost": 1 - 1e-15, "neighbour": beside.VALUE}[response]

def said(response, row):
    return Verdict("partial", "half of it", ("ok", "wrong"), 0.5)

class Counting:
    def __init__(self, start=0):
        self.n = start
    def __call__(self, response, row):
        self.n += 1
        return Verdict("pass", str(self.n))

def where(response, row):
    return Verdict("pass", str(os.getpid()))

def wrong(response, row):
    return {"high": 1.5, "low": -0.1, "nan": float("nan"), "none": None, "text": "yes", "list": [1.0],
            "kind": lambda: 0}[response]

def invalid(response, row):
    return Verdict("pass", "it did", score=0.5)

def raises(response, row):
    return row["no such key"]

def leaves(response, row):
    match response:
        case "exit": sys.exit(3)
        case "_exit": os._exit(7)
        case "segfault": ctypes.string_at(0)
        case "kill": os.kill(os.getpid(), signal.SIGKILL)
        case "group": os.killpg(0, signal.SIGKILL)
        case "hang": time.sleep(1000)
        case "spin":
            while True: pass
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
    return True

def disturbs(response, row):
    match response:
        case "print": print("a line on standard output", flush=True)
        case "read": assert sys.stdin.read() == ""
        case "close":
            for fd in (0, 1, 2): os.close(fd)
        case "streams":
            sys.stdout.close(); sys.stderr.close()
        case "folder": os.chdir("/")
        case "signals":
            signal.signal(signal.SIGINT, lambda *_: os._exit(1))
            signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        case "limits": resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        case "fork": os.fork()
        case "fork and raise":
            if os.fork() == 0: raise ValueError("in the child")
        case "thread": threading.Thread(target=time.sleep, args=(1000,)).start()
    return True

def usual(response, row):
    print("heard", file=sys.stderr)
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGALRM)]
    return Verdict("pass", f"{os.getpid()} {os.getcwd()} {resource.getrlimit(resource.RLIMIT_NOFILE)} {handlers}")

def worn(response, row):
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    return Verdict("pass", str(os.getpid()))

def daemon(response, row):
    """In a session of its own, and nobody's child."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(theirs, str(os.getpid()).encode())
            time.sleep(1000)
        os._exit(0)
    pid = os.read(ours, 20).decode()
    with open(row["note"], "w") as file: file.write(f"{pid} {subprocess.Popen(['sleep', '1000']).pid}")
    if response == "and exit": os._exit(1)
    return True

def sees(response, row):
    return Verdict("pass", " ".join(k for k in response.split() if k in os.environ))

def loaded(response, row):
    return Verdict("pass", str("math_verify" in sys.modules))
'''
RIGHT = ("right", "<think>no</think>7", {"answer": "7"})


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "beside.py").write_text("VALUE = 0.75")
    (folder / "my_rewards.py").write_text(MINE)
    return folder / "my_rewards.py"


def domain(file: Path, name: str, **more: Any) -> Domain:
    return Domain(name, (Reward(name, f"{file}:{name}", **more),), name)


def domains(file: Path, *names: str, **more: Any) -> dict[str, Domain]:
    return {name: domain(file, name, **more) for name in names}


NAMES = ["right", "share", "later", "awaitable", "number", "said", "Counting", "where", "wrong", "invalid", "raises",
         "leaves", "disturbs", "usual", "worn", "daemon", "loaded"]  # fmt: skip


@pytest.fixture(scope="module")
def pool(mine: Path) -> Iterator[VerifierPool]:
    with VerifierPool(1, 5.0, domains(mine, *NAMES)) as pool:
        yield pool


def judge(pool: VerifierPool, name: str, text: str = "", row: dict[str, Any] | None = None) -> Verdict:
    return pool.submit(name, text, row or {}).result(timeout=120)


@pytest.mark.parametrize(
    ("name", "text", "kind", "score", "reason"),
    [
        ("share", "7", "partial", 0.7, "partial"),
        ("share", "10", "pass", 1.0, "right"),
        ("share", "0", "fail", 0.0, "wrong"),
        ("later", "", "partial", 0.25, "partial"),
        ("awaitable", "", "partial", 0.25, "partial"),
        ("number", "bool", "pass", 1.0, "right"),
        ("number", "small", "partial", 0.5, "partial"),
        ("number", "array", "partial", 0.5, "partial"),
        ("number", "int", "fail", 0.0, "wrong"),
        ("number", "sum", "partial", 0.3, "partial"),  # not 0.30000000000000004
        ("number", "almost", "pass", 1.0, "right"),
        ("number", "neighbour", "partial", 0.75, "partial"),
        ("said", "", "partial", 0.5, "half of it"),
    ],
)
def test_what_a_verifier_may_return(pool, name, text, kind, score, reason):
    verdict = judge(pool, name, text)
    assert (verdict.kind, verdict.score, verdict.reason) == (kind, score, reason)
    assert verdict.reward == verdict.headline == score
    assert verdict.parts == (Part(name, score, 1.0),)
    assert verdict.tests == (("ok", "wrong") if name == "said" else ())


def test_a_row_and_the_whole_response_reach_it(pool):
    assert judge(pool, *RIGHT).kind == "pass"
    assert judge(pool, "right", "<think>7</think>8", {"answer": "7"}).kind == "fail"


def test_a_class_is_made_once_with_its_options(mine):
    with VerifierPool(1, 20.0, domains(mine, "Counting", options={"start": 5})) as pool:
        assert [judge(pool, "Counting").reason for _ in range(3)] == ["6", "7", "8"]


def test_options_reach_a_function(mine):
    with VerifierPool(1, 20.0, domains(mine, "share", options={"best": 20})) as pool:
        assert judge(pool, "share", "5").score == 0.25


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("wrong", "high", "ValueError: got 1.5, expected a number from 0 to 1"),
        ("wrong", "low", "ValueError: got -0.1, expected a number from 0 to 1"),
        ("wrong", "nan", "ValueError: got nan, expected a number from 0 to 1"),
        ("wrong", "none", "ValueError: got None of type NoneType, expected a bool, a number from 0 to 1 or a Verdict"),
        ("wrong", "text", "ValueError: got 'yes' of type str, expected"),
        ("wrong", "list", "ValueError: got [1.0] of type list, expected"),
        ("wrong", "kind", "ValueError: got <function wrong"),
        ("invalid", "", "ValueError: no verdict: kind 'pass' with score 0.5"),
        ("share", "seven", "ValueError: could not convert string to float: 'seven' (my_rewards.py, line "),
        ("leaves", "exit", "SystemExit: 3 (my_rewards.py, line "),
        ("leaves", "_exit", "verifier process died while verifying, exit status 7"),
        ("leaves", "segfault", "verifier process died while verifying, SIGSEGV"),
        ("leaves", "kill", "verifier process died while verifying, SIGKILL"),
        ("leaves", "group", "verifier process died while verifying, SIGKILL"),
        ("leaves", "hang", "deadline of 5 s passed while verifying"),
        ("leaves", "spin", "deadline of 5 s passed while verifying"),
        ("leaves", "deaf", "deadline of 5 s passed while verifying"),
    ],
)
def test_its_failure_is_an_error_with_the_reason_and_costs_nobody_else(pool, name, text, reason):
    verdict = judge(pool, name, text)
    assert verdict.kind == "error"
    assert verdict.reason.startswith(reason)
    assert verdict.parts == ()
    with pytest.raises(ValueError, match="no reward"):
        _ = verdict.reward
    assert judge(pool, *RIGHT).kind == "pass"


def test_the_reason_names_the_line(pool):
    line = next(n for n, text in enumerate(MINE.split("\n"), 1) if 'row["no such key"]' in text)
    assert judge(pool, "raises").reason == f"KeyError: 'no such key' (my_rewards.py, line {line})"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("raises", "", "failed: KeyError: 'no such key' (my_rewards.py"),
        ("wrong", "nan", "failed: ValueError: got nan"),
        ("leaves", "_exit", "failed: verifier process died while verifying, exit status 7"),
        ("leaves", "hang", "failed: deadline of 3 s passed"),
    ],
)
def test_on_error_fail_is_a_fail_that_says_why(mine, name, text, reason):
    with VerifierPool(1, 3.0, domains(mine, name, on_error="fail")) as pool:
        verdict = judge(pool, name, text)
    assert (verdict.kind, verdict.reward, verdict.headline) == ("fail", 0.0, 0.0)
    assert verdict.reason.startswith(reason)
    assert verdict.parts == (Part(name, 0.0, 1.0),)


@pytest.mark.parametrize(
    "how", ["print", "read", "close", "streams", "folder", "signals", "limits", "fork", "fork and raise", "thread"]
)
def test_it_cannot_disturb_what_comes_after_it(pool, how):
    before = judge(pool, "usual")
    assert before.kind == "pass", before
    for _ in range(3):
        assert judge(pool, "disturbs", how) == Verdict("pass", "right", parts=(Part("disturbs", 1.0, 1.0),))
    assert judge(pool, "usual") == before  # in the same process, too
    if how == "signals":
        assert judge(pool, "later").score == 0.25
        until(lambda: judge(pool, "usual") == before)


def test_a_process_that_cannot_be_put_right_is_replaced_at_no_cost(pool):
    first = [judge(pool, "worn") for _ in range(3)]
    assert {v.kind for v in first} == {"pass"}
    assert len({v.reason for v in first}) == 3


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_nothing_that_it_starts_outlives_its_process(mine, tmp_path):
    with VerifierPool(1, 20.0, domains(mine, "daemon", "right")) as pool:
        assert judge(pool, "daemon", "and exit", {"note": str(tmp_path / "a")}).kind == "error"
        until(lambda: not any(alive(int(pid)) for pid in (tmp_path / "a").read_text().split()))
        assert judge(pool, "daemon", "", {"note": str(tmp_path / "b")}).kind == "pass"
        pids = [int(pid) for pid in (tmp_path / "b").read_text().split()]
        assert judge(pool, *RIGHT).kind == "pass"
        assert all(map(alive, pids))  # it may keep an engine, say, from one response to the next
    assert not any(map(alive, pids))


def test_only_its_own_key_reaches_a_verifier(mine, monkeypatch):
    secrets = {"JUDGE_KEY": "a", "OTHER_KEY": "b", "HF_TOKEN": "c", "AWS_SECRET_ACCESS_KEY": "d", "MY_PASSWORD": "e"}
    for name, value in {**secrets, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    asked = " ".join([*secrets, "PATH", "HOME", "LC_ALL", "OMP_NUM_THREADS", "RINGRL_TESTS_UNSET"])
    rewards = {
        "none": Reward("none", f"{mine}:sees"),
        "mine": Reward("mine", f"{mine}:sees", key_variable="JUDGE_KEY"),
        "other": Reward("other", f"{mine}:sees", key_variable="OTHER_KEY"),
    }
    with VerifierPool(1, 20.0, {name: Domain(name, (r,), name) for name, r in rewards.items()}) as pool:
        seen = {name: judge(pool, name, asked).reason for name in rewards}
    assert seen == {
        "none": "PATH HOME LC_ALL OMP_NUM_THREADS",
        "mine": "JUDGE_KEY PATH HOME LC_ALL OMP_NUM_THREADS",
        "other": "OTHER_KEY PATH HOME LC_ALL OMP_NUM_THREADS",
    }


def test_one_domain_with_keys_for_one_of_its_rewards_only(mine, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "a")
    one = Domain(
        "chess",
        (Reward("with", f"{mine}:sees", 0.5, key_variable="JUDGE_KEY"), Reward("without", f"{mine}:sees", 0.5)),
        "without",
    )
    for headline, seen in (("with", "JUDGE_KEY"), ("without", "")):
        with VerifierPool(1, 20.0, {"chess": Domain("chess", one.rewards, headline)}) as pool:
            assert judge(pool, "chess", "JUDGE_KEY").reason == seen


def test_a_key_that_is_not_there_is_said_at_the_start(mine, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    found = domains(mine, "right", key_variable="JUDGE_KEY")
    with VerifierPool(1, 20.0, found) as pool:
        for start in (lambda: check_verifiers(found), lambda: judge(pool, "right")):
            with pytest.raises(ConfigError, match=r"^domains\.right\.verifier: .*: the environment variable JUDGE_KEY"):
                start()
    monkeypatch.setenv("JUDGE_KEY", "x")
    check_verifiers(found)


def test_files_of_one_name_and_of_a_librarys_name(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper.py").write_text(f"NAME = {name!r}")
        (tmp_path / name / "yaml.py").write_text(
            "import yaml, helper\nfrom ringrl.rewards import Verdict\n"
            "def tell(response, row): return Verdict('pass', helper.NAME + yaml.safe_load('c'))"
        )
    found = {n: Domain(n, (Reward(n, f"{tmp_path / n / 'yaml.py'}:tell"),), n) for n in ("a", "b")}
    check_verifiers(found)
    with VerifierPool(1, 20.0, found) as pool:
        assert [judge(pool, n).reason for n in ("a", "b", "a")] == ["ac", "bc", "ac"]


def test_a_module_is_found_where_python_finds_modules(tmp_path, monkeypatch):
    (tmp_path / "installed_rewards.py").write_text("def tell(response, row): return 0.5")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    found = {"a": Domain("a", (Reward("a", "installed_rewards:tell"),), "a")}
    check_verifiers(found)
    with VerifierPool(1, 20.0, found) as pool:
        assert judge(pool, "a").score == 0.5


def test_a_users_file_shares_no_process_with_the_built_in_and_loads_nothing_of_theirs(mine):
    found = {**BUILT_IN, **domains(mine, "where", "loaded")}
    with VerifierPool(1, 60.0, found) as pool:
        assert judge(pool, "math", r"\boxed{2}", {"answer": "2"}).kind == "pass"
        assert judge(pool, "loaded").reason == "False"
        pid = int(judge(pool, "where").reason)
        assert [len(psutil.Process(c._process.pid).children()) for c in pool._children if c._process] == [1, 1]
        assert pid not in [p.pid for p in psutil.Process(pool._children[0]._process.pid).children()]


def test_the_example_of_the_docs(tmp_path):
    docs = Path(__file__).parents[2] / "docs" / "rewards.md"
    file = tmp_path / "my_rewards.py"
    file.write_text(docs.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0])
    assert file.read_text().count("\n") <= 10
    found = {"chess": Domain("chess", (Reward("chess", f"{file}:chess"),), "chess")}
    check_verifiers(found)
    row = {"best": "e4", "legal": "e4 d4"}
    with VerifierPool(1, 20.0, found) as pool:
        texts = ("<think>d4?</think>e4", "d4", "e9", "<think>e4")
        assert [judge(pool, "chess", text, row).score for text in texts] == [1.0, 0.2, 0.0, 0.0]


# ---- several rewards ---------------------------------------------------------------------------------------


def test_the_reward_is_the_weighted_sum_and_the_headline_decides(mine):
    rewards = (
        Reward("won", f"{mine}:right", 0.7),
        Reward("share", f"{mine}:share", 0.2),
        Reward("late", f"{mine}:later", 0.1),
    )
    with VerifierPool(1, 20.0, {"chess": Domain("chess", rewards, "won")}) as pool:
        verdict = judge(pool, "chess", "10", {"answer": "10"})
        assert (verdict.kind, verdict.reason, verdict.headline) == ("pass", "right", 1.0)
        assert verdict.reward == 0.925
        assert verdict.parts == (Part("won", 1.0, 0.7), Part("share", 1.0, 0.2), Part("late", 0.25, 0.1))
        verdict = judge(pool, "chess", "5", {"answer": "10"})
        assert (verdict.kind, verdict.headline, verdict.reward) == ("fail", 0.0, 0.125)
    with VerifierPool(1, 20.0, {"chess": Domain("chess", rewards, "share")}) as pool:
        verdict = judge(pool, "chess", "5", {"answer": "10"})
        assert (verdict.kind, verdict.headline, verdict.reward) == ("partial", 0.5, 0.125)


@pytest.mark.parametrize(("weights", "exact"), [((0.7, 0.2, 0.1), 1.0), ((1 / 3, 1 / 3, 1 / 3), 1.0)])
def test_all_right_is_exactly_one(mine, weights, exact):
    rewards = tuple(Reward(f"r{i}", f"{mine}:right", w) for i, w in enumerate(weights))
    with VerifierPool(1, 20.0, {"chess": Domain("chess", rewards, "r0")}) as pool:
        assert judge(pool, "chess", "7", {"answer": "7"}).reward == exact


def test_an_error_of_one_reward_is_an_error_unless_it_counts_as_a_fail(mine):
    def of(on_error: Any, text: str = "7") -> Verdict:
        rewards = (Reward("won", f"{mine}:right", 0.5), Reward("style", f"{mine}:raises", 0.5, on_error=on_error))
        with VerifierPool(1, 20.0, {"chess": Domain("chess", rewards, "won")}) as pool:
            return judge(pool, "chess", text, {"answer": "7"})

    error = of("error")
    assert error.kind == "error"
    assert error.reason.startswith("style: KeyError: 'no such key' (my_rewards.py")
    kept = of("fail")
    assert (kept.kind, kept.headline, kept.reward) == ("pass", 1.0, 0.5)
    assert kept.reason.startswith("right: style: KeyError: 'no such key'")
    assert {p.name: p.value for p in kept.parts} == {"won": 1.0, "style": 0.0}


def test_closing_settles_a_response_that_is_half_judged(mine):
    rewards = (Reward("won", f"{mine}:right", 0.5), Reward("late", "math", 0.5))
    hangs = r"\boxed{x+2}"
    with VerifierPool(1, 60.0, {"chess": Domain("chess", rewards, "won")}) as pool:
        future = pool.submit("chess", hangs, {"answer": "(x+1)^{1000}"})
        more = pool.submit("chess", hangs, {"answer": "(x+1)^{1000}"})
        until(lambda: future.running() and more.running())
    assert {future.result(timeout=5).kind, more.result(timeout=5).kind} == {"error"}


class ByName(Mapping[str, Domain]):
    """Domains that are made when they are asked for, and cannot all be."""

    def __init__(self, *found: Domain) -> None:
        self.found = {d.name: d for d in found}

    def __getitem__(self, name: str) -> Domain:
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.found, "of a broken package"])

    def __len__(self) -> int:
        return len(self.found) + 1


def test_a_pool_asks_for_domains_by_name_and_starts_what_is_used(mine):
    with VerifierPool(2, 20.0, ByName(domain(mine, "right"), BUILT_IN["math"])) as pool:
        assert pool._children == []
        assert judge(pool, *RIGHT).kind == "pass"
        assert len(pool._children) == 2


# ---- found before anything is started ----------------------------------------------------------------------


def test_good_verifiers_pass_the_check(mine):
    check_verifiers({**BUILT_IN, **domains(mine, *NAMES)})


@pytest.mark.parametrize(
    ("text", "name", "options", "reason"),
    [
        ("def move(r, row): ...\nclass Board: ...", "chess", {}, "no function 'chess' in f.py, it has: move, Board"),
        ("", "chess", {}, "no function 'chess' in f.py, it has none"),
        ("chess = {}", "chess", {}, "'chess' in f.py is no function, but of type dict"),
        ("import no_such_library", "chess", {}, "it cannot be imported: ModuleNotFoundError: No module named "
         "'no_such_library' (f.py, line 1)"),
        ("def chess(:", "chess", {}, "it cannot be imported: SyntaxError: invalid syntax (f.py, line 1)"),
        ("x = 1\n1 / 0", "chess", {}, "it cannot be imported: ZeroDivisionError: division by zero (f.py, line 2)"),
        ("import sys; sys.exit('no licence')", "chess", {}, "it cannot be imported: SystemExit: no licence (f.py"),
        ("import os; os._exit(5)", "chess", {}, "verifier process died while starting NAME, exit status 5"),
        ("import time; time.sleep(1000)", "chess", {}, "deadline of 5 s passed while starting NAME"),
        ("def chess(r, row, depth=3): ...", "chess", {"dpth": 2},
         "got an unexpected keyword argument 'dpth'; expected chess(r, row, depth=3)"),
        ("def chess(r, row, *, depth): ...", "chess", {},
         "missing a required argument: 'depth'; expected chess(r, row, *, depth)"),
        ("def chess(board): ...", "chess", {}, "too many positional arguments; expected chess(board)"),
        ("class Chess:\n    def __init__(self, depth): self.depth = 1 / depth\n    def __call__(self, r, row): ...",
         "Chess", {"depth": 0}, "ZeroDivisionError: division by zero (f.py, line 2)"),
        ("class Chess:\n    def __init__(self, depth): ...", "Chess", {"depth": 0},
         "an object of Chess cannot be called, expected __call__(response, row)"),
    ],
)  # fmt: skip
def test_a_verifier_that_cannot_be_used_is_one_line(tmp_path, text, name, options, reason):
    file = tmp_path / "f.py"
    file.write_text(textwrap.dedent(text))
    chess = Domain("chess", (Reward("chess", f"{file}:{name}", options=options),), "chess")
    with pytest.raises(ConfigError) as caught:
        check_verifiers({**BUILT_IN, "chess": chess}, deadline_s=5.0)
    line = str(caught.value)
    assert line.count("\n") == 0
    start = "domains.chess.verifier: " if "NAME" in reason else f"domains.chess.verifier: {file}:{name}: "
    assert line.startswith(start + reason.replace("NAME", f"{file}:{name}"))


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        ("no/such/file.py:chess", "no such file: no/such/file.py"),
        ("chess", "expected one of math, science, code, reasoning_gym, url, judge, format, length"),
        ("f.py", "expected one of math"),
        (":chess", "expected one of math"),
        ("my_rewards:chess", "no module 'my_rewards' is installed; a file is named by its path, my_rewards.py:chess"),
        ("json.no_such:chess", "it cannot be imported: ModuleNotFoundError: No module named 'json.no_such'"),
        ("json:chess", "no function 'chess' in json, it has: "),
    ],
)
def test_a_name_that_names_nothing_is_one_line(verifier, reason):
    chess = Domain("chess", (Reward("a", verifier, 0.5), Reward("b", "math", 0.5)), "a")
    with pytest.raises(ConfigError) as caught:
        check_verifiers({"chess": chess})
    assert str(caught.value).startswith(f"domains.chess.rewards.a.verifier: {verifier}: ")
    assert reason in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_options_of_the_built_in_are_checked_too():
    def problem(verifier: str, **options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            check_verifiers({"a": Domain("a", (Reward("a", verifier, options=options),), "a")})
        return str(caught.value)

    assert problem("url").startswith("domains.a.verifier: url: missing a required argument: 'url'")
    assert "url: got 'host:80', expected http://" in problem("url", url="host:80")
    assert "'depth'" in problem("math", depth=3)
    assert "prompt: got 'no.txt', expected a file" in problem("judge", base_url="http://x", model="m", prompt="no.txt")
    assert "with a group" in problem("judge", base_url="http://x", model="m", score=r"\d")
    assert "expected 0 <= target < limit" in problem("length", target=10, limit=10)
    assert "PatternError" in (said := problem("format", pattern="(")) or "error: missing )" in said


def test_what_it_prints_steers_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud.py").write_text("def loud(response, row):\n    print(response, flush=True)\n    return True\n")
    monkeypatch.setattr("ringrl.rewards.child.os.isatty", lambda fd: True)
    domain = Domain("loud", (Reward("loud", f"{tmp_path / 'loud.py'}:loud"),), "loud")
    with VerifierPool(1, 20.0, {"loud": domain}) as pool:
        assert pool.submit("loud", "\x1b]0;title\x07 and text\n", {}).result(timeout=60).kind == "pass"
        shown = ""

        def said() -> bool:
            nonlocal shown
            shown += capsys.readouterr().err
            return "and text" in shown

        until(said)
    assert "\x1b" not in shown
    assert "⟨U+001B⟩]0;title⟨U+0007⟩ and text" in shown
