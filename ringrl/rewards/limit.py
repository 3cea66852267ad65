"""A limit on the processor time of a block of Python."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

AGAIN_S = 0.05  # the signal comes again, in case the block caught the first exception


class OutOfTime(BaseException):
    """The block took too long. No `Exception`, so that a library's `except Exception` does not hold it up."""


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block once this thread's process has computed for so long.

    It needs the main thread, as signals do; elsewhere the block runs without a limit of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    running = True

    def stop(*_: Any) -> None:
        if running:
            raise OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
