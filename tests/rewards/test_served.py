"""Verifiers that ask a server, against real servers on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ringrl.domains import Domain, Reward
from ringrl.rewards import Verdict, VerifierPool
from ringrl.rewards.load import load

Answer = Callable[[Any, dict[str, str]], tuple[int, Any]]  # request, headers -> status, JSON or bytes


@contextmanager
def service(path: str, answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, told = answer(request, dict(self.headers)) if self.path == path else (404, "no such path")
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def one(verifier: str, key_variable: str = "", **options: Any) -> dict[str, Domain]:
    return {"chess": Domain("chess", (Reward("r", verifier, options=options, key_variable=key_variable),), "r")}


def judge(found: dict[str, Domain], *asked: tuple[str, dict[str, Any]], deadline_s: float = 20.0) -> list[Verdict]:
    with VerifierPool(1, deadline_s, found) as pool:
        assert pool._children == []  # whoever waits for a server needs no process
        futures = [pool.submit("chess", text, row) for text, row in asked]
        return [f.result(timeout=60) for f in futures]


# ---- url ---------------------------------------------------------------------------------------------------


def equal(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
    return 200, [r["response"] == r["row"]["answer"] for r in request]


def test_a_url_is_given_domain_response_and_row_and_answers_in_order():
    seen = []

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        seen.extend(request)
        return equal(request, headers)

    with service("/judge", answer) as url:
        verdicts = judge(one("url", url=url + "/"), *[(str(i % 3), {"answer": "1"}) for i in range(100)])
    assert [v.kind for v in verdicts] == ["pass" if i % 3 == 1 else "fail" for i in range(100)]
    assert len(seen) == 100
    assert {json.dumps(s, sort_keys=True) for s in seen} == {
        json.dumps({"domain": "chess", "response": str(i), "row": {"answer": "1"}}, sort_keys=True) for i in range(3)
    }


def test_what_is_queued_goes_in_one_request():
    sizes: list[int] = []
    first = threading.Event()

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        sizes.append(len(request))
        first.wait(timeout=30)  # meanwhile the others queue up
        return equal(request, headers)

    with service("/judge", answer) as url, VerifierPool(1, 60.0, one("url", url=url, concurrent=1, batch=8)) as pool:
        futures = [pool.submit("chess", "1", {"answer": str(i)}) for i in range(25)]
        first.set()
        verdicts = [f.result(timeout=60) for f in futures]
    assert [v.kind for v in verdicts] == ["fail", "pass"] + ["fail"] * 23
    assert sum(sizes) == 25
    assert max(sizes) <= 8
    assert len(sizes) < 25


@pytest.mark.parametrize(
    ("told", "kind", "score", "reason"),
    [
        (True, "pass", 1.0, "right"),
        (0.25, "partial", 0.25, "partial"),
        ({"score": 0.5, "reason": "half"}, "partial", 0.5, "half"),
        ({"score": 1, "reason": "mate"}, "pass", 1.0, "mate"),
        ({"kind": "fail", "reason": "illegal"}, "fail", 0.0, "illegal"),
        ({"kind": "error", "reason": "no engine"}, "error", 0.0, "no engine"),
        (1.5, "error", 0.0, "got 1.5"),
        (None, "error", 0.0, "got None"),
        ("yes", "error", 0.0, "got 'yes'"),
        ({"reason": "?"}, "error", 0.0, "KeyError: 'kind'"),
        ({"kind": "good"}, "error", 0.0, "kind 'good'"),
        ({"score": "NaN"}, "error", 0.0, "got 'NaN'"),
    ],
)
def test_what_a_url_may_answer(told: Any, kind: str, score: float, reason: str):
    with service("/judge", lambda request, headers: (200, [told])) as url:
        (verdict,) = judge(one("url", url=url), ("1", {}))
    assert (verdict.kind, verdict.score) == (kind, score)
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("status", "told", "reason"),
    [
        (200, [True, True], "expected a list of 1 verdicts"),
        (200, {"kind": "pass"}, "expected a list of 1 verdicts"),
        (400, "no", "status 400"),
        (404, "no", "status 404"),
    ],
)
def test_a_bad_answer_is_an_error_at_once(status: int, told: Any, reason: str):
    calls = []

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        calls.append(1)
        return status, told

    with service("/judge", answer) as url:
        (verdict,) = judge(one("url", url=url), ("1", {}))
    assert verdict.kind == "error"
    assert reason in verdict.reason
    assert len(calls) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int):
    calls = []

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        calls.append(1)
        return (status, "later") if len(calls) < 3 else equal(request, headers)

    with service("/judge", answer) as url:
        (verdict,) = judge(one("url", url=url), ("1", {"answer": "1"}))
    assert (verdict.kind, len(calls)) == ("pass", 3)


def test_the_deadline_ends_the_patience():
    def slow(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        time.sleep(3)
        return 200, [True]

    with service("/judge", slow) as url:
        (late,) = judge(one("url", url=url), ("1", {}), deadline_s=1.0)
    with service("/judge", lambda *_: (503, "busy")) as url:
        (busy,) = judge(one("url", url=url), ("1", {}), deadline_s=2.0)
    with service("/judge", lambda *_: (200, b"pass")) as url:
        (garbled,) = judge(one("url", url=url), ("1", {}), deadline_s=2.0)
    (absent,) = judge(one("url", url="http://127.0.0.1:1"), ("1", {}), deadline_s=2.0)
    assert {late.kind, busy.kind, garbled.kind, absent.kind} == {"error"}
    assert "no answer within" in late.reason
    assert "status 503" in busy.reason
    assert "no JSON" in garbled.reason
    assert "ConnectError" in absent.reason


def test_the_key_goes_to_its_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHESS_KEY", "s3cret")

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        return 200, [headers.get("Authorization") == "Bearer s3cret"]

    with service("/judge", answer) as url:
        assert judge(one("url", "CHESS_KEY", url=url), ("1", {}))[0].kind == "pass"
        assert judge(one("url", url=url), ("1", {}))[0].kind == "fail"
        assert "s3cret" not in repr(load(Reward("r", "url", options={"url": url}), {"key": "s3cret"}))


def test_responses_that_nobody_wants_any_more_are_cancelled():
    hold = threading.Event()

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        hold.wait(timeout=60)
        return 200, [True] * len(request)

    with service("/judge", answer) as url:
        with VerifierPool(1, 30.0, one("url", url=url, concurrent=1, batch=1)) as pool:
            running, queued = pool.submit("chess", "1", {}), pool.submit("chess", "2", {})
            while not running.running():
                time.sleep(0.01)
            threading.Timer(0.5, hold.set).start()
        assert running.result(timeout=30).kind == "pass"
        assert queued.cancelled()


HTML = b"<html>\n<title>nginx</title></html>"
OVERLOADED = {"error": {"message": "The server is overloaded", "type": "server_error"}}


def sends(*told: tuple[int, Any]) -> tuple[Answer, list[Any]]:
    """A server that sends these one after another, the last for ever; and what it was asked."""
    asked: list[Any] = []

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        asked.append(request)
        return told[min(len(asked), len(told)) - 1]

    return answer, asked


@pytest.mark.parametrize("passing", [(200, HTML), (200, b""), (200, OVERLOADED), (502, HTML), (200, b"[tru")])
def test_what_may_pass_is_asked_again(passing: tuple[int, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ringrl.http.sleep", lambda seconds: None)
    answer, asked = sends(passing, passing, (200, [True]))
    with service("/judge", answer) as url:
        (verdict,) = judge(one("url", url=url), ("1", {}))
    assert (verdict.kind, len(asked)) == ("pass", 3)
    judged = {"choices": [{"message": {"content": "Score: 1"}}]}
    answer, asked = sends(passing, passing, (200, judged))
    with service("/v1/chat/completions", answer) as url:
        (verdict,) = judge(one("judge", base_url=url + "/v1", model="m"), ("5", ROW))
    assert (verdict.kind, len(asked)) == ("pass", 3)


@pytest.mark.parametrize(
    ("final", "words"),
    [
        ((401, {"error": {"message": "Incorrect API key"}}), "status 401: "),
        ((404, {"error": "model 'm' not found"}), "status 404: "),
        ((200, {"error": {"message": "no such model", "code": 404}}), "status 200: "),
        ((400, {"error": {"code": "context_length_exceeded"}}), "status 400: "),
    ],
)
def test_what_stays_is_an_error_at_once_with_the_servers_words(final: tuple[int, Any], words: str):
    for verifier, path, options in (
        ("url", "/judge", {}),
        ("judge", "/v1/chat/completions", {"model": "m"}),
    ):
        answer, asked = sends(final, (200, [True]))
        with service(path, answer) as url:
            place = {"url": url} if verifier == "url" else {"base_url": url + "/v1"}
            (verdict,) = judge(one(verifier, **place, **options), ("5", ROW))
        assert (verdict.kind, len(asked)) == ("error", 1)
        assert verdict.reason.startswith(f"{url}{path}: {words}{json.dumps(final[1])}"[:200])


def test_a_page_that_stays_is_an_error_with_its_beginning():
    with service("/judge", sends((200, HTML))[0]) as url:
        (page,) = judge(one("url", url=url), ("1", {}), deadline_s=1.0)
    assert page.kind == "error"
    assert page.reason.endswith("the last with no JSON: <html> <title>nginx</title></html>")


# ---- a model as judge --------------------------------------------------------------------------------------


class Model:
    """An OpenAI-compatible server that says what it is told to, and remembers what it was asked."""

    def __init__(self, *said: str) -> None:
        self.said, self.asked = list(said), list[dict[str, Any]]()
        self.lock = threading.Lock()

    def __call__(self, request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        with self.lock:
            self.asked.append(request)
            said = self.said[min(len(self.asked), len(self.said)) - 1]
        return 200, {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}


ROW = {"problem": "What is {2} + 3?", "answer": "5", "level": "easy"}


def ask(model: Model, *asked: tuple[str, dict[str, Any]], **options: Any) -> list[Verdict]:
    with service("/v1/chat/completions", model) as url:
        return judge(one("judge", base_url=url + "/v1", model="m", **options), *asked)


@pytest.mark.parametrize(
    ("said", "kind", "score"),
    [
        ("Fine.\nScore: 1", "pass", 1.0),
        ("Score: 0", "fail", 0.0),
        ("Score: 0.5", "partial", 0.5),
        ("score = .75", "partial", 0.75),
        ("**Score:** 0.5", "partial", 0.5),
        ("Score: 0\nOn reflection, Score: 1.0", "pass", 1.0),
        ("<think>Score: 0</think>Score: 1", "pass", 1.0),
        ("Score: yes", "pass", 1.0),
        ("Score: no", "fail", 0.0),
        ("Score: 7", "error", 0.0),
        ("It is right.", "error", 0.0),
        ("<think>Score: 1", "error", 0.0),
        ("", "error", 0.0),
    ],
)
def test_the_score_is_read_from_what_the_model_says(said: str, kind: str, score: float):
    (verdict,) = ask(Model(said), ("5", ROW))
    assert (verdict.kind, verdict.score) == (kind, score)
    if kind == "error":
        assert verdict.reason.startswith("the judge gave no score: ")


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        ({"content": [{"type": "text", "text": "Fine. "}, {"type": "text", "text": "Score: 1"}]}, "pass", "right"),
        ({"content": "Score: 1", "reasoning_content": "Score: 0"}, "pass", "right"),
        (
            {"content": [{"type": "thinking", "thinking": "Score: 1"}, {"type": "text", "text": "Score: 0"}]},
            "fail",
            "w",
        ),
        ({"content": None, "reasoning_content": "Score: 1"}, "error", "the judge gave no score: http://127.0.0.1:"),
        ({"content": None}, "error", "the judge gave no score: http://127.0.0.1:"),
        ({"content": []}, "error", "the judge gave no score: http://127.0.0.1:"),
        ({"content": 1}, "error", "http://127.0.0.1:"),
        ({"content": [{"type": "image_url"}]}, "error", "http://127.0.0.1:"),
        (None, "error", "http://127.0.0.1:"),
    ],
)
def test_the_message_of_a_judge_in_every_form(message: Any, kind: str, reason: str):
    with service("/v1/chat/completions", lambda *_: (200, {"choices": [{"message": message}]})) as url:
        (verdict,) = judge(one("judge", base_url=url + "/v1", model="m"), ("5", ROW))
    assert verdict.kind == kind
    assert verdict.reason.startswith(reason)
    assert kind != "error" or '{"choices": [{"message": ' in verdict.reason


def test_the_model_is_asked_at_temperature_0_with_problem_answer_and_response():
    model = Model("Score: 1")
    ask(model, ("<think>2 + 3</think> It is 5.", ROW))
    (request,) = model.asked
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0, 2048)
    (message,) = request["messages"]
    assert message["role"] == "user"
    for part in ("Problem: What is {2} + 3?\n", "Reference answer: 5\n", "Answer to be judged: It is 5.\n"):
        assert part in message["content"]
    assert "<think>" not in message["content"]


def test_own_prompt_own_score_and_range(tmp_path: Path):
    model, prompt = Model("grade B 8 of 10"), tmp_path / "prompt.txt"
    prompt.write_text("{level} {unknown} \\frac{1}{2}: {response}", encoding="utf-8")
    for given in (str(prompt), prompt.read_text()):
        (verdict,) = ask(model, ("five", ROW), prompt=given, score=r"(\d+) of 10", highest=10)
        assert verdict.score == 0.8
        assert model.asked[-1]["messages"][0]["content"] == "easy {unknown} \\frac{1}{2}: five"


def test_what_the_row_lacks_is_an_error_and_no_answer_a_fail_and_neither_is_asked():
    model = Model("Score: 1")
    lacking, unanswered = ask(model, ("5", {"answer": "5"}), ("<think>it is 5", ROW))
    assert (lacking.kind, unanswered.kind, unanswered.reason) == ("error", "fail", "no_answer")
    assert lacking.reason == "the row has no 'problem', which the judge's prompt names"
    assert model.asked == []


def test_the_same_question_is_asked_once():
    model = Model("Score: 1")
    verdicts = ask(model, *[(str(i % 3), ROW) for i in range(60)])
    assert {v.kind for v in verdicts} == {"pass"}
    assert len(model.asked) == 3


def test_a_cache_outlives_the_run_and_holds_what_determines_the_answer(tmp_path: Path):
    model, cache = Model("Score: 1", "Score: 0", "Score: 0.5"), str(tmp_path / "cache")
    with service("/v1/chat/completions", model) as url:

        def score(text: str = "5", row: dict[str, Any] = ROW, name: str = "m", **options: Any) -> float:
            found = one("judge", base_url=url + "/v1", model=name, cache=cache, **options)
            return judge(found, (text, row))[0].score

        assert (score(), score()) == (1.0, 1.0)
        assert (score("6"), score("6"), score()) == (0.0, 0.0, 1.0)
        assert len(model.asked) == 2
        score(name="other")
        score(max_tokens=7)
        score(row={**ROW, "answer": "six"})
        assert len(model.asked) == 5
        assert score(highest=2) == 0.5  # read again, not asked again
        assert len(model.asked) == 5
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 5
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_failure_is_not_remembered():
    calls = []

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        calls.append(1)
        if len(calls) == 1:
            return 400, "no such model"
        return 200, {"choices": [{"message": {"content": "Score: 1" if len(calls) > 2 else None}}]}

    path = "/v1/chat/completions"
    with service(path, answer) as url, VerifierPool(1, 20.0, one("judge", base_url=f"{url}/v1", model="m")) as pool:
        verdicts = [pool.submit("chess", "5", ROW).result(timeout=60) for _ in range(4)]
    assert [v.kind for v in verdicts] == ["error", "error", "pass", "pass"]
    assert "status 400" in verdicts[0].reason
    assert "sent no content" in verdicts[1].reason
    assert len(calls) == 3


def test_many_are_asked_at_once():
    barrier = threading.Barrier(8)

    def answer(request: Any, headers: dict[str, str]) -> tuple[int, Any]:
        barrier.wait(timeout=30)  # nobody is answered before all eight have asked
        return 200, {"choices": [{"message": {"content": "Score: 1"}}]}

    with service("/v1/chat/completions", answer) as url:
        found = one("judge", base_url=url + "/v1", model="m", concurrent=8)
        verdicts = judge(found, *[(str(i), ROW) for i in range(8)], deadline_s=40.0)
    assert {v.kind for v in verdicts} == {"pass"}
