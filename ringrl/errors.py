"""Errors that end a run, and their exit codes.

    RingError
    ├── UserError       2   the user can fix it: one line naming file, key, value got, value expected
    │   ├── ConfigError     a configuration file or an override
    │   └── DataError       a data file, a model folder, a run directory
    │       └── PromptTooLong   a problem whose prompt leaves no room to answer
    ├── Diverged        3   the run is no longer worth continuing; its state is saved
    └── ChildDied       1   a process we started ended, or missed its deadline

Anything else is a bug of ours: a traceback and exit code 1. Interrupts end with 130.
All of them can be pickled, so a child process may send them to its parent.
"""

from __future__ import annotations

import errno

NO_FAULT_OF_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
                    errno.EACCES, errno.EPERM)  # fmt: skip


class RingError(Exception):
    """Base class. `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(RingError):
    exit_code = 2


class ConfigError(UserError):
    pass


class DataError(UserError):
    pass


class PromptTooLong(DataError):
    pass


class Diverged(RingError):
    exit_code = 3


class ChildDied(RingError):
    exit_code = 1


def fault_of_machine(error: BaseException) -> str:
    """What a full or read-only disk, or another limit of the machine, has refused, in one line; "" for other errors."""
    if not isinstance(error, OSError) or error.errno not in NO_FAULT_OF_OURS:
        return ""
    return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)


def require(library: str, installed: str, at_least: str, below: str) -> None:
    """Raises UserError when the installed version of a library is outside [at_least, below)."""
    from packaging.version import Version

    if not Version(at_least) <= Version(installed) < Version(below):
        raise UserError(f"{library}: got version {installed}, expected at least {at_least} and below {below}")
