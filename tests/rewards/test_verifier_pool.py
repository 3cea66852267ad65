"""The pool: order, deadlines, dead children, and leaving nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ringrl.domains import Domain, Reward
from ringrl.rewards import Verdict, VerifierPool
from ringrl.rewards.child import MAX_FAILED_STARTS
from ringrl.rewards.verdict import Part
from tests.conftest import until

RIGHT = ("math", r"\boxed{2}", {"answer": "2"})
WRONG = ("math", r"\boxed{3}", {"answer": "2"})
LOOP = ("code", "```python\nwhile True: pass\n```", {"tests": [{"input": "", "output": ""}]})
CODE = ("code", "```python\nprint(input())\n```", {"tests": [{"input": "1", "output": "1"}]})
HANGS = (*CODE[:2], {**CODE[2], "checker": "def check(input, output, expected):\n    while True: pass"})


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(workers=2, deadline_s=4.0) as pool:
        yield pool


def judge(pool: VerifierPool, items: list) -> list[Verdict]:
    return [future.result(timeout=60) for future in [pool.submit(*item) for item in items]]


def workers(pool: VerifierPool) -> list[psutil.Process]:
    """The processes that judge, each below its guard."""
    guards = [psutil.Process(child._process.pid) for child in pool._children if child._process]
    return [process for guard in guards for process in guard.children()]


def computes(pool: VerifierPool) -> bool:
    """Whether something below a worker computes: a program, or what judges it."""
    with suppress(psutil.NoSuchProcess):
        below = [process for worker in workers(pool) for process in worker.children(recursive=True)]
        return any(process.status() == psutil.STATUS_RUNNING for process in below)
    return False


def test_order_and_kinds(pool):
    items = [
        RIGHT,
        WRONG,
        CODE,
        ("math", "no", {"answer": "2"}),
        ("science", r"\boxed{(B)}", {"answer": "B"}),
    ]
    reasons = [verdict.reason for verdict in judge(pool, items * 10)]
    assert reasons == ["exact", "wrong", "tests", "no_answer", "choice"] * 10


def test_unknown_domain(pool):
    with pytest.raises(ValueError, match="'poetry'; known: math, code, science"):
        pool.submit("poetry", "", {})


def test_a_reference_json_cannot_carry_is_an_error(pool):
    assert pool.submit("math", r"\boxed{2}", {"answer": object()}).result(timeout=30).kind == "error"
    assert judge(pool, [RIGHT] * 2) == [Verdict("pass", "exact", parts=(Part("math", 1.0, 1.0),))] * 2


def test_deadline_costs_one_item_only(pool):
    verdicts = judge(pool, [RIGHT, HANGS, WRONG, LOOP, RIGHT, WRONG])
    assert [verdict.kind for verdict in verdicts] == ["pass", "error", "fail", "fail", "pass", "fail"]
    assert verdicts[1].reason.startswith("deadline of 4 s")
    assert verdicts[3].reason == "timeout"  # an endless program is the fault of the response


def test_killed_processes_cost_one_item_and_come_back(pool):
    """One at work, one idle; on a busy machine either may still be starting after what the last test did to it."""
    until(lambda: len(workers(pool)) == 2)
    future = pool.submit(*HANGS)
    until(lambda: future.running() and computes(pool))
    for process in (killed := workers(pool)):
        process.kill()
    verdict = future.result(timeout=20)
    assert verdict.kind == "error"
    assert "died while" in verdict.reason
    assert [verdict.kind for verdict in judge(pool, [RIGHT, WRONG] * 3)] == ["pass", "fail"] * 3
    assert not {process.pid for process in killed} & {process.pid for process in workers(pool)}


def test_a_lost_process_is_replaced_before_the_next_item(pool):
    until(lambda: len(workers(pool)) == 2)
    before = set(workers(pool))
    assert pool.submit(*HANGS).result(timeout=60).kind == "error"
    until(lambda: len(set(workers(pool)) & before) == len(set(workers(pool)) - before) == 1)


def test_closing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with VerifierPool(workers=1, deadline_s=20.0) as pool:
        assert judge(pool, [CODE]) == [Verdict("pass", "tests", ("ok",), parts=(Part("code", 1.0, 1.0),))]
        running, queued = pool.submit(*LOOP), pool.submit(*RIGHT)
        until(running.running)
        assert list(tmp_path.iterdir())
        family = [*workers(pool), *workers(pool)[0].children(recursive=True)]
    assert len(family) >= 3
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert list(tmp_path.iterdir()) == []
    assert running.result(timeout=1).kind == "error"
    assert queued.cancelled()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(*RIGHT)


PARENT = """
import sys, time
from ringrl.rewards import VerifierPool
assert "torch" not in sys.modules and "math_verify" not in sys.modules
pool = VerifierPool(workers=1, deadline_s=20.0)
loop = "```python\\nwhile True: pass\\n```"
assert pool.submit("math", r"\\boxed{2}", {"answer": "2"}).result(timeout=60).kind == "pass"
pool.submit("code", loop, {"tests": [{"input": "", "output": ""}]})
print("up", flush=True)
time.sleep(60)
"""


def test_children_die_with_their_parent(tmp_path):
    (tmp_path / "tempfile.py").write_text("raise RuntimeError('shadows the standard library')")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT], stdout=subprocess.PIPE, env=environment, text=True, cwd=tmp_path
    )
    with parent:
        assert parent.stdout.readline() == "up\n"
        until(lambda: len(psutil.Process(parent.pid).children(recursive=True)) >= 4)
        family = psutil.Process(parent.pid).children(recursive=True)  # verifier, sandbox host and its guard, program
        parent.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []


def test_a_child_that_cannot_start_is_an_error_and_not_tried_forever(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(f"import os\nwith open({str(tmp_path / 'starts')!r}, 'a') as f: f.write('started')\nos._exit(3)")
    broken = Domain("chess", (Reward("chess", f"{file}:chess"),), "chess")
    with VerifierPool(workers=1, deadline_s=20.0, domains={"chess": broken}) as pool:
        verdicts = judge(pool, [("chess", "", {})] * 100)
    assert {verdict.kind for verdict in verdicts} == {"error"}
    assert f"died while starting {file}:chess, exit status 3" in verdicts[-1].reason
    assert (tmp_path / "starts").read_text().count("started") == MAX_FAILED_STARTS


def test_a_child_that_was_lost_before_it_saw_the_response_is_started_again(tmp_path):
    file, marker = tmp_path / "chess.py", tmp_path / "lost"
    file.write_text(f"""
import os, signal
if not os.path.exists({str(marker)!r}):
    open({str(marker)!r}, "x").close()
    os.kill(os.getpid(), signal.SIGKILL)
def chess(text, reference):
    return 1.0
""")
    domain = Domain("chess", (Reward("chess", f"{file}:chess"),), "chess")
    with VerifierPool(workers=1, deadline_s=20.0, domains={"chess": domain}) as pool:
        assert pool.submit("chess", "e4", {}).result(timeout=60).score == 1.0
    assert marker.exists()
