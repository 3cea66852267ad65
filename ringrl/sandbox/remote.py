"""Programs run by a sandbox service over HTTP, with the API of SandboxFusion: `POST /run_code`.

Its documentation: https://bytedance.github.io/SandboxFusion/docs/api/run-code-run-code-post. An answer that is bad,
late or missing is our error and says nothing about the program. Memory and processes are the service's to limit.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import secrets
from typing import Any

from ringrl.http import Client, Refused, ServerFailed
from ringrl.sandbox import names, values
from ringrl.sandbox.box import Execution, Limits, SandboxError
from ringrl.sandbox.local import BUILD

RETRIES, CONNECTIONS = 2, 64
_SCRIPT = """{names}
exec(compile({code!r}, "answer.py", "exec", dont_inherit=True))
"""
_CALLER = """
import json, sys
__values, __told = {{}}, json.loads(sys.stdin.read())
exec({values!r}, __values)
exec({names!r}, __names := {{}})
exec(compile({code!r}, "answer.py", "exec", dont_inherit=True), __space := {{**__names, "__name__": "answer"}})
__owner, _, __name = __told["entry"].rpartition(".")
__own = __space.get(__name) is not __names.get(__name)
__holder = __space[__owner]() if __owner else None if __own else __space["Solution"]()
__function = getattr(__holder, __name) if __holder else __space[__name]
__result = json.dumps(__values["encode"](__function(*__values["decode"](__told["args"]))))
print("\\n{mark}" + __result)
"""


class SandboxService:
    """A sandbox service at a URL; an answer, retries included, may take `patience_s` seconds."""

    def __init__(self, url: str, patience_s: float) -> None:
        self._url, self._patience_s = url, patience_s

    def execute(self, language: str, code: str, stdin: str, limits: Limits) -> Execution:
        """One run of a program. Raises SandboxError if the service fails."""
        if language == "python":
            code = _SCRIPT.format(names=names.TEXT, code=code)
        return self._run(language, code, stdin, limits)

    def _run(self, language: str, code: str, stdin: str, limits: Limits) -> Execution:
        request = {
            "code": code,
            "language": language,
            "stdin": stdin,
            "compile_timeout": BUILD.wall_s,
            "run_timeout": limits.wall_s,
        }
        answer = self._post(request)
        try:
            return _read(answer, limits)
        except (KeyError, TypeError, AttributeError) as error:
            raise SandboxError(
                f"{self._url}: got {str(answer)[:200]!r}, expected a RunCodeResponse ({error!r})"
            ) from None

    def call(self, code: str, entry: str, args: list[Any], limits: Limits) -> Execution:
        """One call of a Python function. Its result, as plain data, is the report. Raises SandboxError."""
        mark = secrets.token_hex(16)
        program = _CALLER.format(values=inspect.getsource(values), names=names.TEXT, code=code, mark=mark)
        request = json.dumps({"entry": entry, "args": values.encode(args)})
        execution = self._run("python", program, request, limits)
        stdout, _, report = execution.stdout.rpartition(f"\n{mark}")
        return Execution(execution.outcome, stdout, execution.stderr, report.encode())

    def _post(self, request: dict[str, Any]) -> Any:
        try:
            return _client(self._url).post("run_code", request, self._patience_s)
        except (Refused, ServerFailed) as error:
            raise SandboxError(str(error)) from None


@functools.cache
def _client(url: str) -> Client:
    """One for all programs of this process, so that connections stay open."""
    return Client(url, key="", deadline_s=math.inf, retries=RETRIES, concurrent=CONNECTIONS)


def _read(answer: dict[str, Any], limits: Limits) -> Execution:
    """What a RunCodeResponse says; anything it should not say raises."""
    if answer["status"] not in ("Success", "Failed"):
        raise SandboxError(f"the service says {answer['status']}: {str(answer.get('message'))[:200]}")
    compiled, ran = answer.get("compile_result"), answer.get("run_result") or {}
    if compiled is not None and (compiled["status"] != "Finished" or compiled["return_code"] != 0):
        outcome = "timeout" if compiled["status"] == "TimeLimitExceeded" else "compile"
        return Execution(outcome, "", compiled.get("stderr") or "", b"")
    stdout, stderr = (ran.get(k) or "" for k in ("stdout", "stderr"))
    if ran["status"] == "TimeLimitExceeded":
        outcome = "timeout"
    elif ran["status"] != "Finished":
        raise KeyError(ran["status"])
    elif ran["return_code"] != 0:
        outcome = _failure(stderr)
    else:
        outcome = "output" if len(stdout) >= limits.output_bytes else "ok"
    return Execution(outcome, stdout, stderr, b"")


def _failure(stderr: str) -> str:
    """Why Python ended, by the last line it wrote."""
    last = stderr.strip().rpartition("\n")[2]
    if last.startswith(("SyntaxError", "IndentationError", "TabError")):
        return "compile"
    return "memory" if last.startswith("MemoryError") else "runtime"
