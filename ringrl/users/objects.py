"""Objects of the user's, which a configuration names as path/file.py:name or module:name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

NAMED = re.compile(r"\w+(\.\w+)*:\w+|[^:]+\.py:\w+")


class Unusable(Exception):
    """Why an object of the user's cannot be used, in one line."""


def class_of(named: str) -> type:
    """The class of this name, its module imported.

    Raises:
        Unusable: there is none, or its module cannot be imported.
    """
    where, _, name = named.rpartition(":")
    try:
        module = module_of(where) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        if isinstance(error, Unusable):
            raise
        raise Unusable(f"{where} cannot be imported: {type(error).__name__}: {error}") from None
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise Unusable(f"no class {name!r} in {where}")
    return found


def module_of(path: str) -> ModuleType:
    """Imports a file under a unique module name. It can import files beside it unless an installed module has the same
    name: a chess.py that imports the library `chess` does not get itself."""
    file = Path(path).resolve()
    if not file.is_file():
        raise Unusable(f"no such file: {path}")
    name = f"users_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}.{file.stem}".replace(".", "_")
    if name not in sys.modules:
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None, file
        assert spec.loader is not None, file
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # before it runs: dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
