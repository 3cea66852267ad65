"""One HTTP client for JSON: retries with growing pauses, deadlines, and patience for a server that is busy.

Servers and the proxies before them also report errors with status 200; those are judged by what they say. A page in
place of JSON is taken for a proxy's, which may pass.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import time
from time import sleep
from typing import Any, NamedTuple

from ringrl.errors import RingError, UserError
from ringrl.safe_text import MASK, masked

CONNECT_S = 30.0
LONGEST_PAUSE_S = 60.0
MOST_BYTES = 256 << 20  # size limit of an answer
PASSING = (408, 409, 425, 429)  # statuses worth a retry, besides 5xx
SHOWN = 200  # characters of a body in a message
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # keys of a message that may hold its thought
# what errors without a status say; the first that is found decides, and what says neither may pass
_PASSES = re.compile(r"overload|rate.?limit|too many requests|try again|temporar|timed? ?out|unavailable|busy|capacity|"
                     r"internal|server.?error|upstream|gateway", re.IGNORECASE)  # fmt: skip
_STAYS = re.compile(r"invalid|context.?length|too long|too many|not.?found|no such|not exist|unsupported|"
                    r"not supported|auth|permission|denied|forbidden|api.?key|quota|billing|insufficient|policy",
                    re.IGNORECASE)  # fmt: skip


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
                said = status
                if status == 200:
                    answer = _parsed(text)
                    said = error_status(answer)
                    if said == 200:
                        return answer
            except httpx.TimeoutException:
                problem = f"no answer within {deadline_s:.4g} s"
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as e:
                raise Refused(f"{url}: got this address, expected http://... or https://... ({e})") from None
            except httpx.RequestError as e:
                problem = f"{type(e).__name__}: {e}"
            except ValueError as e:
                problem = str(e)
            else:
                problem = f"status {status}: {shown(text)}"
                if said not in PASSING and said < 500:
                    raise Refused(f"{url}: {problem}", said, text)
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
        text = body.decode("utf-8-sig", errors="replace")
        text = text.replace(self._key, MASK) if self._key else text  # a server that repeats it would have it logged
        return response.status_code, text, response.headers.get("retry-after", "")


def shown(text: str) -> str:
    """The beginning of a body, on one line."""
    return " ".join(text[: 10 * SHOWN].split())[:SHOWN]


def _parsed(text: str) -> Any:
    """Raises ValueError, saying how the body begins."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"no JSON: {shown(text) or 'an empty body'}") from None


def error_status(answer: Any) -> int:
    """The HTTP status that an answer with status 200 should have had: 200, unless it is the body of an error."""
    if not isinstance(answer, dict):
        return 200
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else answer
    error = answer if answer.get("object") == "error" else first.get("error") if isinstance(first, dict) else None
    if not error:
        return 200
    code = error.get("code") or error.get("status") if isinstance(error, dict) else None
    if isinstance(code, int | str) and re.fullmatch("[45][0-9][0-9]", str(code)):
        return int(code)
    text = json.dumps(error)
    return 503 if _PASSES.search(text) or not _STAYS.search(text) else 400


class Reply(NamedTuple):
    """A message of a chat completion."""

    thought: str
    content: str
    cut: bool  # at the limit for its tokens


def read_reply(answer: Any) -> Reply:
    """The first message of a chat completion, its contents as a text or as parts. Raises ValueError."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content, thought = _texts(message.get("content"))
        apart = [text for key in THOUGHTS for text in _texts(message.get(key)) if text]
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no chat completion") from None
    return Reply(thought or next(iter(apart), ""), content, choice.get("finish_reason") == "length")


def _texts(content: Any) -> tuple[str, str]:
    """The text and the thought in a content. Raises TypeError for what is neither a text nor parts of one."""
    if content is None or isinstance(content, str):
        return content or "", ""
    said, thought = "", ""
    for part in content:
        kind = part["type"]
        if kind in ("thinking", "reasoning"):
            thought += "".join(_texts(part.get(kind) or part.get("text")))
        elif kind in ("text", "output_text"):
            said += _texts(part["text"])[0]
        elif kind not in ("refusal", "redacted_thinking"):
            raise TypeError(kind)
    return said, thought
