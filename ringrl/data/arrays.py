"""JSON values with numpy arrays in them, as messages and as files. Reading runs no code, whoever wrote them.

In the JSON an array is {"$array": its number}; a key of a dictionary that begins with "$" gets one "$" more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

ALIGNED = 8  # bytes of the largest item of an array
NUMBERS = "biuf"  # kinds of dtype that an array may have; of these safetensors and a raw buffer know all


def split(value: Any, arrays: list[np.ndarray]) -> Any:
    """The JSON of a value, whose arrays are appended to `arrays`. Tuples become lists.

    Raises:
        TypeError: there is something in it that is neither JSON nor an array of numbers.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"got the keys {list(value)[:3]}, expected strings")
        return {"$" + k if k.startswith("$") else k: split(v, arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [split(v, arrays) for v in value]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in NUMBERS:
        raise TypeError(f"got {type(value).__name__}, expected JSON or an array of numbers")
    arrays.append(value)
    return {"$array": len(arrays) - 1}


def join(tree: Any, arrays: Sequence[np.ndarray]) -> Any:
    """The value that `split` took apart, with lists for its tuples. Raises ValueError for what `split` cannot make."""
    if isinstance(tree, list):
        return [join(v, arrays) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "$array" in tree:
        number = tree["$array"]
        if len(tree) != 1 or not isinstance(number, int) or not 0 <= number < len(arrays):
            raise ValueError(f"got array {number!r}, expected one of {len(arrays)}")
        return arrays[number]
    return {k.removeprefix("$"): join(v, arrays) for k, v in tree.items()}


def aligned(arrays: Sequence[np.ndarray]) -> tuple[list[Any], list[bytes | memoryview]]:
    """Dtypes and shapes of arrays, and the arrays as raw buffers, each filled up to a multiple of ALIGNED bytes."""
    parts: list[bytes | memoryview] = []
    for a in arrays:
        parts += [np.ascontiguousarray(a).reshape(-1).view(np.uint8).data, bytes(-a.nbytes % ALIGNED)]
    return [[a.dtype.str, list(a.shape)] for a in arrays], parts


def views(kinds: Sequence[Any], buffer: Any, place: int = 0) -> list[np.ndarray]:
    """The arrays that `aligned` took apart, without a copy; they begin at byte `place`, a multiple of ALIGNED."""
    arrays = []
    for kind, shape in kinds:
        dtype, count = np.dtype(kind), int(np.prod(shape, dtype=np.int64))
        assert dtype.kind in NUMBERS, kind
        arrays.append(np.frombuffer(buffer, dtype, count, place).reshape(shape))
        place += -(-count * dtype.itemsize // ALIGNED) * ALIGNED
    return arrays


def to_bytes(value: Any) -> bytes:
    """A safetensors file with the value: its JSON as bytes, and each array under its number."""
    arrays: list[np.ndarray] = []
    text = json.dumps(split(value, arrays)).encode()
    tensors = {"json": np.frombuffer(text, np.uint8)} | {str(i): np.ascontiguousarray(a) for i, a in enumerate(arrays)}
    return save(tensors)


def read(file: Path) -> Any:
    """The value in a file that holds `to_bytes`.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        tensors = load_file(file)
        tree = json.loads(tensors.pop("json").tobytes())
        return join(tree, [tensors[str(i)] for i in range(len(tensors))])
    except (SafetensorError, KeyError, RecursionError) as e:
        raise ValueError(str(e)) from None
