"""A second opinion on verdicts, by other means: what a user asks before trusting a reward.

Answers are judged by Math-Verify alone, with its own extraction, and programs by the first and the longest block of the
response instead of the one that is taken. Where both ways are wrong alike this finds nothing, so each pass is judged
once more against an altered reference, which no right answer may pass.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

from ringrl.domains import Domain, Reward
from ringrl.rewards.verdict import Verdict, after_thinking

_BLOCK = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_DIGITS = re.compile(r"\d+")


def second_way(domain: Domain) -> Domain | None:
    """The domain with another verifier; None where there is no other way to judge."""
    verifier = {"answer": "second_answer", "program": "second_program"}.get(domain.comparison)
    if verifier is None:
        return None
    name = f"{domain.name}.second"
    return Domain(name, (Reward(name, f"{__name__}:{verifier}"),), name)


def second_answer(response: str, row: Mapping[str, Any]) -> bool:
    """What Math-Verify says with its own settings. Raises what it raises."""
    import math_verify

    gold = math_verify.parse(rf"\boxed{{{row['answer']}}}", raise_on_error=True)
    return bool(math_verify.verify(gold, math_verify.parse(after_thinking(response), raise_on_error=True)))


def second_program(response: str, row: Mapping[str, Any]) -> Verdict:
    """The better verdict of the first and of the longest block, whatever their tags."""
    from ringrl.rewards.code import verify_code

    blocks = [m[2] for m in _BLOCK.finditer(after_thinking(response))]
    verdict = Verdict("fail", "no_code")
    for block in dict.fromkeys((*blocks[:1], *sorted(blocks, key=len)[-1:])):
        fence = "````" if "```" in block else "```"
        verdict = verify_code(f"{fence}{row.get('language') or 'python'}\n{block}\n{fence}", row)
        if verdict.kind == "pass":
            break
    return verdict


def altered(domain: Domain, reference: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reference with something else expected; None if nothing in it can be altered with certainty."""
    if domain.comparison == "answer":
        answer = str(reference.get(domain.answer, ""))
        if not (found := _DIGITS.search(answer)):
            return None
        return {**reference, domain.answer: f"{answer[: found.start()]}{2 * int(found[0]) + 7}{answer[found.end() :]}"}
    tests = reference.get("tests")
    if domain.comparison != "program" or not tests or reference.get("checker"):
        return None
    changed = [_other(t) for t in tests] if isinstance(tests, list) else _other(tests)
    return {**reference, "tests": changed} if changed != tests else None


def _other(test: Any) -> Any:
    """A test that expects something else; unchanged if it is of no known form."""
    if isinstance(test, Mapping) and "output" in test:
        output = test["output"]
        return {**test, "output": f"{output.rstrip()}7\n" if isinstance(output, str) else [output, 7]}
    if not isinstance(test, str):
        return test
    try:
        tree = ast.parse(test)
    except SyntaxError:
        return test
    return ast.unparse(_Negated().visit(tree))


class _Negated(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return node


def interval(n: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if of == 0:
        return 0.0, 1.0
    z, p = 1.96, n / of
    centre, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max((centre - half) / (1 + z * z / of), 0.0), min((centre + half) / (1 + z * z / of), 1.0)
