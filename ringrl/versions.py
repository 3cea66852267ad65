"""Which versions of a library are supported where its private parts are used."""

from __future__ import annotations

from packaging.version import Version

from ringrl.errors import UserError


def require(library: str, installed: str, at_least: str, below: str) -> None:
    """Raises UserError when the installed version of a library is outside [at_least, below)."""
    if not Version(at_least) <= Version(installed) < Version(below):
        raise UserError(f"{library}: got version {installed}, expected at least {at_least} and below {below}")
