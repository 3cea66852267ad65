"""A tracker beside a running command: `python -m ringrl.track.child RUN NAME`. Standard input ends with the launcher,
however that ends; then the rest is sent, and the record closed."""

from __future__ import annotations

import select
import signal
import sys
from pathlib import Path

from ringrl.errors import UserError
from ringrl.track.send import POLL_S, send

CLOSE_S = 60  # after which a tracker that hangs is killed, if the launcher is not there any more to do so


def launcher_lives() -> bool:
    """Waits for a moment. Says no only once, when the launcher has ended."""
    if select.select([sys.stdin], [], [], POLL_S)[0] and not sys.stdin.buffer.read(1):
        signal.alarm(CLOSE_S)
        return False
    return True


class Until:
    """True while the launcher lives, and once more after that, for the rows it left."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self) -> bool:
        if self.over:
            return False
        self.over = not launcher_lives()
        return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the user's Ctrl-C is the launcher's to answer
    try:
        send(Path(sys.argv[1]), sys.argv[2], Until())
    except UserError as error:
        sys.exit(str(error))
