"""Nothing of a child process is left when it is stopped, whichever of its processes has died before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringrl.launch.crew import Child, stop
from ringrl.processes import group_members, state_of
from tests.conftest import until

LEADER = """
import subprocess, sys, time
kept = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                         "print(1, flush=True); time.sleep(1000)"])
time.sleep(1000)
"""


def started() -> Child:
    """A process and one of its group that ignores SIGTERM, as an engine does that waits for its GPU."""
    command = [sys.executable, "-c", LEADER]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    return Child("worker0", process, Path())


@pytest.mark.parametrize("dead", [True, False], ids=["its leader is dead", "its leader lives"])
@pytest.mark.parametrize("patience_s", [0.0, 0.2])
def test_the_whole_group_ends(dead: bool, patience_s: float) -> None:
    child = started()
    group = child.process.pid
    members = group_members([group])
    assert len(members) == 2
    if dead:
        os.kill(group, signal.SIGKILL)
        until(lambda: child.code() is not None)
        assert child.code() == -9
        assert len(group_members([group])) == 1  # what is to be ended, too
    else:
        assert child.code() is None
    stop([child], patience_s)
    assert group_members([group]) == []
    assert [state_of(pid) for pid in members] == ["", ""]
    assert child.code() in (-9, -15)
    stop([child], patience_s)  # its number may be somebody else's by now


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_are_those_of_the_process(code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"], start_new_session=True)
    child = Child("rank0", process, Path())
    until(lambda: child.code() is not None)
    assert child.code() == code
    stop([child], 0.0)
    assert child.code() == code
