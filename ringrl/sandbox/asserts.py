"""What of a test's text asserts something: found before it runs, counted while it runs.

An assertion is an `assert` whose condition is no constant and no display (a tuple, a list: always true), a call of
something named `assert...`, `raises` or `warns` that the text does not define itself, and a branch of an `if` or `try`
taken instead of one that only fails (`raise AssertionError`, `assert False`, `fail()`). What a handler or `suppress`
around it swallows asserts nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

CONDITION, FUNCTION = "__counted_condition__", "__counted_function__"  # names that a rewritten text calls
PROGRAM = ("answer", "solution")  # the program's name as a module
_ALWAYS_TRUE = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Lambda, ast.GeneratorExp, ast.JoinedStr)
_SWALLOWING = {"Exception", "BaseException", "AssertionError"}


class Rewriting(ast.NodeTransformer):
    """Makes a text count its assertions; `found` is how many places of it do."""

    def __init__(self, tree: ast.Module) -> None:
        self._own = set(defined(tree))
        self._hushed = 0  # how many blocks that swallow a failure are around
        self.found = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        if _decides(node.test):
            node.test = self._counted(CONDITION, node.test)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if self._asserts(node):
            node.func = self._counted(FUNCTION, node.func)
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if any(map(_fails, [*node.body, *node.orelse])):
            node.test = self._counted(CONDITION, node.test)
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        swallowed = any(_catches(h.type) and not any(map(_leaves, h.body)) for h in node.handlers)
        node.body = self._visited(node.body, swallowed)
        for part in (node.handlers, node.orelse, node.finalbody):
            part[:] = self._visited(part, False)  # type: ignore[index]
        if any(map(_fails, [*node.body, *node.orelse])):
            for handler in node.handlers:
                if not _catches(handler.type):
                    handler.body.insert(0, ast.Expr(self._counted(CONDITION, ast.Constant(None))))
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        hushing = [a for call in calls if _called(call) == "suppress" for a in call.args]
        node.items = self._visited(node.items, False)
        node.body = self._visited(node.body, any(map(_catches, hushing)))
        return node

    def _visited(self, nodes: Sequence[Any], hushed: bool) -> list[Any]:
        self._hushed += hushed
        visited = [self.visit(node) for node in nodes]
        self._hushed -= hushed
        return visited

    def _counted(self, name: str, value: ast.expr) -> ast.expr:
        if self._hushed:
            return value
        self.found += 1
        return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), [value], []), value)

    def _asserts(self, node: ast.Call) -> bool:
        name = _called(node)
        if name in ("raises", "warns"):
            return name not in self._own
        told = [*node.args, *(k.value for k in node.keywords)]
        return name.startswith("assert") and name not in self._own and not all(map(_constant, told))


def rewritten(tree: ast.Module) -> ast.Module:
    """The text, changed so that it calls CONDITION and FUNCTION with each condition and function that asserts."""
    return ast.fix_missing_locations(Rewriting(tree).visit(tree))


def assertions(text: str) -> int:
    """How many places of a text assert something.

    Raises:
        ValueError: one of its lines looks like an assertion and asserts nothing.
        SyntaxError: it is no Python.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
            raise ValueError(f"`{_shown(node)}` asserts nothing: a tuple is always true")
    for node in _bare(tree):
        raise ValueError(f"`{_shown(node)}` asserts nothing: it compares, and drops the result")
    rewriting = Rewriting(tree)
    rewriting.visit(tree)
    return rewriting.found


def defined(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The functions and classes at the top of a text, by name."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def standing(tree: ast.Module) -> list[str]:
    """The texts that stand at the top of a module for themselves, docstrings among them."""
    values = [n.value.value for n in tree.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def loaded(tree: ast.AST) -> set[str]:
    """The names that a text reads."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def bound(tree: ast.AST) -> set[str]:
    """The names that a text assigns, defines or imports elsewhere than from the program; parameters are among them."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module not in PROGRAM):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
            names.add(node.name or "")
    return names


def imported(tree: ast.Module) -> list[str]:
    """The modules that a text imports outside of `try`, first parts of their names."""
    names: list[str] = []
    for node in _outside(tree, (ast.Try,)):
        if isinstance(node, ast.Import):
            names += [a.name.partition(".")[0] for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module.partition(".")[0])
    return names


def _bare(tree: ast.Module) -> Iterator[ast.Expr]:
    """Statements that are comparisons, except where one is tried for the exception it raises."""
    for node in _outside(tree, (ast.With, ast.AsyncWith, ast.Try)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare):
            yield node


def _outside(node: ast.AST, kinds: tuple[type, ...]) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, kinds):
            yield child
            yield from _outside(child, kinds)


def _shown(node: ast.AST) -> str:
    return ast.unparse(node)[:80]


def _constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _decides(condition: ast.expr) -> bool:
    """Whether a condition can be false."""
    return not isinstance(condition, (ast.Constant, *_ALWAYS_TRUE))


def _called(node: ast.Call) -> str:
    function = node.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _fails(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assert):
        return isinstance(statement.test, ast.Constant) and not statement.test.value
    if isinstance(statement, ast.Raise) and statement.exc:
        return "AssertionError" in {n.id for n in ast.walk(statement.exc) if isinstance(n, ast.Name)}
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _called(statement.value) == "fail"
    )


def _leaves(statement: ast.stmt) -> bool:
    """Whether a handler's statement ends the test, or may."""
    calls = {_called(n) for n in ast.walk(statement) if isinstance(n, ast.Call)}
    return bool(calls & {"exit", "_exit", "fail"}) or any(
        isinstance(n, ast.Raise) or (isinstance(n, ast.stmt) and _fails(n)) for n in ast.walk(statement)
    )


def _catches(kind: ast.expr | None) -> bool:
    """Whether what is caught includes a failed assertion."""
    return kind is None or bool(_SWALLOWING & {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)})
