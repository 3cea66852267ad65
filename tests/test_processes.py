"""What processes share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ringrl.processes import Scratch, free_port, group_members, locked, silence, state_of
from tests.conftest import until

OWNER = """
import sys
from ringrl.processes import Scratch
print(Scratch("test", sys.argv[1]).path, flush=True)
sys.stdin.read()
"""


def test_a_free_port_is_kept_for_whoever_asks_for_it_by_number() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):  # the check that the system makes itself
        other.bind(("", port))
    with socket.create_server(("", port)) as server:
        assert server.getsockname()[1] == port


def test_a_lock_is_held_once_and_let_go_of_with_its_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "file"
    first = locked(file, os.O_RDWR | os.O_CREAT)
    assert first is not None
    assert locked(file) is None
    file.unlink()  # and made again: another file, that nobody has locked
    second = locked(file, os.O_RDWR | os.O_CREAT)
    assert second is not None
    os.close(first)
    assert locked(file) is None
    os.close(second)
    third = locked(file)
    assert third is not None
    os.close(third)
    with pytest.raises(FileNotFoundError):
        locked(tmp_path / "none")


def test_temporary_folders_of_killed_processes_are_removed_by_the_next_one(tmp_path: Path) -> None:
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    folders = []
    for owner in owners:
        assert owner.stdout
        folders.append(Path(owner.stdout.readline().decode().strip()))
        (folders[-1] / "deep").mkdir()
        (folders[-1] / "deep" / "file").write_text("left")
    (tmp_path / "ringrl.other.abc").mkdir()
    owners[0].send_signal(signal.SIGKILL)
    owners[0].wait()
    mine = Scratch("test", str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([folders[1].name, mine.path.name, "ringrl.other.abc"])
    owners[1].kill()
    owners[1].communicate()
    mine.close()
    mine.close()
    assert not mine.path.exists()
    Scratch("test", str(tmp_path)).close()
    assert [p.name for p in tmp_path.iterdir()] == ["ringrl.other.abc"]


def test_a_process_that_is_stopped_gives_no_sign_of_life(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert silence(file) == 0
    program = "import sys\nfrom pathlib import Path\nfrom ringrl.processes import live\n"
    program += "live(Path(sys.argv[1]))\nsys.stdin.read()\n"
    with subprocess.Popen([sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE) as process:
        until(file.is_file)
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: state_of(process.pid) == "T" and silence(file) > 1.5)
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: state_of(process.pid) in tuple("RSD") and silence(file) < 1.5)
        process.kill()
        until(lambda: state_of(process.pid) == "")  # before anybody has waited for it


TOGETHER = """
import signal, subprocess, sys, time
from ringrl.processes import die_together
die_together()
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                          "print(1, flush=True); time.sleep(1000)"])
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
if sys.argv[1] == "sleeps":
    time.sleep(1000)
while not child.poll() and sys.stdin.readline():
    pass
"""


@pytest.mark.parametrize("end", ["killed", "ended by its group's signal", "returns"])
def test_nothing_of_a_group_outlives_its_leader(end: str) -> None:
    how = "returns" if end == "returns" else "sleeps"
    leader = subprocess.Popen([sys.executable, "-c", TOGETHER, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              start_new_session=True)  # fmt: skip
    assert leader.stdin
    assert leader.stdout
    assert leader.stdout.readline() == b"1\n"
    assert len(group_members([leader.pid])) == 3  # with the one that ends the others
    if end == "returns":
        leader.stdin.close()
    elif end == "killed":
        leader.kill()
    else:
        os.killpg(leader.pid, signal.SIGTERM)
    until(lambda: group_members([leader.pid]) == [])
    assert leader.wait() == (-9 if end == "killed" else 0)
