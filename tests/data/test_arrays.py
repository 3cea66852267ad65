"""Values with arrays in files: read back as they were, and nothing but data whoever wrote the file."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from ringrl.data.arrays import read, to_bytes


def through(value: Any, tmp_path: Path) -> Any:
    (tmp_path / "file").write_bytes(to_bytes(value))
    return read(tmp_path / "file")


def test_a_value_is_read_back(tmp_path: Path) -> None:
    value = {"a": [1, 0.1, None, True, "日本 \ud800"], "$array": {"$$array": 0}, "": [], "t": (1, (2,))}
    assert through(value, tmp_path) == {**value, "t": [1, [2]]}


def test_arrays_keep_dtype_shape_and_order(tmp_path: Path) -> None:
    arrays = [np.arange(6, dtype=np.int16).reshape(2, 3).T, np.array([], np.float32), np.array([0.1, np.nan]),
              np.zeros((0, 4), np.uint8), np.array([True]), *(np.full(1, i) for i in range(12))]  # fmt: skip
    for before, after in zip(arrays, through(arrays, tmp_path), strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert np.array_equal(before, after, equal_nan=before.dtype.kind == "f")


class Touches:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def hostile(tmp_path: Path) -> list[bytes]:
    def tensors(tree: Any, *arrays: np.ndarray) -> bytes:
        text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
        return save({"json": text} | {str(i): a for i, a in enumerate(arrays)})

    good = to_bytes([np.arange(5)])
    long = json.dumps({"json": {"dtype": "U8", "shape": [1 << 60], "data_offsets": [0, 1 << 60]}}).encode()
    return [
        pickle.dumps(Touches(tmp_path / "ran")),
        b"",
        good[:-1],
        good[:40],
        len(long).to_bytes(8, "little") + long,
        b"\xff" * 8 + good[8:],
        tensors({"$array": 1}, np.arange(2)),
        tensors({"$array": -1}, np.arange(2)),
        tensors({"$array": "0"}, np.arange(2)),
        tensors({"$array": 0, "more": 1}, np.arange(2)),
        save({"0": np.arange(2)}),
        save({"json": np.frombuffer(b"no json", np.uint8)}),
        save({"json": np.frombuffer(b"[" * 1_000_000, np.uint8)}),
        save({"json": np.frombuffer(b"\xff", np.uint8)}),
        save({"json": np.frombuffer(b"[]", np.uint8), "other": np.arange(2)}),
    ]


def test_any_other_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    for content in hostile(tmp_path):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError):  # noqa: PT011 (JSON's own is one too)
            read(tmp_path / "file")
    assert not (tmp_path / "ran").exists()
