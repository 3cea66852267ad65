"""Hashes of what a run depends on, by which `ringrl.launch.opening` knows whether that has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ringrl.config.load import fixed
from ringrl.config.sections import RunConfig
from ringrl.data.source import HUB_FILE, fingerprint
from ringrl.launch.command import Needs
from ringrl.launch.opening import UNKNOWN, Origin
from ringrl.lines import sha256

MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")
WHOLE = 256 << 20  # bytes up to which a model's file is hashed as a whole
BLOCKS, BLOCK = 64, 1 << 20  # number and bytes of what is hashed of a larger one
AT_ONCE = 8  # files
HUB_S = 10.0  # deadline for the hub's answer


def origin_of(cfg: RunConfig, need: Needs, verifiers: Mapping[str, str]) -> Origin:
    """Hashes everything that is named: sources of data, other files such as templates, verifiers, models."""
    data = {name: sha if sha != UNKNOWN else hub_revision(name) for name, sha in fingerprint(need.sources).items()}
    others = {name: sha256(Path(name)) for name in files_in(fixed(cfg)) if name not in data}
    return Origin(need.parent, {**data, **others, **verifiers}, hashes_of_models(need.models), need.isolation)


def files_in(value: Any) -> Iterator[str]:
    """Texts in a configuration that name a file."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from files_in(item)
    elif isinstance(value, str) and ("/" in value or "." in value) and os.path.isfile(value):
        yield value


def hashes_of_models(folders: Iterable[str]) -> dict[str, str]:
    """By file. Of a file of more than WHOLE bytes the size, the beginning with the tensors' names, and BLOCKS parts all
    over it are hashed: other weights are found, a few changed bytes perhaps not."""
    files = [f for folder in folders for f in sorted(Path(folder).glob("*")) if f.suffix in MODEL_FILES and f.is_file()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {str(file): digest for file, digest in zip(files, pool.map(_digest, files), strict=True)}


def _digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= WHOLE:
        return sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")  # bytes of the JSON at the beginning of a safetensors file
        digest.update(file.read(min(header, WHOLE)))
        for i in range(BLOCKS):
            file.seek((size - BLOCK) * i // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return f"{digest.hexdigest()} of {BLOCKS} MiB in it"


def hub_revision(name: str) -> str:
    """The commit of a data set on the hub, or of its copy here if the hub does not answer; of a folder, its files'."""
    import huggingface_hub

    location, path = HUB_FILE.fullmatch(name), name.partition(":")[0]
    if not location and os.path.isdir(path):
        digest = hashlib.sha256()
        for file in sorted(f for f in Path(path).rglob("*") if f.is_file()):
            digest.update(f"{file.relative_to(path)} {sha256(file)}\n".encode())
        return digest.hexdigest()
    repo, revision = (location["repo"], location["revision"]) if location else (path, "main")
    try:
        api = huggingface_hub.HfApi()
        return str(api.dataset_info(repo, revision=revision, timeout=HUB_S).sha)
    except Exception:  # no network, no token, no such data set: who reads it will say so
        folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}"
        known = folder / "refs" / revision
        return known.read_text().strip() if known.is_file() else UNKNOWN
