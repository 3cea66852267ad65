"""Problems that reasoning-gym's generators make, read as a data file is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ringrl.config.sections import Source
from ringrl.data.source import check_local, fingerprint, read_rows
from ringrl.errors import DataError

pytest.importorskip("reasoning_gym")
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


@pytest.mark.parametrize("task", ["isomorphic_strings", "ransom_note", "polynomial_multiplication"])
def test_rows_do_not_depend_on_the_process(task: str) -> None:
    """These generators go through sets of texts."""
    name = f"reasoning-gym:{task}?size=20"
    assert list(read_rows(name)) == list(read_rows(name))


def test_a_generator_that_dies_is_no_end_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'["entry", {"question": "?"}]\'\nexit 3\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DataError, match="the generator's process ended with exit status 3"):
        list(read_rows(NAME))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("knight_knaves", "task: got 'knight_knaves', expected one of"),
        ("knight_knaves", "did you mean 'knights_knaves'?"),
        ("knights_knaves?people=3", "people: no option of knights_knaves, expected one of n_people"),
        ("knights_knaves?n_people=0", "Number of people must be at least 1"),
        ("knights_knaves?n_people", "got 'n_people', expected OPTION=VALUE"),
        ("knights_knaves?n_people=[1", "got 'n_people=[1', expected OPTION=VALUE"),
        ("knights_knaves?depth_constraint=1", "the generator fails: IndexError"),
        ("composite", "which is not supported: "),
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
