"""Ranks of one machine meet in a folder that is theirs, and listen to nobody else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ringrl.launch.machine import LOOPBACK, listening, rank_env

RANK = """
import json, os, sys
from tests.conftest import listens_at
from ringrl.policy.ranks import Ranks
ranks = Ranks(120, sys.argv[1])
known = [ranks.gather(ranks.rank), sorted(listens_at())]
ranks.barrier()
print(json.dumps(known))
ranks.close()
"""


@pytest.mark.slow
def test_ranks_of_one_machine_meet_in_a_folder_and_listen_on_loopback(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:  # nobody asks for this port, or it could not be had
        port = taken.getsockname()[1]
        env = {**os.environ, "DS_ACCELERATOR": "cpu"} | listening(LOOPBACK)
        ranks = [
            subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path)], env=env | rank_env(rank, 2, 1, port),
                             cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
            for rank in range(2)
        ]  # fmt: skip
        texts = [process.communicate(timeout=600)[0] for process in ranks]
    for text in texts:
        members, addresses = json.loads(text.splitlines()[-1])
        assert members == [0, 1]
        assert set(addresses) == {LOOPBACK}
