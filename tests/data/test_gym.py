"""Problems that reasoning-gym's generators make, read as a data file is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ringrl.config.sections import Source
from ringrl.data.source import check_local, fingerprint, read_rows
from ringrl.errors import DataError

pytest.importorskip("reasoning_gym")
from reasoning_gym.factory import DATASETS

from ringrl.data import gym

TASKS = sorted(DATASETS.keys() - gym.UNSUPPORTED)
NAME = "reasoning-gym:knights_knaves?size=4&seed=3&n_people=3"


def test_a_name_stands_for_its_rows() -> None:
    rows = dict(read_rows(NAME))
    assert list(rows) == [f"{NAME}[{n}]" for n in range(4)]
    for row in rows.values():
        assert row["domain"] == "reasoning_gym"
        assert row["task"] == "knights_knaves"
        assert row["options"] == {"size": 4, "seed": 3, "n_people": 3}
        assert row["problem"] == row["entry"]["question"]
        assert row["entry"]["metadata"]["difficulty"]["n_people"] == 3
        assert json.loads(json.dumps(row)) == row
    assert len({row["problem"] for row in rows.values()}) == 4


def test_another_seed_makes_other_rows() -> None:
    first, other = (
        [row["problem"] for _, row in read_rows(NAME.replace("seed=3", seed))] for seed in ("seed=3", "seed=40")
    )
    assert not set(first) & set(other)


DIGESTS = """
import hashlib, json, sys
from ringrl.data import gym
for task in sys.argv[1:]:
    rows = [row for _, row in gym.problems(f"reasoning-gym:{task}?size=3&seed=5")]
    print(task, hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


def test_rows_do_not_depend_on_the_process() -> None:
    """Of every task that is supported, whatever order sets have in a process."""

    def digests(hash_seed: str) -> list[str]:
        command = [sys.executable, "-W", "ignore", "-c", DIGESTS, *TASKS]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    first = digests("1")
    assert len(first) == len(TASKS) > 90
    assert first == digests("2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("knight_knaves", "task: got 'knight_knaves', expected one of"),
        ("knight_knaves", "did you mean 'knights_knaves'?"),
        ("knights_knaves?people=3", "people: no option of knights_knaves, expected one of n_people"),
        ("knights_knaves?n_people=0", "Number of people must be at least 1"),
        ("knights_knaves?n_people", "got 'n_people', expected OPTION=VALUE"),
        ("knights_knaves?n_people=[1", "got 'n_people=[1', expected OPTION=VALUE"),
        ("knights_knaves?depth_constraint=1", "[0]: the generator fails: IndexError"),
        ("composite", "not supported: "),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(DataError) as refused:
        list(read_rows(f"reasoning-gym:{name}"))
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"reasoning-gym:{name}")
    assert "\n" not in str(refused.value)


def test_it_is_checked_before_a_run_as_local_files_are() -> None:
    source = Source(files=("reasoning-gym:knights_knaves?people=3",))
    with pytest.raises(DataError, match="people"):
        check_local([source], lambda s: [*read_rows(s.files[0])])


def test_lineage_has_the_version_of_the_generators() -> None:
    from importlib.metadata import version

    assert fingerprint([Source(files=(NAME,))]) == {NAME: f"reasoning-gym {version('reasoning-gym')}"}
