"""Checkpoints on disk: a plain Hugging Face folder, and in its `trainer/` what resuming needs besides.

Written beside training: `begin` makes a hidden folder, every rank hands over copies (`file`), and `end` lets the folder
take its name when all ranks' files are in it. Until then it does not exist for anyone; a folder that exists is whole,
and `check` finds files that were damaged later.
"""

from __future__ import annotations

import functools
import io
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ringrl.data.arrays import read, to_bytes
from ringrl.errors import DataError, RingError

SHARD_BYTES = 4 << 30  # largest model file
CONVERT_S = 3600.0  # deadline of a conversion
FILES = "trainer/files.json"  # every file's size; written last


class Writer:
    """One rank's files, written by a thread, in order."""

    def __init__(self, rank: int, ranks: int, deadline_s: float) -> None:
        self.rank, self.ranks, self.deadline_s = rank, ranks, deadline_s
        self.folder = self.part = Path()
        self.error = ""
        self.jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def begin(self, folder: Path) -> None:
        """Waits for the checkpoint before. Raises RingError when that was not written."""
        self.settle()
        self.folder, self.part = folder, folder.absolute().with_name(f".{folder.name}.part")
        if self.rank == 0:
            shutil.rmtree(self.part, ignore_errors=True)
            (self.part / "trainer").mkdir(parents=True)

    def file(self, path: str | Path, value: Any) -> None:
        """`value`, of DeepSpeed's, as torch.save writes it; it may change as soon as this returns."""
        copy = io.BytesIO()
        torch.save(value, copy)
        self.jobs.put(lambda: _write(self.part / path, copy.getbuffer()))

    def values(self, path: str, value: Any) -> None:
        """JSON values and arrays, see `ringrl.data.arrays`; they may change as soon as this returns."""
        content = to_bytes(value)
        self.jobs.put(lambda: _write(self.part / path, content))

    def text(self, path: str, text: str) -> None:
        self.jobs.put(lambda: _write(self.part / path, text.encode()))

    def model(self, buckets: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """The weights under checkpoint names, a file per bucket, with the index that transformers and vLLM expect."""
        single = len(buckets) == 1
        names = [f"model-{i + 1:05d}-of-{len(buckets):05d}.safetensors" for i in range(len(buckets))]
        for name, bucket in zip(["model.safetensors"] if single else names, buckets, strict=True):
            self.jobs.put(functools.partial(self._shard, name, bucket))
        if not single:
            files = {tensor: name for name, bucket in zip(names, buckets, strict=True) for tensor in bucket}
            total = sum(t.nbytes for bucket in buckets for t in bucket.values())
            index = {"metadata": {"total_size": total}, "weight_map": files}
            self.text("model.safetensors.index.json", json.dumps(index, indent=2))

    def end(self, then: Callable[[], None]) -> None:
        """On rank 0 the folder takes its name when all ranks are done, and `then` is called."""
        self.jobs.put(lambda: _write(self.part / f".rank{self.rank}", b""))
        if self.rank == 0:
            self.jobs.put(lambda: self._finish(then))

    def settle(self) -> None:
        """Wait for this rank's files; on rank 0, for the folder. Raises RingError when it could not be written."""
        self.jobs.join()
        self.check()

    def check(self) -> None:
        """Raises RingError when a checkpoint could not be written."""
        if self.error:
            raise RingError(self.error)

    def _shard(self, name: str, bucket: Mapping[str, torch.Tensor]) -> None:
        save_file(dict(bucket), self.part / name, metadata={"format": "pt"})
        shutil.copymode(self.part / "config.json", self.part / name)  # safetensors keeps others from reading it

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around what is written into the folder without this thread. Raises RingError for an OSError."""
        try:
            yield
        except OSError as e:
            self._fail(e)
            self.check()

    def _fail(self, e: Exception) -> None:
        self.error = f"{self.folder}: the checkpoint could not be written: {e}; the one before it is whole"
        if self.rank == 0:
            shutil.rmtree(self.part, ignore_errors=True)

    def _finish(self, then: Callable[[], None]) -> None:
        done = [self.part / f".rank{r}" for r in range(self.ranks)]
        end = time.monotonic() + self.deadline_s
        while not all(f.is_file() for f in done):
            if time.monotonic() > end:
                raise TimeoutError(f"no word from all ranks within {self.deadline_s:g} s")
            time.sleep(0.02)
        for f in done:
            f.unlink()
        sizes = {str(f.relative_to(self.part)): f.stat().st_size for f in sorted(self.part.rglob("*")) if f.is_file()}
        _write(self.part / FILES, json.dumps(sizes, indent=2).encode())
        os.replace(self.part, self.folder)
        then()

    def _work(self) -> None:
        while True:
            job = self.jobs.get()
            try:
                if not self.error:
                    job()
            except Exception as e:  # kept for the loop, which ends the run with it
                self._fail(e)
            finally:
                self.jobs.task_done()


def _write(file: Path, content: bytes | memoryview) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def check(folder: Path) -> None:
    """Raises DataError when a file of a checkpoint is not there, or not as long as it was written."""
    sizes = json.loads((folder / FILES).read_text())
    for name, size in sizes.items():
        file = folder / name
        got = file.stat().st_size if file.is_file() else -1
        if got != size:
            actual = "no such file" if got < 0 else f"{got} bytes"
            raise DataError(f"{file}: got {actual}, expected {size} bytes as written; the run cannot be resumed from "
                            f"here, a new one can start with an older checkpoint as its model")  # fmt: skip


def values(file: Path) -> Any:
    """What `Writer.values` wrote. Raises DataError for a file with something else in it."""
    try:
        return read(file)
    except ValueError as e:
        raise DataError(f"{file}: {e}, expected what ringrl writes there") from None


def to_universal(folder: Path, zero: int) -> None:
    """DeepSpeed's form of the trainer state that any number of ranks can read, beside the one that was saved.

    Raises:
        RingError: the conversion failed.
    """
    source, target = folder / "trainer" / "engine", folder / "trainer" / "universal"
    if (folder / "trainer" / "latest_universal").is_file():
        return
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "ringrl.policy.deepspeed_internals", "--input_folder", str(source),
               "--output_folder", str(target)]  # fmt: skip
    command += ["--inject_missing_state"] if zero in (1, 2) else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_S)
    if done.returncode:
        raise RingError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    (folder / "trainer" / "latest_universal").write_text("universal")
