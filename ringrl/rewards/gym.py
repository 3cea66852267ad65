"""The verifier of reasoning-gym's tasks: each task's own scorer, asked about the final answer.

The final answer is what the last `<answer>...</answer>` after the thought holds. What goes wrong with it is a fail, a
hang and a crash among them: a process of its own asks the scorer. An entry whose own answer does not
score 1 is an error. Some scorers evaluate the answer; these are given arithmetic and lists, and nothing that acts.
"""

from __future__ import annotations

import ast
import functools
import json
import multiprocessing
import re
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ringrl.data import gym
from ringrl.rewards.verdict import Verdict, after_thinking, graded

EVALUATED_AS_PYTHON = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
EVALUATED_BY_SYMPY = ("countdown", "intermediate_integration", "polynomial_multiplication", "simple_integration")
FUNCTIONS = ("Abs", "acos", "asin", "atan", "cos", "cosh", "exp", "log", "sin", "sinh", "sqrt", "tan", "tanh")
_ARITHMETIC = (ast.Expression, ast.Load, ast.Name, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.BitXor,
               ast.UnaryOp, ast.UAdd, ast.USub)  # fmt: skip
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_FORK = multiprocessing.get_context("fork")


def final_answer(response: str) -> str | None:
    """The last `<answer>` after the thought, None if there is none."""
    found = _ANSWER.findall(after_thinking(response))
    return found[-1].strip() if found else None


class GymVerifier:
    """Judges a response to one of the problems of `ringrl.data.gym`; an answer has `total_s` seconds."""

    def __init__(self, total_s: float = 10.0) -> None:
        import reasoning_gym.factory  # noqa: F401  (seconds, before the first response's clock runs)

        self._total_s = total_s
        self._process: BaseProcess | None = None  # started with the first answer, and again when one was its end

    def __call__(self, response: str, row: Mapping[str, Any]) -> Verdict:
        """Raises ValueError or KeyError for a row that is not one of them."""
        task, options, entry = str(row["task"]), json.dumps(row.get("options", {})), json.dumps(row["entry"])
        check(task, options, entry)
        answer = final_answer(response)
        if answer is None:
            return Verdict("fail", "no_answer")
        score, trouble = self._ask((task, options, entry, answer))
        return Verdict("fail", trouble) if trouble else graded(score)

    def _ask(self, question: tuple[str, str, str, str]) -> tuple[float, str]:
        """The score, and what the answer did instead of getting one."""
        if self._process is None:
            self._conn, theirs = _FORK.Pipe()
            self._process = _FORK.Process(target=_serve, args=(theirs, self._conn), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._conn.send(question)
            if self._conn.poll(self._total_s):
                score, trouble = json.loads(self._conn.recv_bytes())
                return score, trouble
            trouble = "timeout"
        except (EOFError, OSError):
            trouble = "crash"
        self._process.kill()
        self._process.join()
        self._process = None
        self._conn.close()
        return 0.0, trouble


def _serve(conn: Connection, parents: Connection) -> None:
    """In the process of its own: answers questions until the verifier is gone."""
    parents.close()
    while True:
        try:
            task, options, entry, answer = conn.recv()
        except EOFError:
            return
        score, trouble = 0.0, "not_evaluated"
        try:
            if may_be_evaluated(answer, task):
                score = float(_scorer(task, options)(answer, json.loads(entry)))
                trouble = "" if 0 <= score <= 1 else f"scored {score}"
        except BaseException as error:  # whatever it is, the answer caused it: the entry's own has none
            trouble = type(error).__name__
        conn.send_bytes(json.dumps([score, trouble]).encode())


@functools.lru_cache(4096)
def check(task: str, options: str, entry: str) -> None:
    """Raises ValueError or KeyError for an entry whose own answer is not right: of another task or version, or broken.

    options, entry: as JSON.
    """
    fields = json.loads(entry)
    if (own := _scorer(task, options)(fields["answer"], fields)) != 1:
        raise ValueError(f"entry: its own answer scores {own}, expected 1")


@functools.lru_cache(256)
def _scorer(task: str, options: str) -> Callable[[str, dict[str, Any]], float]:
    """Raises ValueError: there is no such task or option."""
    return gym.dataset(task, json.loads(options)).score_answer


def may_be_evaluated(answer: str, task: str) -> bool:
    """Whether this task's scorer does no more than arithmetic when it evaluates the answer, if it does."""
    if task not in (*EVALUATED_AS_PYTHON, *EVALUATED_BY_SYMPY):
        return True
    try:
        nodes = list(ast.walk(ast.parse(answer.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return task in EVALUATED_AS_PYTHON  # it gets the same error; what SymPy reads is more than Python
    if task in EVALUATED_AS_PYTHON:
        return all(isinstance(node, (*_ARITHMETIC, ast.Constant, ast.List, ast.Tuple)) for node in nodes)
    return all(isinstance(node, _ARITHMETIC) or _is_number(node) or _calls_a_function(node) for node in nodes)


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)  # SymPy evaluates a text once more


def _calls_a_function(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
