"""Finds and constructs a verifier by its name.

A verifier is a function `(response, row, **options)`, or a class: constructed once with the options, then called as
`(response, row)`. Its result, or what awaiting it gives, is a bool, a number from 0 to 1, or a Verdict.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ringrl.domains import Reward
from ringrl.users.objects import Unusable, module_of

VERIFIERS: dict[str, str] = {  # the built-in ones
    "math": "ringrl.rewards.answers:verify_math",
    "science": "ringrl.rewards.answers:verify_science",
    "code": "ringrl.rewards.code:verify_code",
    "reasoning_gym": "ringrl.rewards.gym:GymVerifier",
    "url": "ringrl.rewards.served:UrlVerifier",
    "judge": "ringrl.rewards.served:ModelJudge",
    "format": "ringrl.rewards.form:FormatVerifier",
    "length": "ringrl.rewards.form:LengthVerifier",
}
Verifier = Callable[[str, Mapping[str, Any]], Any]


def is_built_in(verifier: str) -> bool:
    return verifier in VERIFIERS


def source_of(verifier: str) -> str:
    """The user's file or module that holds the verifier; "" for a built-in one."""
    return "" if is_built_in(verifier) else verifier.rpartition(":")[0] or verifier


def load(reward: Reward, given: Mapping[str, Any] | None = None) -> Verifier:
    """Loads the verifier of a reward in the calling process.

    given: arguments for a built-in verifier besides its options; those it does not take are ignored.

    Raises:
        Unusable: it does not exist, cannot be imported, or does not take these options.
    """
    target = _find(VERIFIERS.get(reward.verifier, reward.verifier))
    try:
        signature = inspect.signature(target)
    except ValueError:  # functions in C may have no signature
        signature = inspect.signature(lambda *args, **options: None)
    more = {k: v for k, v in (given or {}).items() if k in signature.parameters} if is_built_in(reward.verifier) else {}
    options = {**more, **reward.options}
    try:
        signature.bind(*(() if inspect.isclass(target) else ("", {})), **options)
    except TypeError as error:
        raise Unusable(f"{error}; expected {target.__name__}{signature}") from None
    if not inspect.isclass(target):
        return partial(target, **options) if options else target
    try:
        instance = target(**options)
    except Exception as error:
        raise Unusable(explain(error, source_of(reward.verifier))) from None
    if not callable(instance):
        raise Unusable(f"an object of {target.__name__} cannot be called, expected __call__(response, row)")
    return instance


def explain(error: BaseException, source: str) -> str:
    """The exception, and the line of the user's file or module where it was raised."""
    text = " ".join(str(error).split())[:400]
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if source and _is_of(f.filename, source)]
    return f"{message} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else message


def _is_of(filename: str, source: str) -> bool:
    if source.endswith(".py"):
        return Path(filename).resolve() == Path(source).resolve()
    module = sys.modules.get(source)
    return module is not None and getattr(module, "__file__", "") == filename


def _find(verifier: str) -> Any:
    """Raises Unusable."""
    where, _, name = verifier.rpartition(":")
    if not where or not name:
        raise Unusable(f"expected one of {', '.join(VERIFIERS)}, or path/file.py:function, or module:function")
    try:
        module = module_of(where) if where.endswith(".py") else importlib.import_module(where)
    except Unusable:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == where.partition(".")[0]:
            raise Unusable(f"no module {error.name!r} is installed; a file is named by its path, "
                           f"{where.rpartition('.')[2]}.py:{name}") from None  # fmt: skip
        raise Unusable(f"it cannot be imported: {explain(error, where)}") from None
    target, place = getattr(module, name, None), Path(where).name
    if target is None:
        names = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and callable(v)]
        has = f"it has: {', '.join(names)}" if names else "it has none"
        raise Unusable(f"no function {name!r} in {place}, {has}")
    if not callable(target):
        raise Unusable(f"{name!r} in {place} is no function, but of type {type(target).__name__}")
    return target
