"""What servers, and the proxies before them, send in place of a plain chat completion."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ringrl.config.sections import Prompting, Server
from ringrl.domains import Domains
from ringrl.errors import RingError, UserError
from ringrl.evals.server import ServedModel
from ringrl.http import ServerFailed, error_status, read_reply
from ringrl.rollout.respond import NO_ROOM, Answer, Ask

HTML = b"<!DOCTYPE html>\n<html><head><title>Welcome to\n nginx</title></head></html>"
Sent = tuple[int, bytes] | Callable[[BaseHTTPRequestHandler], None]  # status and body, or what sends them itself


def said(content: Any, finish: str = "stop", **more: Any) -> Any:
    usage = {"completion_tokens": 7}
    return {"choices": [{"message": {"content": content, **more}, "finish_reason": finish}], "usage": usage}


def body(value: Any, status: int = 200) -> Sent:
    return status, json.dumps(value).encode()


GOOD = body(said(r"\boxed{2}"))


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.close()


@contextmanager
def serving(sent: list[Sent]) -> Iterator[tuple[str, list[Any]]]:
    """The address of a server that sends these one after another, the last for ever, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = sent[min(len(asked), len(sent)) - 1]
            self.close_connection = True
            if callable(answer):
                answer(self)
                return
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        def finish(self) -> None:
            if not self.wfile.closed and self.connection.fileno() >= 0:
                super().finish()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which nobody waits for."""
    seconds: list[float] = []
    monkeypatch.setattr("ringrl.http.sleep", seconds.append)
    return seconds


def ask(*sent: Sent, retries: int = 3) -> tuple[Answer, int]:
    """The answer to one question, and how often it was asked."""
    with serving(list(sent)) as (url, asked):
        server = Server(base_url=url, concurrent=1, retries=retries, deadline_s=60)
        model = ServedModel("m", server, "", Prompting(), Domains(), 1.0, 1.0, 100, 0)
        problem = {"id": "p", "domain": "math", "problem": "1+1?", "answer": "2"}
        try:
            [(_, answer)] = model.answers([Ask("mine", problem, 0)])
        finally:
            model.close()
    return answer, len(asked)


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        (said("It is 2."), "It is 2.", "stop"),
        (said(None), "", "stop"),
        (said(None, "length"), "", "length"),
        (said("2", reasoning_content="hm"), "<think>hm</think>2", "stop"),
        (said("2", reasoning="hm"), "<think>hm</think>2", "stop"),
        (said("2", reasoning_content=None, reasoning="hm", thinking=None), "<think>hm</think>2", "stop"),
        (said(None, reasoning="hm"), "<think>hm</think>", "stop"),
        (said(None, "length", reasoning_content="hm"), "<think>hm", "length"),
        (said([{"type": "text", "text": "It is "}, {"type": "text", "text": "2."}]), "It is 2.", "stop"),
        (said([{"type": "output_text", "text": "2"}]), "2", "stop"),
        (said([]), "", "stop"),
        (said([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "2"}]), "<think>hm</think>2", "stop"),
        (said([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "2"}]), "<think>hm</think>2", "stop"),
        (said([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]), "<think>hm</think>", "stop"),
        (said("2", reasoning=[{"type": "text", "text": "hm"}]), "<think>hm</think>2", "stop"),
        (said([{"type": "refusal", "refusal": "no"}]), "", "stop"),
        ({**said("2"), "error": None}, "2", "stop"),
    ],
)
def test_contents_in_every_form(answer: Any, text: str, finish: str):
    assert ask(body(answer)) == (Answer(text, 7, finish), 1)


@pytest.mark.parametrize(
    "passing",
    [
        (200, HTML),
        (200, b""),
        (200, b'{"choices": [{"message": {"content": "2'),
        reset,
        (502, HTML),
        (429, b"slow down"),
        (408, b""),
        (503, b'{"error": {"message": "loading"}}'),
        body({"error": {"message": "The engine is overloaded", "type": "server_error"}}),
        body({"error": {"message": "Rate limit reached for m", "code": "rate_limit_exceeded"}}),
        body({"error": {"message": "Provider returned error", "code": 502}}),
        body({"error": {"message": "Too Many Requests", "code": "429"}}),
        body({"error": {"code": 503, "message": "", "status": "UNAVAILABLE"}}),
        body({"error": "upstream timed out"}),
        body({"object": "error", "message": "Internal error", "type": "InternalServerError", "code": 500}),
        body({"choices": [{"error": {"message": "Upstream error", "code": 502}, "message": {"content": ""}}]}),
        body({"error": {"message": "something odd"}}),
    ],
)
def test_what_may_pass_is_asked_again(passing: Sent, pauses: list[float]):
    assert ask(passing, passing, GOOD) == (Answer(r"\boxed{2}", 7, "stop"), 3)
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("passing", "shown"),
    [
        ((200, HTML), "no JSON: <!DOCTYPE html> <html><head><title>Welcome to nginx</title></head></html>"),
        ((200, b" \n"), "no JSON: an empty body"),
        ((200, b"[" * 90_000), "no JSON: [[["),
        ((502, HTML), "status 502: <!DOCTYPE html>"),
        (reset, "RemoteProtocolError: "),
        (body({"error": {"message": "overloaded"}}), 'status 200: {"error": {"message": "overloaded"}}'),
    ],
)
def test_what_does_not_pass_names_the_server_and_its_words(passing: Sent, shown: str):
    with pytest.raises(RingError) as error:
        ask(passing, retries=1)
    assert not isinstance(error.value, UserError)
    assert str(error.value).startswith("http://127.0.0.1:")
    assert f"/v1/chat/completions: 2 attempts failed, the last with {shown}" in str(error.value)
    assert str(error.value).endswith("; what is finished is kept for --resume")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("final", "shown"),
    [
        (
            (401, b'{"error": {"message": "Incorrect API key"}}'),
            'status 401: {"error": {"message": "Incorrect API key"',
        ),
        ((404, b'{"error": "model m not found"}'), 'status 404: {"error": "model m not found"}'),
        ((403, HTML), "status 403: <!DOCTYPE html>"),
        ((400, b'{"error": {"message": "bad temperature"}}'), "status 400: "),
        (body({"error": {"message": "Incorrect key", "code": 401}}), "status 200: "),
        (body({"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}), "status 200: "),
        (body({"error": {"message": "bad", "type": "invalid_request_error"}}), "status 200: "),
        (body({"error": "model 'm' not found, try pulling it first"}), "status 200: "),
        (body({"object": "error", "message": "no", "code": 404}), "status 200: "),
        (body({"error": {"message": "You exceeded your quota", "type": "insufficient_quota"}}), "status 200: "),
    ],
)
def test_what_stays_is_one_line_at_once(final: Sent, shown: str, pauses: list[float]):
    with pytest.raises(UserError) as error:
        ask(final, GOOD)
    assert f"/v1/chat/completions: {shown}" in str(error.value)
    assert str(error.value).startswith("http://127.0.0.1:")
    assert "\n" not in str(error.value)
    assert pauses == []


@pytest.mark.parametrize(
    "full",
    [
        (400, b'{"error": {"message": "This model\'s maximum context length is 100 tokens."}}'),
        (400, b'{"error": {"message": "", "code": "context_length_exceeded"}}'),
        body({"error": {"message": "maximum context length is 100 tokens", "code": 400}}),
        body({"error": {"message": "The prompt is too long: 900 tokens"}}),
    ],
)
def test_a_prompt_that_leaves_no_room_is_not_asked_again(full: Sent):
    answer, asked = ask(full, GOOD)
    assert (answer.finish, asked) == (NO_ROOM, 1)
    assert answer.text.startswith("p: http://127.0.0.1:")


@pytest.mark.parametrize(
    "odd",
    [
        {}, [], [1], "fine", 5, None, {"choices": []}, {"choices": None}, {"choices": {}}, {"choices": [None]},
        {"choices": [{"text": "2"}]}, {"choices": [{"message": None}]}, {"choices": [{"message": "2"}]},
        said(5), said({"text": "2"}), said([5]), said(["2"]), said([{"text": "2"}]), said([{"type": "image_url"}]),
        {"choices": said("2")["choices"]}, {**said("2"), "usage": None}, {**said("2"), "usage": {}},
        {**said("2"), "usage": {"completion_tokens": None}}, {"detail": "ok\nor not"},
    ],
)  # fmt: skip
def test_what_is_no_completion_is_one_line_with_the_server_and_its_words(odd: Any):
    with pytest.raises(UserError) as error:
        ask(body(odd), GOOD)
    begin, _, end = str(error.value).partition("/v1: got ")
    assert begin.startswith("http://127.0.0.1:")
    assert end.startswith(json.dumps(odd)[:150])
    assert "expected a chat completion with usage.completion_tokens" in end
    assert "\n" not in end


def test_a_byte_order_mark_is_no_part_of_the_body():
    status, content = body(said("2"))  # type: ignore[misc]
    assert ask((status, b"\xef\xbb\xbf" + content))[0].text == "2"


def test_an_address_that_is_none_is_one_line_at_once(pauses: list[float]):
    """Configurations refuse it, too; this is for what comes past them."""
    server = Server(retries=3).model_copy(update={"base_url": "localhost:8000/v1"})
    model = ServedModel("m", server, "", Prompting(), Domains(), 1.0, 1.0, 100, 0)
    with pytest.raises(UserError, match="localhost:8000/v1/chat/completions: got this address, expected http"):
        list(model.answers([Ask("mine", {"id": "p", "domain": "math", "problem": "1+1?"}, 0)]))
    assert pauses == []


def test_an_error_that_is_none_is_no_error():
    for answer in (
        [],
        "error",
        {"data": [], "error": None},
        {"error": {}, "choices": [{"error": None}]},
        said("error"),
    ):
        assert error_status(answer) == 200
    assert issubclass(ServerFailed, RingError)
    with pytest.raises(ValueError, match="no chat completion"):
        read_reply({"choices": [{"message": {"content": [{"type": "text"}]}}]})
