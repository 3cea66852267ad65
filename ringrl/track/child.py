"""A tracker beside a running command: `python -m ringrl.track.child RUN NAME`. Standard input ends with the launcher,
however that ends; then the rest is sent, and the record closed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from ringrl.errors import UserError
from ringrl.track.send import POLL_S, send

CLOSE_S = 60  # after which a tracker that hangs is killed, if the launcher is not there any more to do so


class Until:
    """True while the launcher lives, and once more after that, for the rows it left."""

    def __init__(self) -> None:
        self.over, self.last = threading.Event(), False
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        if self.last:
            return False
        self.last = self.over.wait(POLL_S)
        return True

    def _watch(self) -> None:
        """In a thread, since the tracker may hang."""
        while os.read(0, 1):  # not sys.stdin's read: its lock, held, aborts an interpreter that ends
            pass
        signal.alarm(CLOSE_S)
        self.over.set()


def main(run: str, name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the user's Ctrl-C is the launcher's to answer
    try:
        send(Path(run), name, Until())
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
