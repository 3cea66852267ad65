"""Programs on a sandbox service: a server with SandboxFusion's API that runs them in our own sandbox, and bad ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ringrl.rewards import VerifierPool
from ringrl.rewards.code import verify_code
from ringrl.sandbox.box import Limits
from ringrl.sandbox.local import Local, missing

DOUBLE = [{"input": "2\n", "output": "4\n"}, {"input": "5\n", "output": "10"}]
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@contextmanager
def service(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/run_code"
            status, body = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run_code(local: Local, request: dict[str, Any]) -> tuple[int, bytes]:
    """What SandboxFusion does with a request, by our sandbox."""
    limits = Limits(wall_s=request["run_timeout"], cpu_s=1)
    seen = local.execute(request["language"], request["code"], request["stdin"], limits)
    ran = {"status": "Finished", "execution_time": 0.1, "return_code": 0, "stdout": seen.stdout, "stderr": seen.stderr}
    compiled = None
    if seen.outcome == "timeout":
        ran |= {"status": "TimeLimitExceeded", "return_code": None}
    elif seen.outcome != "ok":
        ran |= {"return_code": 1}
    if request["language"] != "python":
        compiled = {**ran, "return_code": int(seen.outcome == "compile")}
        ran = ran if seen.outcome != "compile" else None
    failed = {"status": "Failed" if seen.outcome != "ok" else "Success", "message": "", "executor_pod_name": None}
    return 200, json.dumps({**failed, "compile_result": compiled, "run_result": ran, "files": {}}).encode()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    local = Local()
    with service(lambda request: run_code(local, request)) as url:
        yield url
    local.close()


def judge(url: str, code: str, tests: Any = DOUBLE, **reference: str) -> str:
    language = reference.get("language", "python")
    verdict = verify_code(f"```{language}\n{code}\n```", {"tests": tests, **reference}, remote=url)
    return verdict.reason if verdict.kind != "error" else f"error: {verdict.reason}"


def test_verdicts(url: str):
    assert judge(url, "print(2 * int(input()))") == "tests"
    assert judge(url, "print(3 * int(input()))") == "wrong"
    assert judge(url, "print(1 // 0)") == "runtime"
    assert judge(url, "print(") == "compile"
    assert judge(url, "x = bytearray(1 << 40)") == "memory"
    assert judge(url, "while True: pass") == "timeout"
    assert judge(url, "exit(0)") == "wrong"


def test_function_calls(url: str):
    tests = [{"input": [1, (2, 3)], "output": [1, [2, 3]]}, {"input": "5\n6", "output": "[5, 6]"}]
    assert judge(url, "def f(*a): return a", tests, entry_point="f") == "tests"
    assert judge(url, "class Solution:\n  def f(self, *a): return a", tests, entry_point="f") == "tests"
    assert judge(url, "def f(*a): return 1", tests, entry_point="f") == "wrong"
    assert judge(url, "def f(*a): exit(0)", tests, entry_point="f") == "runtime"


def test_asserts_stay_here():
    assert judge("http://127.0.0.1:1", "def f(x): return x", "assert f(1) == 1") == "tests"


@pytest.mark.skipif(bool(missing("cpp")), reason="g++ is not installed")
def test_compiled(url: str):
    code = '#include <cstdio>\nint main() { int a; scanf("%d", &a); printf("%d", 2 * a); }'
    assert judge(url, code, language="cpp") == "tests"
    assert judge(url, code.replace(";", ""), language="cpp") == "compile"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"oops"),
        (503, b"{}"),
        (404, b"{}"),
        (200, b"no json"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"{}"),
        (200, b'{"status": "SandboxError", "message": "no pods"}'),
        (200, b'{"status": "Success", "run_result": null}'),
        (200, b'{"status": "Failed", "run_result": {"status": "Error"}}'),
        (200, b'{"status": "Success", "run_result": {"status": "Finished"}}'),
        (200, b'{"status": "Success", "run_result": {"status": "Finished", "return_code": 0, "stdout": 4}}'),
    ],
)
def test_a_bad_answer_is_our_error(status: int, body: bytes):
    with service(lambda request: (status, body)) as url:
        assert judge(url, "print(4)").startswith("error: sandbox: "), body


def test_no_service_and_a_late_one_are_our_errors():
    assert judge("http://127.0.0.1:1", "print(4)").startswith("error: sandbox: ")
    text = "```python\nprint(4)\n```"

    def late(request: dict[str, Any]) -> tuple[int, bytes]:
        time.sleep(1.5)
        return 200, b"{}"

    with service(late) as url:
        verdict = verify_code(text, {"tests": DOUBLE}, remote=url, total_s=0.5)
    assert verdict.kind == "error"
    assert "no answer within" in verdict.reason


def test_through_the_pool(url: str):
    with VerifierPool(workers=1, deadline_s=20.0, remote=url, every=True) as pool:
        verdict = pool.submit("code", "```python\nprint(4)\n```", {"tests": DOUBLE}).result(timeout=120)
    assert (verdict.kind, verdict.tests) == ("fail", ("ok", "wrong"))
