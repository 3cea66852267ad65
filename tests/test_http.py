"""The HTTP client against a real server: retries, refusals, and deadlines that a slow body cannot beat."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ringrl.errors import UserError
from ringrl.http import Client, Refused, ServerFailed

Respond = Callable[[BaseHTTPRequestHandler, Any], None]


@contextmanager
def served(respond: Respond, **more: Any) -> Iterator[Client]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                respond(self, body)
            except ConnectionError:  # the client has gone
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        settings = {"key": "", "deadline_s": 60.0, "retries": 1, "concurrent": 2} | more
        client = Client(f"http://127.0.0.1:{server.server_port}/", **settings)
        yield client
        client.close()
        server.shutdown()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def test_a_failure_that_passes_is_retried() -> None:
    attempts = []

    def respond(handler: BaseHTTPRequestHandler, body: Any) -> None:
        attempts.append((handler.path, handler.headers["Authorization"], body))
        send(handler, 200 if len(attempts) == 2 else 503, b'{"ok": 1}', **{"Retry-After": "0"})

    with served(respond, key="sesame") as client:
        assert client.post("judge", {"text": "é\ud800"}) == {"ok": 1}
    assert attempts == [("/judge", "Bearer sesame", {"text": "é\ud800"})] * 2


def test_a_refusal_is_final_and_carries_its_status_and_text() -> None:
    attempts = []

    def respond(handler: BaseHTTPRequestHandler, body: Any) -> None:
        attempts.append(body)
        send(handler, 422, b"the prompt is\ntoo long")

    with served(respond) as client, pytest.raises(Refused, match="status 422: the prompt is too long") as error:
        client.post("x", 1)
    assert (error.value.status, error.value.text, attempts) == (422, "the prompt is\ntoo long", [1])


def test_a_key_that_the_server_repeats_goes_no_further() -> None:
    def respond(handler: BaseHTTPRequestHandler, body: Any) -> None:
        said = {"wrong": handler.headers["Authorization"]}
        send(handler, 200 if body == "good" else 403, json.dumps(said).encode())

    with served(respond, key="sesame-street") as client:
        assert client.post("x", "good") == {"wrong": "Bearer ***"}
        with pytest.raises(Refused, match=r"Bearer \*\*\*") as error:
            client.post("x", "bad")
    assert "sesame" not in f"{error.value} {error.value.text}"


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host/v1", "https://hunter2@host", "http://host/v1?api_key=hunter2"]
)
def test_a_url_with_a_credential_is_refused_without_saying_it(url: str) -> None:
    with pytest.raises(UserError, match="got a URL with a credential") as error:
        Client(url, "", 1.0, 0, 1)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("body", [b"", b"no json", b'{"cut": '])
def test_an_answer_that_is_no_json_fails(body: bytes) -> None:
    failure = pytest.raises(ServerFailed, match="2 attempts failed, the last with no JSON")
    with served(lambda handler, _: send(handler, 200, body)) as client, failure:
        client.post("x", {})


def test_a_body_that_never_ends_meets_the_deadline() -> None:
    stop = threading.Event()

    def respond(handler: BaseHTTPRequestHandler, body: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):  # each piece is in time; their sum is not
            handler.wfile.write(b" ")

    with served(respond) as client:
        with pytest.raises(ServerFailed, match=r"1 attempts failed, the last with no answer within 0\.\d+ s"):
            client.post("x", {}, total_s=0.5)
        stop.set()
