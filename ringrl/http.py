"""One HTTP client for JSON: retries with growing pauses, deadlines, and patience for a server that is busy."""

from __future__ import annotations

import json
import math
import os
import random
import time
from time import sleep
from typing import Any

from ringrl.errors import RingError, UserError
from ringrl.safe_text import MASK, masked

CONNECT_S = 30.0
LONGEST_PAUSE_S = 60.0
MOST_BYTES = 256 << 20  # size limit of an answer
PASSING = (408, 409, 425, 429)  # statuses worth a retry, besides 5xx


class Refused(UserError):
    """The server refuses the request for good; `status` is the HTTP status, `text` the body of its answer."""

    def __init__(self, message: str, status: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.status, self.text = status, text


class ServerFailed(RingError):
    """All attempts failed, for reasons that may be temporary."""


def secret(variable: str) -> str:
    """The value of an environment variable, "" if it is not set."""
    return os.environ.get(variable, "")


class Client:
    """Usable from several threads.

    Args:
        key: the bearer token, or "".
        deadline_s: time limit of one attempt.
        retries: attempts after a temporary failure (PASSING, 5xx, no connection, a truncated answer).
        concurrent: most requests in flight.

    Raises:
        UserError: the URL holds a credential; it would stand in error lines and run directories.
    """

    def __init__(self, base_url: str, key: str, deadline_s: float, retries: int, concurrent: int) -> None:
        import httpx  # takes half a second, so only when a client is made

        if masked(base_url) != base_url:
            raise UserError(f"{masked(base_url)}: got a URL with a credential, expected the key in a variable")
        self._key = key
        self._base_url, self._deadline_s, self._retries = base_url.rstrip("/"), deadline_s, retries
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._client = httpx.Client(headers=headers, limits=httpx.Limits(max_connections=concurrent))

    def close(self) -> None:
        self._client.close()

    def post(self, path: str, body: Any, total_s: float = math.inf) -> Any:
        """The answer to POST BASE_URL/path, within `total_s` seconds over all attempts.

        Raises:
            Refused, ServerFailed
        """
        import httpx

        url, content, end = f"{self._base_url}/{path}", json.dumps(body).encode(), time.monotonic() + total_s
        for attempt in range(self._retries + 1):
            pause = min(0.5 * 2**attempt, LONGEST_PAUSE_S)
            deadline_s = min(self._deadline_s, max(end - time.monotonic(), 0.001))
            try:
                status, text, retry_after = self._attempt(url, content, deadline_s)
                if status == 200:
                    return json.loads(text)
            except httpx.TimeoutException:
                problem = f"no answer within {deadline_s:.4g} s"
            except (httpx.RequestError, httpx.InvalidURL) as e:
                problem = f"{type(e).__name__}: {e}"
            except ValueError as e:
                problem = f"no JSON: {e}"
            else:
                problem = f"status {status}: {' '.join(text.split())[:200]}"
                if status not in PASSING and status < 500:
                    raise Refused(f"{url}: {problem}", status, text)
                pause = min(float(retry_after), LONGEST_PAUSE_S) if retry_after.isdigit() else pause
            if attempt == self._retries or time.monotonic() + pause > end:
                break
            sleep(pause * random.uniform(0.5, 1.0))
        raise ServerFailed(f"{url}: {attempt + 1} attempts failed, the last with {problem}")

    def _attempt(self, url: str, content: bytes, deadline_s: float) -> tuple[int, str, str]:
        """Status, body and Retry-After of one answer. httpx limits the time of each read; this limits their sum."""
        import httpx

        end = time.monotonic() + deadline_s
        timeout = httpx.Timeout(deadline_s, connect=min(deadline_s, CONNECT_S))
        body = bytearray()
        with self._client.stream("POST", url, content=content, timeout=timeout) as response:
            for part in response.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise Refused(f"{url}: the answer is larger than {MOST_BYTES:,} bytes", response.status_code)
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("")
        text = body.decode(errors="replace")
        text = text.replace(self._key, MASK) if self._key else text  # a server that repeats it would have it logged
        return response.status_code, text, response.headers.get("retry-after", "")
