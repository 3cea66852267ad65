"""Requests to an OpenAI-compatible server, with patience for one that is busy."""

from __future__ import annotations

import os
import random
import re
from time import sleep
from typing import Any

import httpx

from ringrl.config.sections import Server
from ringrl.errors import PromptTooLong, RingError, UserError

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
        """The answer to POST BASE_URL/path.

        Raises:
            UserError: it refuses; PromptTooLong where it says that this is why.
            RingError: it fails too often.
        """
        url = f"{self.server.base_url.rstrip('/')}/{path}"
        for attempt in range(self.server.retries + 1):
            pause = min(0.5 * 2**attempt, LONGEST_PAUSE_S)
            try:
                got = self._client.post(url, json=body)
            except httpx.TimeoutException:
                problem = f"no answer within {self.server.deadline_s:g} s"
            except httpx.TransportError as e:
                problem = f"{type(e).__name__}: {e}"
            else:
                if got.status_code == 200:
                    return got.json()
                problem = f"status {got.status_code}: {' '.join(got.text.split())[:200]}"
                if got.status_code not in PASSING and got.status_code < 500:
                    long = got.status_code in (400, 413, 422) and LONG.search(got.text)
                    raise (PromptTooLong if long else UserError)(f"{url}: {problem}")
                wanted = got.headers.get("retry-after", "")
                pause = min(float(wanted), LONGEST_PAUSE_S) if wanted.isdigit() else pause
            if attempt < self.server.retries:
                sleep(pause * random.uniform(0.5, 1.0))
        raise RingError(f"{url}: {self.server.retries + 1} attempts failed, the last with {problem}; what is finished "
                        f"is kept for --resume")  # fmt: skip
