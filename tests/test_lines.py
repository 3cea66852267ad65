"""Files of JSON lines, and files that are replaced whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ringrl.errors import DataError, fault_of_machine
from ringrl.lines import read_lines, readable_lines, replacing


def test_only_a_last_line_without_its_end_may_be_broken(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n{"a"')
    assert list(read_lines(file, cut=True)) == [{"a": 1}]
    with pytest.raises(DataError, match=r"a\.jsonl:2: got a broken line"):
        list(read_lines(file))
    file.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: got a broken line"):
        list(read_lines(file, cut=True))
    assert readable_lines(file) == ([{"a": 1}], 1)


def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path: Path):
    file = tmp_path / "a"
    with replacing(file) as out:
        out.write(b"old")
    with pytest.raises(TypeError), replacing(file) as out:
        out.writelines([b"new", None])  # type: ignore[list-item]
    assert file.read_bytes() == b"old"
    with replacing(file) as out:
        out.write(b"new")
    assert file.read_bytes() == b"new"


def test_what_could_not_be_written_is_named(tmp_path: Path):
    file = tmp_path / "a"
    with pytest.raises(OSError, match="No space left") as error, replacing(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write says it
    assert fault_of_machine(error.value) == f"No space left on device: {file}"
    assert fault_of_machine(OSError(errno.EINVAL, "Invalid argument")) == fault_of_machine(ValueError()) == ""
