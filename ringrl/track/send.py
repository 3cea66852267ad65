"""Writes a run to one tracker, to its end or as far as it is. RUN/track/NAME.json says what the record holds."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ringrl.errors import DataError
from ringrl.lines import read_object, write_atomic
from ringrl.processes import locked
from ringrl.track.feed import FILES, Feed, TakenBack, flat, numbers_of
from ringrl.track.trackers import Tracker, check_name, tracker_class

POLL_S = 1.0
OTHER_S = 60.0  # longest wait for another process that writes to the same record, such as that of a killed launcher


def send(run: Path, name: str, more: Callable[[], bool]) -> int:
    """Sends all rows that the record of the tracker `name` does not hold yet.

    Args:
        more: waits a little, and says whether to look again; not called when the end of the run has been sent.

    Returns:
        Rows sent.

    Raises:
        UserError: no such tracker or run, or another process writes to the record.
    """
    make = tracker_class(name)
    if not (run / "config.yaml").is_file():
        raise DataError(f"{run}: no config.yaml in it, expected the directory of a run")
    file = run / "track" / f"{name.replace('/', '_')}.json"
    file.parent.mkdir(exist_ok=True)
    with _alone(file.with_suffix(".lock")):
        sent, goes_on = 0, True
        while goes_on:
            state = read_object(file)
            if state.get("open", False):  # whoever wrote to it was killed: it may hold more than is known
                state = _replaced(run, name, make, state)
            try:
                count, goes_on = _send_once(run, name, make, state, file, more)
                sent += count
            except TakenBack:
                write_atomic(file, json.dumps({**read_object(file), "open": True}))
        return sent


def named(run: Path, to: tuple[str, ...], follow: bool) -> tuple[str, ...]:
    """The trackers to send a run to: `to`, or those of its configuration.

    Raises:
        UserError: there is no run, no tracker or an unknown one, or several to follow it.
    """
    if not (run / "config.yaml").is_file():
        raise DataError(f"{run}: no config.yaml in it, expected the directory of a run")
    names = to or tuple((yaml.safe_load((run / "config.yaml").read_text()) or {}).get("track", ()))
    if not names or (follow and len(names) > 1):
        raise DataError(f"--to: got {', '.join(names) or 'none'}, expected {'one' if follow else 'at least one'}")
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            raise DataError(f"--to: {error}") from None
        tracker_class(name)
    return names


def until_it_stops(run: Path) -> Callable[[], bool]:
    """Waits a little, and says whether to look again: once more after the run has stopped, for the rows it left."""
    over = False

    def more() -> bool:
        nonlocal over
        if over:
            return False
        time.sleep(POLL_S)
        over = (run / "stopped.json").is_file()
        return True

    return more


def _send_once(
    run: Path, name: str, make: Any, state: dict[str, Any], file: Path, more: Callable[[], bool]
) -> tuple[int, bool]:
    """(rows sent, whether the run goes on). Raises TakenBack, with the tracker closed."""
    generation, held = state.get("generation", 0), state.get("held", {})
    feeds = {kind: Feed(run / f"{kind}.jsonl", held.get(kind, {})) for kind in FILES}
    config = dict(flat(yaml.safe_load((run / "config.yaml").read_text()), ""))

    def write(is_open: bool) -> None:
        marks = {kind: feed.mark() for kind, feed in feeds.items()}
        write_atomic(file, json.dumps({"generation": generation, "open": is_open, "held": marks}, indent=1) + "\n")

    write_atomic(file, json.dumps({"generation": generation, "open": True, "held": held}))
    tracker: Tracker = make(run, title(run), record_of(run, generation), config)
    sent, look = 0, True
    try:
        while look:
            ended = (run / "finished.json").is_file()  # before the rows: none comes after it
            for kind, feed in feeds.items():
                for row in feed.rows():
                    tracker.log(int(row.get("step", 0)), numbers_of(kind, row))
                    sent += 1
            look = not ended and more()
    finally:
        tracker.close()
    write(False)
    return sent, False


def _replaced(run: Path, name: str, make: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state of the record that takes the place of this one, which is removed if the tracker can do so."""
    if hasattr(make, "replace"):
        make.replace(run, title(run), record_of(run, state["generation"]))
    return {"generation": state["generation"] + 1}


def title(run: Path) -> str:
    """The name of the run; of a stage of a pipeline, after the pipeline's."""
    place = run.resolve()
    return f"{place.parent.name}/{place.name}" if (place.parent / "config.yaml").is_file() else place.name


def record_of(run: Path, generation: int) -> str:
    """An identifier that no other run has, of letters that all trackers take."""
    place = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in title(run))[:40]
    return f"{safe}-{place}" + (f"-{generation}" if generation else "")


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    end = time.monotonic() + OTHER_S
    while (fd := locked(file, os.O_RDWR | os.O_CREAT)) is None:
        if time.monotonic() > end:
            raise DataError(f"{file}: another process writes to this record, expected one at a time")
        time.sleep(0.1)
    try:
        yield
    finally:
        os.close(fd)
