"""Checkpoints on disk: a plain Hugging Face folder, and in its `trainer/` what resuming needs besides.

Written beside training: `begin` makes a hidden folder, every rank hands over copies (`file`), and `end` lets the folder
take its name when all ranks' files are in it. Until then it does not exist for anyone; a folder that exists is whole,
and by the hashes taken as it was written `ringrl.run.verify_checkpoint` finds what was damaged later.
"""

from __future__ import annotations

import functools
import hashlib
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
from ringrl.lines import sha256, write_atomic
from ringrl.run import FILES

SHARD_BYTES = 4 << 30  # largest model file
CONVERT_S = 3600.0  # deadline of a conversion


class Writer:
    """One rank's files, written by a thread, in order."""

    def __init__(self, rank: int, ranks: int, deadline_s: float) -> None:
        self.rank, self.ranks, self.deadline_s = rank, ranks, deadline_s
        self.folder = self.part = Path()
        self.written: dict[str, tuple[int, str]] = {}  # bytes and sha256 of this rank's files
        self.error = ""
        self.jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def begin(self, folder: Path) -> None:
        """Waits for the checkpoint before. Raises RingError when that was not written."""
        self.settle()
        self.folder, self.part = folder, folder.absolute().with_name(f".{folder.name}.part")
        self.written = {}
        if self.rank == 0:
            shutil.rmtree(self.part, ignore_errors=True)
            (self.part / "trainer").mkdir(parents=True)

    def file(self, path: str | Path, value: Any) -> None:
        """`value`, of DeepSpeed's, as torch.save writes it; it may change as soon as this returns."""
        copy = io.BytesIO()
        torch.save(value, copy)
        self.jobs.put(lambda: self._write(path, copy.getbuffer()))

    def values(self, path: str, value: Any) -> None:
        """JSON values and arrays, see `ringrl.data.arrays`; they may change as soon as this returns."""
        content = to_bytes(value)
        self.jobs.put(lambda: self._write(path, content))

    def text(self, path: str, text: str) -> None:
        self.jobs.put(lambda: self._write(path, text.encode()))

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
        self.jobs.put(lambda: write_atomic(self.part / f".rank{self.rank}", json.dumps(self.written)))
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

    def _write(self, path: str | Path, content: bytes | memoryview) -> None:
        file = self.part / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        name = str(file.relative_to(self.part))  # DeepSpeed's paths are absolute
        self.written[name] = (len(content), hashlib.sha256(content).hexdigest())

    def _shard(self, name: str, bucket: Mapping[str, torch.Tensor]) -> None:
        save_file(dict(bucket), self.part / name, metadata={"format": "pt"})
        with (self.part / name).open("rb") as f:
            os.fsync(f.fileno())
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
        """The first fault is the cause: what comes after it misses the folder that is removed here."""
        whole = "the one before it is whole" if any(self.folder.parent.glob("step_*")) else "there is none before it"
        self.error = self.error or f"{self.folder}: the checkpoint could not be written: {e}; {whole}"
        if self.rank == 0:
            shutil.rmtree(self.part, ignore_errors=True)

    def _finish(self, then: Callable[[], None]) -> None:
        done = [self.part / f".rank{r}" for r in range(self.ranks)]
        end, pause = time.monotonic() + self.deadline_s, 0.02
        while not all(f.is_file() for f in done):
            if time.monotonic() > end:
                raise TimeoutError(f"no word from all ranks within {self.deadline_s:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 1.0)  # each look may be a request to a file server
        written = {name: entry for f in done for name, entry in json.loads(f.read_text()).items()}
        for f in done:
            f.unlink()
        self._write(FILES, json.dumps(_with_hashes(self.part, written), indent=2).encode())
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


def _with_hashes(folder: Path, written: Mapping[str, Any]) -> dict[str, Any]:
    """[bytes, sha256] of every file in a folder but their list; read again where not known since they were written."""
    names = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f != folder / FILES)
    return {n: written.get(n) or (folder.joinpath(n).stat().st_size, sha256(folder / n)) for n in names}


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
    written = json.loads((folder / FILES).read_text())
    write_atomic(folder / FILES, json.dumps(_with_hashes(folder, written), indent=2))
