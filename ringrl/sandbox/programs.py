"""What a forked process of the host does before and while untrusted code runs in it. Nothing here returns to it.

| mode   | the program is                     | its standard input              | report (file descriptor 3) |
|--------|------------------------------------|---------------------------------|----------------------------|
| script | Python, run as `__main__`          | its own                         |                            |
| call   | Python, run as a module            | {"entry", "args"}: what to call | the result, as `values`    |
| serve  | Python, run as a module and called |                                 |                            |
| check  | texts of trusted Python that call it | {"entry", "proof"}            | the proof, if all of it ran|
| build  | C++ or Java source                 | {"source", "command", "result"} | the executable or jar      |
| native | an executable                      | its own                         |                            |
| java   | a jar, run by the request's command| its own                         |                            |

Besides, the report of Python and of a build may be one word: `compile`, `memory`, `wrong`.
"""

from __future__ import annotations

import builtins
import fcntl
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ringrl.processes import die_with_parent
from ringrl.sandbox import calls, checks, kernel, names, values
from ringrl.sandbox.kernel import NAMESPACED, Place
from ringrl.sandbox.python_internals import finish

REPORT, PROGRAM, CHANNEL = 3, 4, 5
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
_prelude: dict[str, object] = {}
_given: dict[str, object] = {}  # what each program's module gets of it


def preload(packages: list[str]) -> None:
    """Imports, once, what programs import all the time; our package, and the environment, are forgotten.

    `packages` are directories whose modules may be imported; without them, it is the standard library only.
    """
    exec(names.TEXT, _prelude)
    for name in [n for n in _prelude if n.startswith("__") or n in vars(builtins)]:
        del _prelude[name]
    if packages:
        _given.update(_prelude)
    else:  # as builtins, which forks need not copy
        vars(builtins).update(_prelude)
    os.environ.clear()
    sys.path.pop(0)
    sys.path += packages
    if packages:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's: threads of the host are no threads of its forks
    sys.executable = os.path.realpath(sys.executable)  # a virtual environment is not to be seen
    for name in [n for n in sys.modules if n.split(".")[0] == "ringrl"]:
        del sys.modules[name]


def run(request: dict[str, Any], fds: list[int], place: Place, host: int) -> None:
    """Turns this fresh process into the place a program runs in, and runs it. Never returns."""
    code = 1
    try:
        _enter(request, fds, place)
        if place.level not in NAMESPACED:
            die_with_parent(host)
        code = _MODES[request["mode"]](request)
    except BaseException:  # a full output file, a program that broke its own streams: a failed program
        code = code or 1
    finally:
        os._exit(code & 0xFF)


def _enter(request: dict[str, Any], fds: list[int], place: Place) -> None:
    os.setsid()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
    for target, source in enumerate(high):
        os.dup2(source, target, inheritable=target < REPORT)
    os.closerange(len(fds), 1 << 16)
    os.chdir(place.cwd)
    os.umask(0o077)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
    sys.argv = ["answer.py"]
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # `site` would have added them
    kernel.limit(resource.RLIMIT_CPU, request["cpu_s"], grace=1)  # a second later it is killed
    if not request["command"]:  # a JVM reserves far more than it uses; its heap is limited by an option
        kernel.limit(resource.RLIMIT_AS, request["memory_bytes"])
    kernel.limit(resource.RLIMIT_FSIZE, request["output_bytes"])
    kernel.limit(resource.RLIMIT_NOFILE, request["open_files"])
    kernel.limit(resource.RLIMIT_STACK, kernel.STACK_BYTES)
    kernel.limit(resource.RLIMIT_CORE, 0)
    kernel.limit(resource.RLIMIT_MSGQUEUE, 0)
    if place.level != "process":  # there it would count all that the user runs
        kernel.limit(resource.RLIMIT_NPROC, request["processes"])
    kernel.confine(place)


def _program() -> bytes:
    with open(PROGRAM, "rb") as file:
        return file.read()


def _input() -> dict[str, Any]:
    """The JSON object on standard input, which is empty afterwards."""
    spec = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0)
    return spec


def _report(word: bytes) -> None:
    os.pwrite(REPORT, word, 0)


def _python(name: str, then: Callable[[ModuleType], None]) -> int:
    """Runs the program as module `name`, then what is to be done with it; returns the exit status."""
    module = ModuleType(name)
    sys.modules[name] = module
    vars(module).update(_given)
    try:
        try:
            code = compile(_program(), "<answer>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes
            _report(b"compile")
            raise error.with_traceback(None) from None
        exec(code, module.__dict__)
        then(module)
        return 0
    except SystemExit as error:
        return (error.code if isinstance(error.code, int) else 1) if error.code else 0
    except MemoryError:
        _report(b"memory")
        os.write(2, b"MemoryError\n")
    except BaseException as error:  # whatever the program raises ends the program
        sys.__excepthook__(type(error), error, error.__traceback__)
    return 1


def _script(request: dict[str, Any]) -> int:
    code = _python("__main__", lambda module: None)
    finish()
    return code


def _call(request: dict[str, Any]) -> int:
    spec = _input()

    def call(module: ModuleType) -> None:
        owner, _, name = spec["entry"].rpartition(".")
        own = name in vars(module) and vars(module)[name] is not _prelude.get(name)
        holder = getattr(module, owner)() if owner else module if own else module.Solution()
        result = getattr(holder, name)(*values.decode(spec["args"]))
        _report(json.dumps(values.encode(result)).encode())

    code = _python("answer", call)
    finish()
    return code


def _serve(request: dict[str, Any]) -> int:
    def serve(module: ModuleType) -> None:
        calls.serve(socket.socket(fileno=CHANNEL), module, _prelude)
        os._exit(0)

    return _python("answer", serve)


def _check(request: dict[str, Any]) -> int:
    spec = _input()
    try:
        checks.run(socket.socket(fileno=CHANNEL), json.loads(_program()), spec["entry"], _prelude)
        _report(spec["proof"].encode())
        return 0
    except AssertionError:
        _report(b"wrong")
    except MemoryError:
        _report(b"memory")
    except checks.TestsFault as error:
        _report(values.FAULT + str(error).encode("utf-8", "replace")[:500])
    return 1


def _build(request: dict[str, Any]) -> int:
    spec = _input()
    command, result = spec["command"], spec["result"]
    with open(spec["source"], "wb") as file:
        file.write(_program())
    os.mkdir("classes")
    if subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL).returncode:
        _report(b"compile")
        return 1
    if result.endswith(".jar"):
        with zipfile.ZipFile(result, "w") as jar:
            for folder, _, files in os.walk("classes"):
                for path in (os.path.join(folder, name) for name in files):
                    jar.write(path, os.path.relpath(path, "classes"))
    with open(result, "rb") as built, open(REPORT, "wb", closefd=False) as report:
        shutil.copyfileobj(built, report)
    return 0


def _native(request: dict[str, Any]) -> int:
    os.execve(PROGRAM, ["answer"], ENVIRONMENT)


def _java(request: dict[str, Any]) -> int:
    with open("answer.jar", "wb") as file:
        file.write(_program())
    os.execve(request["command"][0], request["command"], ENVIRONMENT)


_MODES: dict[str, Callable[[dict[str, Any]], int]] = {
    "script": _script, "call": _call, "serve": _serve, "check": _check, "build": _build, "native": _native,
    "java": _java}  # fmt: skip
