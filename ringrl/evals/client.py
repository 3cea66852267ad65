"""Requests to an OpenAI-compatible server, with patience for one that is busy."""

from __future__ import annotations

import json
import math
import os
import random
import re
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import httpx

from ringrl.errors import PromptTooLong, RingError, UserError

if TYPE_CHECKING:
    from ringrl.config.sections import Server

CONNECT_S = 30.0
LONGEST_PAUSE_S = 60.0
LONG = re.compile(r"context.?length|prompt is too long|too many (?:input )?tokens", re.IGNORECASE)  # as servers say it
PASSING = (408, 409, 425, 429)  # with 5xx, the statuses of a request that may succeed later


def secret(variable: str) -> str:
    """What an environment variable holds, "" without it."""
    return os.environ.get(variable, "")


class Client:
    """Usable from several threads.

    Args:
        key: secret, or "".
    """

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(server.deadline_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=server.concurrent),
        )

    def close(self) -> None:
        self._client.close()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to POST BASE_URL/path. Raises as `post`."""
        try:
            return post(self._client, f"{self.server.base_url.rstrip('/')}/{path}", body, self.server.retries)
        except UserError:
            raise
        except RingError as e:
            raise RingError(f"{e}; what is finished is kept for --resume") from None


def post(client: httpx.Client, url: str, body: Any, retries: int, until: float = math.inf) -> Any:
    """The JSON that answers a POST, tried again with growing pauses when it fails for now.

    Args:
        until: by time.monotonic(); nothing is waited for after it. Without it, each attempt has the client's time-out.

    Raises:
        UserError: the server refuses; PromptTooLong where it says that this is why.
        RingError: it fails too often, or for too long.
    """
    problem, attempt = "", 0
    while True:
        attempt += 1
        pause = min(0.25 * 2**attempt, LONGEST_PAUSE_S)
        try:
            status, headers, answer = _exchange(client, url, body, until)
        except httpx.TimeoutException as e:
            problem = f"no answer in time ({type(e).__name__})"
        except httpx.TransportError as e:
            problem = f"{type(e).__name__}: {e}"
        else:
            text = answer.decode(errors="replace")
            if status == 200:
                try:
                    return json.loads(answer)
                except ValueError:
                    raise RingError(f"{url}: the answer is no JSON: {text[:200]!r}") from None
            problem = f"status {status}: {' '.join(text.split())[:200]}"
            if status not in PASSING and status < 500:
                long = status in (400, 413, 422) and LONG.search(text)
                raise (PromptTooLong if long else UserError)(f"{url}: {problem}")
            wanted = headers.get("retry-after", "")
            pause = min(float(wanted), LONGEST_PAUSE_S) if wanted.isdigit() else pause
        pause *= random.uniform(0.5, 1.0)
        if attempt > retries or monotonic() + pause >= until:
            raise RingError(f"{url}: {attempt} attempts failed, the last with {problem}")
        sleep(pause)


def _exchange(client: httpx.Client, url: str, body: Any, until: float) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and body; raises httpx.TransportError, which includes being late."""
    left = until - monotonic()
    timeout = client.timeout if left == math.inf else httpx.Timeout(max(left, 0.001))
    answer = bytearray()
    with client.stream("POST", url, json=body, timeout=timeout) as got:
        for part in got.iter_bytes():  # each of which may be almost late
            answer += part
            if monotonic() > until:
                raise httpx.ReadTimeout("the answer takes too long")
        return got.status_code, got.headers, bytes(answer)
