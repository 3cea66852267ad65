"""The end of an interpreter, for a forked process that leaves by os._exit: Python has no public function for it."""

from __future__ import annotations

import atexit
import sys

if not (3, 11) <= sys.version_info < (3, 15):
    raise ImportError(f"the sandbox: got Python {sys.version.split()[0]}, expected at least 3.11 and below 3.15")


def finish() -> None:
    """Waits for threads, runs exit handlers, flushes, as a program sees it when it ends."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
