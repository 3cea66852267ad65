"""The user's hooks: told on rank 0 of every row, evaluation and checkpoint, in a thread of their own."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ringrl.errors import RingError, UserError
from ringrl.users.objects import Unusable, class_of

METHODS = ("step", "evaluated", "saved", "ended")
END_S = 30.0  # in which hooks have to be done when the run has ended


class Hooks:
    """Calls the hooks in the order of events, so that one that blocks holds up the others and not the run.

    Args:
        note: tells the user of one that failed.
        strict: the run ends when one has failed, at its next event.

    Raises:
        UserError: a class cannot be loaded, or has none of the methods.
    """

    def __init__(self, names: Sequence[str], strict: bool, note: Callable[[str], None]) -> None:
        self.strict, self.note, self.failed = strict, note, ""
        self.hooks = [(name, _made(name)) for name in names]
        self.events: queue.Queue[tuple[str, Any] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        if self.hooks:
            self.thread.start()

    def tell(self, method: str, value: Any) -> None:
        """Raises RingError when a hook has failed by now and they are strict."""
        if self.hooks:
            self.events.put((method, dict(value) if isinstance(value, Mapping) else value))
        if self.failed and self.strict:
            raise RingError(f"hooks: {self.failed}, and strict_hooks is true")

    def end(self, code: int) -> int:
        """The last event. Returns the code that the run ends with: 1 instead of 0 when a strict hook has failed."""
        if not self.hooks:
            return code
        self.events.put(("ended", code))
        self.events.put(None)
        self.thread.join(END_S)
        if self.thread.is_alive():
            self.failed = f"not done within {END_S:g} s after the end"
            self.note(f"hooks: {self.failed}; what they had to do is left undone")
        return 1 if self.strict and self.failed and not code else code

    def _work(self) -> None:
        while event := self.events.get():
            method, value = event
            for name, hook in self.hooks:
                try:
                    if call := getattr(hook, method, None):
                        call(value)
                except Exception as error:  # the user's code: told, and the run goes on
                    traceback.print_exc()
                    self.failed = f"{name}: {method}: {type(error).__name__}: {error}"
                    self.note(f"hooks: {self.failed}")


def _made(name: str) -> Any:
    try:
        made = class_of(name)()
    except Unusable as error:
        raise UserError(f"hooks: got {name}: {error}") from None
    except Exception as error:  # of the user's constructor
        raise UserError(f"hooks: got {name}: {type(error).__name__}: {error}, expected a class that is made without "
                        f"arguments") from None  # fmt: skip
    if not any(hasattr(made, method) for method in METHODS):
        raise UserError(f"hooks: got {name}, expected a class with one of the methods {', '.join(METHODS)}")
    return made
