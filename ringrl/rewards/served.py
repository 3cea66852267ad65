"""Verifiers that ask a server: one that judges (`url`), and a language model that is asked for its opinion (`judge`).

They wait for most of their time, so that they run in threads of the pool's process, many at once, and keep their own
deadline; what the server answers badly, late or not at all is an error. Servers that are busy are asked again.
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
from ringrl.http import Client
from ringrl.lines import write_atomic
from ringrl.rewards.verdict import Verdict, after_thinking, graded, verdict_of

KEPT = 100_000  # answers of a model in memory
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
    """POST URL/judge with a list of {"domain", "response", "row"}. The answer is a list as long, in the same order, of
    bools, numbers from 0 to 1, or objects with "score" or "kind", and "reason"."""

    url: str
    domain: str = ""
    key: str = field(default="", repr=False)  # secret
    total_s: float = 20.0
    concurrent: int = 16
    batch: int = 32  # responses in one request, at most

    def __post_init__(self) -> None:
        _require_url("url", self.url)
        self._client = Client(self.url, self.key, self.total_s, _RETRIES, self.concurrent)

    def judge_all(self, items: Sequence[Item]) -> list[Verdict]:
        asked = [{"domain": self.domain, "response": response, "row": dict(row)} for response, row in items]
        try:
            told = self._client.post("judge", asked, self.total_s)
        except RingError as error:
            return [Verdict("error", str(error))] * len(items)
        if not isinstance(told, list) or len(told) != len(items):
            said = f"{self.url}: got {json.dumps(told)[:200]}, expected a list of {len(items)} verdicts"
            return [Verdict("error", said)] * len(items)
        return [self._read(each) for each in told]

    def _read(self, told: Any) -> Verdict:
        try:
            if not isinstance(told, dict):
                return verdict_of(told)
            reason = str(told.get("reason", ""))[:500]
            if "score" not in told:
                return Verdict(told["kind"], reason or told["kind"])
            score = verdict_of(told["score"])
            return Verdict(score.kind, reason or score.reason, score=score.score)
        except (ValueError, KeyError, TypeError) as error:
            return Verdict("error", f"{self.url}: {json.dumps(told)[:200]}: {type(error).__name__}: {error}")


@dataclass
class ModelJudge(_Served):
    """Asks a model on an OpenAI-compatible server and reads a score from its answer, at temperature 0.

    `prompt` is a text with {response}, or a file with one; {problem}, {answer} and other keys of the row may stand in
    it. {response} is what follows the thought. The last match of `score` has in its first group yes, no or a number,
    which `highest` divides. An answer without one is an error. The same question is asked once, and never again
    when `cache` names a folder.
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
        said = after_thinking(response).strip()
        if not said:
            return Verdict("fail", "no_answer")
        known = {**row, "response": said}
        if missing := [k for k in _PLACE.findall(self.prompt) if k in ("problem", "answer") and k not in known]:
            return Verdict("error", f"the row has no {missing[0]!r}, which the judge's prompt names")
        content = _PLACE.sub(lambda m: str(known.get(m[1], m[0])), self.prompt)
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
        found = [m[1] for m in re.finditer(self.score, after_thinking(answer))]
        if not found or found[-1] is None:
            raise ValueError(f"the judge gave no score: {answer.strip()[-200:]!r}")
        word = found[-1].strip().lower()
        return graded(_WORDS[word] if word in _WORDS else float(word) / self.highest)

    def _answer(self, body: dict[str, Any]) -> str:
        """What the model answers; who asks the same meanwhile waits for it. Raises RingError."""
        name = hashlib.sha256(json.dumps([self.base_url, body], sort_keys=True).encode()).hexdigest()
        with self._lock:
            mine = name not in self._answers
            future = self._answers.setdefault(name, Future())
            self._answers.move_to_end(name)
            if len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        if not mine:
            return future.result()
        try:
            future.set_result(self._kept(name, body))
        except BaseException as error:
            with self._lock:
                self._answers.pop(name, None)  # another may have more luck
            future.set_exception(error)
        return future.result()

    def _kept(self, name: str, body: dict[str, Any]) -> str:
        file = Path(self.cache) / name[:2] / f"{name}.json"
        if self.cache and file.is_file():
            return str(json.loads(file.read_text(encoding="utf-8"))["answer"])
        told = self._client.post("chat/completions", body, self.total_s)
        try:
            answer = told["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            answer = None
        if not isinstance(answer, str):
            raise RingError(f"{self.base_url}: got {json.dumps(told)[:200]}, expected a chat completion with a content")
        if self.cache:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps({"answer": answer, "model": self.model}))
        return answer


_RETRIES = 1_000_000  # the deadline ends them


def _require_url(option: str, url: str) -> None:
    if not re.match("https?://.", url):
        raise ValueError(f"{option}: got {url!r}, expected http://... or https://...")
