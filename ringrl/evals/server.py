"""A model behind an OpenAI-compatible server: POST BASE_URL/chat/completions, one request per response."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice

from ringrl.config.sections import Prompting, Server
from ringrl.data.source import messages_of
from ringrl.domains import Domains
from ringrl.errors import RingError, UserError
from ringrl.http import Client, Refused, ServerFailed, read_reply, shown
from ringrl.rollout.respond import NO_ROOM, Answer, Ask

# error messages of servers for a prompt that leaves no room to answer
LONG = re.compile(r"context.?length|prompt is too long|too many (?:input )?tokens", re.IGNORECASE)


class ServedModel:
    """Raises UserError if the server refuses a request, RingError if it fails too often.

    Args:
        key: the bearer token, or "".
        max_tokens: limit for a response.
    """

    def __init__(
        self,
        model: str,
        server: Server,
        key: str,
        prompting: Prompting,
        domains: Domains,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
    ) -> None:
        self.name = f"{model} at {server.base_url}"
        self.server, self.prompting, self.domains, self.seed = server, prompting, domains, seed
        self.settings = {"model": model, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self.client = Client(server.base_url, key, server.deadline_s, server.retries, server.concurrent)

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answer]]:
        """Also those that are under way when one fails, before that error is raised: they are paid for."""
        failed: BaseException | None = None
        pool = ThreadPoolExecutor(self.server.concurrent)
        waiting = iter(asks)
        try:
            pending = {pool.submit(self._answer, ask): ask for ask in islice(waiting, self.server.concurrent)}
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    ask, error = pending.pop(future), future.exception()
                    failed = failed or error
                    if not error:
                        yield ask, future.result()
                    for more in islice(
                        waiting, 0 if failed else 1
                    ):  # after the caller has stored one: a kill loses less
                        pending[pool.submit(self._answer, more)] = more
            if failed:
                raise failed
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self.client.close()

    def _answer(self, ask: Ask) -> Answer:
        messages = messages_of(ask.problem, self.prompting, self.domains)
        body = {**self.settings, "messages": messages, "seed": ask.seed(self.seed)}
        try:
            got = self.client.post("chat/completions", body)
        except Refused as e:
            if e.status in (400, 413, 422) and LONG.search(e.text):
                return Answer(f"{ask.problem['id']}: {e}", 0, NO_ROOM)
            raise
        except ServerFailed as e:
            raise RingError(f"{e}; what is finished is kept for --resume") from None
        try:
            reply, length = read_reply(got), int(got["usage"]["completion_tokens"])
        except (LookupError, TypeError, ValueError) as e:
            raise UserError(f"{self.server.base_url}: got {shown(json.dumps(got))}, expected a chat completion with "
                            f"usage.completion_tokens ({e!r})") from None  # fmt: skip
        finish = "length" if reply.cut else "stop"
        closed = f"<think>{reply.thought}" + ("</think>" if reply.content or finish == "stop" else "")
        return Answer((closed if reply.thought else "") + reply.content, length, finish)
