"""What is wrong with rows of data, in one line: the first few by file and line, and how many more."""

from __future__ import annotations

from ringrl.errors import DataError

LONGEST = 200  # characters of what is said of a row
NAMED = 3  # different faults in the line
ENOUGH = 100  # bad rows after which no more are looked for


def shorten(text: str) -> str:
    """One line of at most `LONGEST` characters."""
    line = " ".join(text[: 4 * LONGEST].splitlines())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def bad_row(where: str, text: str) -> DataError:
    """The error that names a row by its place, "file:line", and says what is wrong with it."""
    return DataError(f"{where}: {shorten(text.removeprefix(f'{where}: '))}")


class Faults:
    """Collects the bad rows of a source. Rows with the same fault are named once.

    enough: bad rows after which `add` raises; 0 = never.
    """

    def __init__(self, enough: int = ENOUGH) -> None:
        self.enough = enough
        self.rows, self.bad = 0, 0
        self._named: dict[str, str] = {}  # what is wrong -> where first

    def add(self, where: str, text: str) -> None:
        """Raises DataError when there are enough of them."""
        self.bad += 1
        if len(self._named) < NAMED:
            self._named.setdefault(shorten(text.removeprefix(f"{where}: ")), where)
        if self.bad == self.enough:
            self.check()

    def check(self) -> None:
        """Raises DataError if there are bad rows."""
        if self.bad:
            raise DataError(str(self))

    def __str__(self) -> str:
        named = "; ".join(f"{where}: {text}" for text, where in self._named.items())
        first = "the first " if self.bad == self.enough else ""
        return named if self.bad == 1 else f"{named} ({self.bad:,} of {first}{self.rows:,} rows are bad)"
