"""A Hugging Face model folder, looked at without a heavy library: its JSON files and the headers of its weights.

`check_folder` is what every command calls before it makes anything. What only transformers knows, such as which tensors
an architecture has, is checked by `ringrl.models.loading`.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringrl.errors import DataError

Kind = tuple[tuple[int, ...], str]  # a tensor's shape, and its dtype in safetensors' words

POINTER = b"version https://git-lfs"  # how a file begins that git-lfs did not fetch
INDEX = "model.safetensors.index.json"
NUMBERS = ("BF16", "F16", "F32", "F64")  # dtypes of weights that can be trained
PLAIN = (*NUMBERS, "BOOL", "I64", "I32", "I16")  # and of masks and indices beside them


def check_folder(path: str, own_weights: bool) -> None:
    """Whether a folder can be what a command starts from, as far as this can be told without reading weights.

    Args:
        own_weights: transformers will hold the weights, to train or to sample; else vLLM, which knows more formats.

    Raises:
        DataError: it cannot; names the file, what is in it and what was expected.
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # nor one behind a folder that may not be entered
        raise DataError(f"{path}: no such model folder")
    if (folder / "adapter_config.json").is_file():
        raise DataError(f"{path}: got an adapter (adapter_config.json), expected a whole model: merge it into its base "
                        f"model first")  # fmt: skip
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise DataError(f"{path}: no {name}, expected a Hugging Face model folder with its tokenizer")
    config = read_config(path)
    read_object(folder / "tokenizer_config.json")
    for name in ("generation_config.json", "tokenizer.json"):
        if (folder / name).is_file():
            read_object(folder / name)
    for file in folder.glob("*.model"):  # of SentencePiece
        _refuse_pointer(file)
    _check_special_tokens(folder, config)
    quantised = quantisation(path)
    if quantised and own_weights:
        raise DataError(f"{quantised}, expected a model that is not quantised: use its release in bfloat16, or "
                        f"dequantise it first (only ringrl eval and ringrl data with vLLM sample from it)")  # fmt: skip
    for name, (_, dtype) in {} if quantised else tensors(path).items():
        if dtype not in PLAIN:
            raise DataError(f"{path}: {name}: got dtype {dtype}, expected one of {', '.join(NUMBERS)}")


def read_config(path: str) -> dict[str, Any]:
    """config.json, with the language model's own section where it has one among others. Raises DataError."""
    config = read_object(Path(path) / "config.json")
    text = config.get("text_config")
    return config | {k: v for k, v in text.items() if k != "model_type"} if isinstance(text, dict) else config


def quantisation(path: str) -> str:
    """Where and how the weights are quantised, in words; "" if they are not. Raises DataError."""
    config = read_config(path)
    for key in ("quantization_config", "compression_config"):
        if value := config.get(key):
            method = value.get("quant_method") or value.get("quant_algo") if isinstance(value, dict) else value
            return f"{path}/config.json: {key}: got {method or 'one'}"
    for name in ("quantize_config.json", "hf_quant_config.json"):
        if (Path(path) / name).is_file():
            return f"{path}: got {name}"
    return ""


def tensors(path: str) -> dict[str, Kind]:
    """Names, shapes and dtypes of all tensors of a folder, from the headers of its files.

    Raises:
        DataError: a file is missing, cut off, a git-LFS pointer, or not what the index says.
    """
    folder, found = Path(path), {}
    for file, listed in _weight_files(folder):
        kinds = _header(file)
        if absent := [name for name in listed if name not in kinds]:
            raise DataError(f"{file}: no tensor {absent[0]}, expected it there as {INDEX} says")
        found.update(kinds)
    return found


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file with an object in it. Raises DataError."""
    _refuse_pointer(file)
    try:
        value = json.loads(file.read_bytes())
    except OSError as e:
        raise DataError(f"{file}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{file}: not JSON: {e}") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: got {type(value).__name__}, expected an object")
    return value


def _refuse_pointer(file: Path) -> None:
    """Raises DataError for a file that is not there yet, or cannot be read."""
    try:
        with file.open("rb") as f:
            start = f.read(len(POINTER))
    except OSError as e:
        raise DataError(f"{file}: {e.strerror}") from None
    if start == POINTER:
        raise DataError(f"{file}: got a git-LFS pointer, expected the file itself: run git lfs pull there")


def _check_special_tokens(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises DataError for ids outside the vocabulary: a stop that no model samples, a row that no embedding has."""
    size = config.get("vocab_size")
    if not isinstance(size, int):
        return
    generation = folder / "generation_config.json"
    own = read_object(generation) if generation.is_file() else {}
    for file, values in ((folder / "config.json", config), (generation, own)):
        for key in ("eos_token_id", "pad_token_id"):
            got = values.get(key)
            least = -size if key == "pad_token_id" else 0  # padding may be counted from the end
            ids = got if isinstance(got, list) else [] if got is None else [got]
            if not all(type(i) is int and least <= i < size for i in ids):
                raise DataError(f"{file}: {key}: got {got}, expected ids below vocab_size {size}")


def _weight_files(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The files that transformers reads, and the tensors that an index expects in each."""
    single, index = folder / "model.safetensors", folder / INDEX
    if not index.is_file():
        if not single.is_file():
            others = sorted(file.name for file in folder.glob("*") if file.suffix in (".safetensors", ".bin", ".gguf"))
            raise DataError(f"{folder}: no model.safetensors and no {INDEX}, expected one of them; "
                            f"got {', '.join(others[:3]) or 'no weights at all'}")  # fmt: skip
        yield single, []
        return
    files: dict[str, list[str]] = {}
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise DataError(f"{index}: weight_map: got {type(listed).__name__}, expected the file of every tensor")
    for name, file in listed.items():
        files.setdefault(str(file), []).append(name)
    if single.is_file() and single.name not in files:
        raise DataError(f"{folder}: got model.safetensors beside an index that does not name it, expected one of them: "
                        f"what reads which would differ")  # fmt: skip
    for file, names in sorted(files.items()):
        if not (folder / file).is_file():
            raise DataError(f"{folder / file}: no such file, expected it as {INDEX} says")
        yield folder / file, names


def _header(file: Path) -> dict[str, Kind]:
    _refuse_pointer(file)
    size = os.path.getsize(file)
    with file.open("rb") as f:
        start = f.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise DataError(f"{file}: got {size} bytes, expected a safetensors file; fetch it again")
        try:
            header = json.loads(f.read(length))
            del header["__metadata__"]
        except KeyError:
            pass
        except (ValueError, TypeError, RecursionError):
            raise DataError(f"{file}: got another format, expected a safetensors file; fetch it again") from None
    try:
        kinds = {name: (tuple(map(int, t["shape"])), str(t["dtype"])) for name, t in header.items()}
        end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(f"{file}: got a header that is none of safetensors'; fetch it again") from None
    if size != end:
        raise DataError(f"{file}: got {size} bytes, expected {end}; fetch it again")
    return kinds
