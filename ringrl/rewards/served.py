"""Verifiers that ask a server: one that returns verdicts (`url`), and a language model as a judge (`judge`).

They mostly wait, so they run in many threads of the pool's process and keep their own deadline. A bad, late or missing
answer is an error. Requests to a busy server are repeated.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringrl.errors import RingError
from ringrl.http import Client, read_reply, shown
from ringrl.lines import write_atomic
from ringrl.rewards.verdict import Verdict, after_thinking, graded, verdict_of

KEPT = 100_000  # judge answers kept in memory
_PLACE = re.compile(r"\{(\w+)\}")
_WORDS = {"yes": 1.0, "true": 1.0, "correct": 1.0, "no": 0.0, "false": 0.0, "incorrect": 0.0}
PROMPT = """Judge the answer to a problem.

Problem: {problem}

Reference answer: {answer}

Answer to be judged: {response}

Say briefly what speaks for and against it. Then end with one line, "Score: X", where X is a number from 0 (wrong) to 1
(right)."""

Item = tuple[str, Mapping[str, Any]]  # response, row


class _Served:
    def __call__(self, response: str, row: Mapping[str, Any]) -> Verdict:
        return self.judge_all([(response, row)])[0]

    def judge_all(self, items: Sequence[Item]) -> list[Verdict]:
        """A verdict for each of at most `batch` items."""
        raise NotImplementedError


@dataclass
class UrlVerifier(_Served):
    """POST URL/judge with a list of {"domain", "response", "row"}. The answer is a list of equal length and order of
    bools, numbers from 0 to 1, or objects with "score" or "kind", and "reason"."""

    url: str
    domain: str = ""
    key: str = field(default="", repr=False)  # secret
    total_s: float = 20.0
    concurrent: int = 16
    batch: int = 32  # most responses in one request

    def __post_init__(self) -> None:
        _require_url("url", self.url)
        self._client = Client(self.url, self.key, self.total_s, _RETRIES, self.concurrent)

    def judge_all(self, items: Sequence[Item]) -> list[Verdict]:
        requests = [{"domain": self.domain, "response": response, "row": dict(row)} for response, row in items]
        try:
            reply = self._client.post("judge", requests, self.total_s)
        except RingError as error:
            return [Verdict("error", str(error))] * len(items)
        if not isinstance(reply, list) or len(reply) != len(items):
            message = f"{self.url}: got {shown(json.dumps(reply))}, expected a list of {len(items)} verdicts"
            return [Verdict("error", message)] * len(items)
        return [self._read(entry) for entry in reply]

    def _read(self, entry: Any) -> Verdict:
        try:
            if not isinstance(entry, dict):
                return verdict_of(entry)
            reason = str(entry.get("reason", ""))[:500]
            if "score" not in entry:
                return Verdict(entry["kind"], reason or entry["kind"])
            score = verdict_of(entry["score"])
            return Verdict(score.kind, reason or score.reason, score=score.score)
        except (ValueError, KeyError, TypeError) as error:
            return Verdict("error", f"{self.url}: {shown(json.dumps(entry))}: {type(error).__name__}: {error}")


@dataclass
class ModelJudge(_Served):
    """Asks a model on an OpenAI-compatible server and reads a score from its answer, at temperature 0.

    `prompt` is a text with {response}, or a file with such a text; it may contain {problem}, {answer} and other keys of
    the row. {response} excludes the thought. The first group of the last match of `score` is yes, no or a number, which
    is divided by `highest`. An answer without a match is an error. Equal questions are asked once, across runs too if
    `cache` names a folder.
    """

    base_url: str
    model: str
    prompt: str = PROMPT
    score: str = r"(?i)score\W{1,6}([01]?\.\d+|[01]|yes|no)\b"
    highest: float = 1.0
    max_tokens: int = 2048
    cache: str = ""
    key: str = field(default="", repr=False)  # secret
    total_s: float = 20.0
    concurrent: int = 16
    batch: int = 1
    _answers: OrderedDict[str, Future[str]] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        _require_url("base_url", self.base_url)
        if "{response}" not in self.prompt:
            if "\n" in self.prompt or not Path(self.prompt).is_file():
                raise ValueError(f"prompt: got {self.prompt[:100]!r}, expected a file, or a text with {{response}}")
            self.prompt = Path(self.prompt).read_text(encoding="utf-8")
            if "{response}" not in self.prompt:
                raise ValueError("prompt: expected {response} in the file")
        if re.compile(self.score).groups < 1:
            raise ValueError(f"score: got {self.score!r}, expected a regular expression with a group")
        if self.highest <= 0:
            raise ValueError(f"highest: got {self.highest!r}, expected a number above 0")
        self._client = Client(self.base_url, self.key, self.total_s, _RETRIES, self.concurrent)

    def judge_all(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._judge(response, row) for response, row in items]

    def _judge(self, response: str, row: Mapping[str, Any]) -> Verdict:
        answer = after_thinking(response).strip()
        if not answer:
            return Verdict("fail", "no_answer")
        values = {**row, "response": answer}
        if missing := [k for k in _PLACE.findall(self.prompt) if k in ("problem", "answer") and k not in values]:
            return Verdict("error", f"the row has no {missing[0]!r}, which the judge's prompt names")
        content = _PLACE.sub(lambda m: str(values.get(m[1], m[0])), self.prompt)
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        try:
            return self._read(self._answer(body))
        except (RingError, OSError, ValueError) as error:
            return Verdict("error", str(error))

    def _read(self, answer: str) -> Verdict:
        """Raises ValueError."""
        scores = [m[1] for m in re.finditer(self.score, after_thinking(answer))]
        if not scores or scores[-1] is None:
            raise ValueError(f"the judge gave no score: {answer.strip()[-200:]!r}")
        word = scores[-1].strip().lower()
        return graded(_WORDS[word] if word in _WORDS else float(word) / self.highest)

    def _answer(self, body: dict[str, Any]) -> str:
        """The model's answer; equal questions asked in the meantime wait for it. Raises RingError."""
        name = hashlib.sha256(json.dumps([self.base_url, body], sort_keys=True).encode()).hexdigest()
        with self._lock:
            is_first = name not in self._answers
            future = self._answers.setdefault(name, Future())
            self._answers.move_to_end(name)
            if len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        if not is_first:
            return future.result()
        try:
            future.set_result(self._kept(name, body))
        except BaseException as error:
            with self._lock:
                self._answers.pop(name, None)  # so that the next request tries again
            future.set_exception(error)
        return future.result()

    def _kept(self, name: str, body: dict[str, Any]) -> str:
        file = Path(self.cache) / name[:2] / f"{name}.json"
        if self.cache and file.is_file():
            return str(json.loads(file.read_text(encoding="utf-8"))["answer"])
        chat = self._client.post("chat/completions", body, self.total_s)
        try:
            answer = read_reply(chat).content
        except ValueError:
            got = shown(json.dumps(chat))
            raise RingError(f"{self.base_url}: got {got}, expected a chat completion with a content") from None
        if not answer:
            raise RingError(f"the judge gave no score: {self.base_url} sent no content: {shown(json.dumps(chat))}")
        if self.cache:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps({"answer": answer, "model": self.model}))
        return answer


_RETRIES = 1_000_000  # in effect, retry until the deadline


def _require_url(option: str, url: str) -> None:
    if not re.match("https?://.", url):
        raise ValueError(f"{option}: got {url!r}, expected http://... or https://...")
