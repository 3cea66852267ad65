"""Opens a run directory for one process at a time: a new one, or one to go on with, after all that it was begun from,
and the checkpoint that it goes on from, are found unchanged.

    .lock         locked by the launcher and its ranks as long as one of them lives; holds their host and process id
    lineage.json  hashes of data, models and verifiers at the start; `changes`, what was changed on purpose, and when
    set_aside/    checkpoints that a run went back behind
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringrl.config.load import changeable, dump, fixed, load
from ringrl.config.sections import RunConfig
from ringrl.errors import DataError
from ringrl.lines import read_object, sha256, write_atomic
from ringrl.processes import locked, state_of
from ringrl.run import FORM, Run, verify_checkpoint, versions
from ringrl.safe_text import masked

LOCK = ".lock"
# files of a run that has not computed anything
BEGUN = ("config.yaml", "lineage.json", "report.html", "stopped.json", LOCK)
ABOUT = {"logs", "track", "tensorboard", "wandb"}  # folders about a run, which hold no result
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that knows none
ORPHANS_S = 30.0  # longest wait for the children of a killed launcher to end
UNKNOWN, ABSENT = "hub dataset", "no such file"  # in place of a hash; the first is compared with nothing


@dataclass(frozen=True)
class Resume:
    """How a run is continued."""

    changes: tuple[str, ...] = ()  # KEY=VALUE of settings, and names of files, data sets or models, that may differ
    checkpoint: int | None = None  # step of the checkpoint to go on from; None: the newest


@dataclass(frozen=True)
class Origin:
    """What a run depends on besides its configuration: hashes by name, those of models for each file."""

    parent: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    isolation: str = ""  # how programs are isolated, if there are any

    def lineage(self) -> dict[str, Any]:
        where = os.path.abspath(self.parent) if self.parent and "://" not in self.parent else self.parent  # of a server
        isolation = {"isolation": self.isolation} if self.isolation else {}
        begun = {"parent": where, "data": dict(self.data), "models": dict(self.models)}
        return {**begun, "versions": versions(), **isolation, "command": masked(shlex.join(sys.argv))}


@contextmanager
def opened(cfg: RunConfig, origin: Origin, resume: Resume | None) -> Iterator[Run]:
    """The run directory of `cfg`, created or reopened, and locked while the block lasts.

    Raises:
        DataError: it cannot be used, or another process works in it. Nothing in it has been changed then.
    """
    path = Path(cfg.run)
    _check_is_run(path)
    with exclusive(path) as lock:
        run = open_run(cfg, origin, resume)
        run.lock = lock
        yield run


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Locks a run directory, which is created if it is not there, for this process and the children that it passes
    the file descriptor to, -1 on a file system without locks.

    On NFS the lock is the server's, and holds between machines, unless it is mounted with `nolock` or `local_lock`.

    Raises:
        DataError: names who has it, or why it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        fd = _lock(path / LOCK)
        if fd is not None:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    except OSError as e:
        if e.errno not in NO_LOCKS:
            raise DataError(f"{path}: cannot be written: {e.strerror}, expected a folder for the run") from None
        fd = -1
    if fd is None:
        holder = read_object(path / LOCK)
        who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
        raise DataError(f"{path}: {who} works in this run directory, expected one at a time; stop it, or wait for it")
    try:
        yield fd
    finally:
        if fd >= 0:
            os.ftruncate(fd, 0)
            os.close(fd)


def _lock(file: Path) -> int | None:
    """As `locked`; waits for the children of a launcher that was killed, which end with it, but may take their time."""
    end = time.monotonic() + ORPHANS_S
    while True:
        fd = locked(file, os.O_RDWR | os.O_CREAT)
        if fd is not None or time.monotonic() > end:
            return fd
        holder = read_object(file)
        if holder.get("host") == socket.gethostname() and state_of(holder["pid"]):
            return None
        time.sleep(0.05)


def open_run(cfg: RunConfig, origin: Origin, resume: Resume | None) -> Run:
    """Create the run directory of `cfg`, or reopen it. A directory in which nothing was computed is begun anew.

    Raises:
        DataError: it is another folder, or exists and `resume` is None; or it was made with another configuration,
            other data, another model or by another version; or its checkpoint or metrics are damaged.
    """
    run = Run(cfg.run)
    _check_is_run(run.path)
    if is_begun(run.path) and (resume or computed(run.path) or not (run.path / "lineage.json").is_file()):
        if not resume:
            raise DataError(f"{run.path}: the run directory exists; continue it with --resume, or choose another `run`")
        _take_over(run, cfg, origin, resume)
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        write_atomic(run.path / "config.yaml", dump(cfg))
        run.write("lineage.json", origin.lineage())
    for name in (".*.part", "*/.*.part", "*/.*.old", "checkpoints/*/.*.old"):  # of a killed process
        for half in run.path.glob(name):
            shutil.rmtree(half) if half.is_dir() else half.unlink()
    (run.path / "logs").mkdir(exist_ok=True)
    return run


def is_begun(path: Path) -> bool:
    return (path / "config.yaml").is_file()


def computed(path: Path) -> bool:
    """Whether a run directory holds more than how it was begun: any result, however small."""
    return any(
        file.name not in BEGUN and not ABOUT & {*file.relative_to(path).parts} and file.suffix != ".part"
        and file.is_file() and file.stat().st_size
        for file in path.rglob("*")
    )  # fmt: skip


def _check_is_run(path: Path) -> None:
    """Raises DataError for something else than a run directory, so that nothing is put into it."""
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: got a file, expected a folder for the run; choose another `run`")
    if path.is_dir() and not is_begun(path):
        others = [p for p in path.iterdir() if p.name != LOCK and not p.match(".config.yaml.*.part")]
        if others:
            raise DataError(f"{path}: exists and is not a run directory; choose another `run`")


def _take_over(run: Run, cfg: RunConfig, origin: Origin, resume: Resume) -> None:
    """Checks everything, and then writes what differs from before."""
    file, finished = run.path / "config.yaml", run.path / "finished.json"
    was, again = load(type(cfg), file), resume.checkpoint is not None
    changed, lineage = _check_configuration(file, was, cfg, resume), _lineage(run, origin)
    changed |= _check_origin(run.path, lineage, origin, resume)
    if not finished.is_file() or changed or again:
        checkpoint = _checkpoint(run, resume)
        step = run.step_of(checkpoint) if checkpoint else 0
        try:
            cfg.check_continues(was, step)
        except ValueError as e:
            raise DataError(f"{file}: {e}") from None
        verify_rows(run, step)
        if changed or again:
            entry: dict[str, Any] = {"step": step, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "changed": changed}
            if aside := [c for c in run.checkpoints if again and run.step_of(c) > step]:
                entry["set_aside"] = [str(_set_aside(run, c).relative_to(run.path)) for c in aside]
            lineage["changes"] = [*lineage.get("changes", []), entry]
        if lineage != read_object(run.path / "lineage.json"):
            run.write("lineage.json", lineage)
        finished.unlink(missing_ok=True)
    write_atomic(file, dump(cfg))


def _lineage(run: Run, origin: Origin) -> dict[str, Any]:
    file = run.path / "lineage.json"
    if not file.is_file():  # killed right after writing config.yaml
        return origin.lineage()
    if not (lineage := read_object(file)):
        raise DataError(f"{file}: got no JSON object, expected what ringrl wrote there")
    return lineage


def _check_configuration(file: Path, was: RunConfig, now: RunConfig, resume: Resume) -> dict[str, Any]:
    """What is changed on purpose, {key: [before, now]}. Raises DataError for what else differs."""
    free, changed = set(changeable(now)), {}
    asked = {change.partition("=")[0] for change in resume.changes if "=" in change}
    for at, before, value in differences(fixed(was), fixed(now)):
        key = re.sub(r"\[(\d+)\]", r".\1", at)
        names = {key[: m.start()] for m in re.finditer(r"\.|$", key)}  # its own and those of all that it is in
        if names & asked and names & free:
            changed[key] = [before, value]
            continue
        how = ("but for how it is computed (trainer, rollout, server, verify, workers)" if not names & free
               else f"unless it is asked for with --change {key}={value}")  # fmt: skip
        raise DataError(f"{file}: {at} was {before!r}, now {value!r}; --resume continues with the same configuration, "
                        f"{how}")  # fmt: skip
    return changed


def differences(was: Any, now: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, value before, value now) of all that differs in a configuration."""
    if isinstance(was, dict) and isinstance(now, dict) and was.keys() <= now.keys():
        for key in now:
            yield from differences(was.get(key), now[key], f"{at}.{key}".lstrip("."))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, pair in enumerate(zip(was, now, strict=True)):
            yield from differences(*pair, f"{at}[{i}]")
    elif was != now:
        yield at, was, now


def _check_origin(run: Path, lineage: dict[str, Any], origin: Origin, resume: Resume) -> dict[str, Any]:
    """What data and models were changed on purpose, {name: [hash before, now]}; their hashes of now go into the
    lineage. Raises DataError for what else is not as it was when the run began."""
    changed = {}
    for kind, now in (("data", origin.data), ("models", origin.models)):
        before = lineage.get(kind) or now  # none in a run that an earlier version began
        for name in sorted(now.keys() & before.keys() if kind == "data" else now.keys() | before.keys()):
            expected, got = before.get(name, ABSENT), now.get(name, ABSENT)
            if got == expected or UNKNOWN in (got, expected):
                continue
            if not any(name == asked or name.startswith(f"{asked}/") for asked in resume.changes):
                raise DataError(f"{name}: got {got}, expected {expected} as when {run} began; --resume goes on with "
                                f"the same data and models, unless --change {name} asks for others")  # fmt: skip
            changed[name] = [expected, got]
        lineage[kind] = {**now} if kind == "models" else {**before, **now}
    return changed


def check_files(run: Path) -> None:
    """Raises DataError for a file that is not what a finished run was made from. One that is gone is not missed."""
    for name, expected in read_object(run / "lineage.json").get("data", {}).items():
        if os.path.isfile(name) and (got := sha256(Path(name))) != expected:
            raise DataError(f"{name}: got {got}, expected {expected} as when {run} began, which is finished; choose "
                            f"another `run` for other data")  # fmt: skip


def _checkpoint(run: Run, resume: Resume) -> Path | None:
    """The checkpoint to go on from, whole; None if there is none yet.

    Raises:
        DataError: it is not there, damaged, or of another form than this version's.
    """
    whole = {run.step_of(c): c for c in run.checkpoints if (c / "trainer").is_dir()}
    if resume.checkpoint is not None and resume.checkpoint not in whole:
        steps = ", ".join(map(str, whole)) or "none"
        raise DataError(f"--from-checkpoint: got {resume.checkpoint}, expected the step of one in {run.path} that a "
                        f"run can go on from: {steps}")  # fmt: skip
    if not run.checkpoints:
        return None
    folder = run.checkpoints[-1] if resume.checkpoint is None else whole[resume.checkpoint]
    older = [step for step in whole if step < run.step_of(folder)]
    layout = read_object(folder / "trainer" / "state.json").get("layout")
    form = layout.get("form", 1) if isinstance(layout, dict) else FORM  # else it is damaged
    if form != FORM:
        raise DataError(f"{folder}: got trainer state in the form {form}, expected {FORM}: it is of another version of "
                        f"ringrl; start a new run with model: {folder}")  # fmt: skip
    try:
        verify_checkpoint(folder)
    except DataError as e:
        way = "the run cannot be resumed from here, a new one can start with an older checkpoint as its model"
        if older:
            way = f"--resume --from-checkpoint {older[-1]} goes on from the one before"
        raise DataError(f"{e}; {way}") from None
    return folder


def verify_rows(run: Run, step: int) -> None:
    """Raises DataError unless metrics.jsonl has one line for each step up to this one."""
    rows = run.rows("metrics") if step else []
    for expected, row in zip(range(1, step + 1), [*rows[:step], {}], strict=False):
        if not isinstance(row, dict) or row.get("step") != expected:
            raise DataError(f"{run.path}/metrics.jsonl: got no line for step {expected} in its place, expected those "
                            f"of steps 1 to {step}, which the checkpoint counts on")  # fmt: skip


def _set_aside(run: Run, checkpoint: Path) -> Path:
    (run.path / "set_aside").mkdir(exist_ok=True)
    n, target = 1, run.path / "set_aside" / checkpoint.name
    while target.exists():
        n, target = n + 1, target.with_name(f"{checkpoint.name}.{n + 1}")
    os.replace(checkpoint, target)
    return target
