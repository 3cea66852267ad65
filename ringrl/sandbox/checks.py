"""The side of the tests: runs their texts against a program in another sandbox, and counts what they assert.

A text may be asserts, functions `test...` and classes `Test...` as pytest finds them (pytest itself runs those of a
text that imports it), unittest cases, doctest examples, `check(candidate)`, any of these behind a main guard. Names of
the standard library mean the standard library, whatever the program defines, where they are used on what is tested.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import inspect
import io
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CoroutineType, ModuleType
from typing import TYPE_CHECKING, Any

from ringrl.sandbox import asserts
from ringrl.sandbox.asserts import PROGRAM
from ringrl.sandbox.calls import KNOWN, OPS, Peer, RemoteObject, exceptions

if TYPE_CHECKING:
    from doctest import Example

_FILE = "<checks {}>"


class TestsFault(Exception):
    """The tests failed, not the program."""

    __test__ = False


def run(conn: socket.socket, texts: Sequence[str], entry: str, prelude: dict[str, Any]) -> None:
    """Runs the texts against the program at the other end.

    Raises:
        TestsFault: a fault of the tests, or no assertion ran, or none of the program.
        Exception: the program failed them; an AssertionError where a result was wrong.
    """
    checks = _Checks(conn, entry, prelude)
    try:
        checks.begin(texts)
        for i, text in enumerate(texts):
            checks.one(i, text)
    except (AssertionError, MemoryError):
        raise
    except SystemExit as error:
        if error.code:
            raise AssertionError("the tests ended with a status") from None
    except Exception as error:
        if fault := checks.fault(error):
            raise TestsFault(fault) from error
        raise
    except BaseException as error:
        if type(error).__name__ == "Failed":  # pytest's
            raise AssertionError(str(error)) from None
        raise
    if not checks.asserted:
        if checks.decided():
            raise AssertionError("what the program returned left no assertion to run")
        raise TestsFault("not one assertion ran")
    if not checks.used():
        if checks.free:
            raise AssertionError(f"the program defines none of {', '.join(sorted(checks.free))}")
        raise TestsFault("what is asserted has nothing to do with the program")


class _Tests(Peer):
    """Our end of the line, which notes where the tests last asked the program."""

    asked = False
    where: frozenset[tuple[str, int]] = frozenset()  # file and line of each frame of the tests

    def send(self, message: dict[str, Any]) -> None:
        if "op" in message:
            self.asked = True
            frame, where = inspect.currentframe(), set()
            while frame:
                if frame.f_code.co_filename.startswith("<checks"):
                    where.add((frame.f_code.co_filename, frame.f_lineno))
                frame = frame.f_back
            self.where = frozenset(where)
        super().send(message)


class _Checks:
    """Tests at work: their scope, what they asserted, and who is to blame for an exception."""

    def __init__(self, conn: socket.socket, entry: str, prelude: dict[str, Any]) -> None:
        self._peer = _Tests(conn, {**OPS, "getattr": _own_attribute, "setattr": _own_assignment})
        self._entry, self._prelude = entry, prelude
        self._trees: dict[str, ast.Module] = {}
        self._candidate: Any = None
        self._mains: dict[str, Any] = {}  # the real unittest.main and pytest.main
        self.asserted = 0

    # ---- running -------------------------------------------------------------------------------------------

    def begin(self, texts: Sequence[str]) -> None:
        """Reads the texts and makes the scope that they share."""
        told = self._peer.receive()["value"]
        try:
            self._program = _namespace(self._peer, told)
        except Exception as error:  # it is the program that writes here
            raise self._peer.fault(error) from None
        for i, text in enumerate(texts):
            self._trees[_FILE.format(i)] = tree = _parsed(text)
            self._trees |= {_example_file(e): ast.parse(e.source) for e in _examples(text, tree)}
        self._read = set().union(*map(asserts.loaded, self._trees.values()), [self._entry])
        self.free = self._read.difference(*map(asserts.bound, self._trees.values()), vars(builtins), ["candidate", ""])
        nodes = [node for tree in self._trees.values() for node in ast.walk(tree)]
        if self._imported() & set(PROGRAM):
            self.free |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for name in set().union(*map(_functions, self._trees.values())) & self.free & set(self._program):
            if not callable(self._program[name]):
                raise self._peer.fault(TypeError(f"{name} is no function"))
        ours = _ours(self._trees.values(), set(self._program), self._entry, {*vars(builtins), *self._prelude})
        seen = {name: value for name, value in self._program.items() if name not in ours}
        for name in PROGRAM:  # tests may import what they test
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(self._program, __all__=sorted(seen))
        counting = {asserts.CONDITION: self._condition, asserts.FUNCTION: self._function}
        self._scope = {"__name__": "checks", **self._prelude, **seen, **counting}
        sys.modules["checks"] = ModuleType("checks")
        self._target(told)

    def one(self, number: int, text: str) -> None:
        """Runs one text: what stands there, then what it defines to be called."""
        file = _FILE.format(number)
        tree = self._trees[file]
        if tree.body:
            called = asserts.loaded(tree)
            code = compile(asserts.rewritten(_unguarded(_parsed(text))), file, "exec", dont_inherit=True, optimize=0)
            for module in {"unittest", "pytest"} & set(asserts.imported(tree)):
                home: Any = importlib.import_module(module)
                self._mains.setdefault(module, home.main)
                home.main = lambda *args, **named: None  # we run them
            exec(code, self._scope)
            self._defined(tree, called)
        for example in _examples(text, tree):
            self._example(example)

    def _defined(self, tree: ast.Module, called: set[str]) -> None:
        own = {name: self._scope[name] for name in asserts.defined(tree) if name in self._scope}
        cases = {name: value for name, value in own.items() if _is_case(value)}
        for value in cases.values():
            self._unittest(value)
        tests = {n: v for n, v in own.items() if n.startswith(("test", "Test")) and n not in cases and n not in called}
        if tests and _wants_pytest(tree, tests):
            self._pytest({**own, **tests})
            return
        for value in tests.values():
            if inspect.isclass(value):
                self._class(value)
            else:
                self._call(value)
        if "check" in own and "check" not in called:
            self._call(own["check"])

    def _call(self, function: Callable[..., Any]) -> None:
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if needed and self._candidate is None:
            raise self._peer.fault(NameError("the program defines no function to be tested"))
        result = function(self._candidate) if needed else function()
        if isinstance(result, CoroutineType):
            import asyncio

            asyncio.run(result)

    def _class(self, kind: type) -> None:
        """Methods `test...`, each on an object of its own, with setup and teardown as pytest names them."""
        for name in [n for n in vars(kind) if n.startswith("test")]:
            tests = kind()
            for step in ("setup_class", "setup_method", name, "teardown_method", "teardown_class"):
                if method := getattr(tests, step, None):
                    wants = step.endswith("_method") and len(inspect.signature(method).parameters) > 0
                    self._call((lambda m=method: m(None)) if wants else method)

    def _unittest(self, kind: Any) -> None:
        import unittest

        kind.setUpClass()
        for case in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
            with contextlib.suppress(unittest.SkipTest):
                case.debug()
        kind.tearDownClass()

    def _pytest(self, own: dict[str, Any]) -> None:
        """Runs functions and classes with pytest, for its fixtures, parameters and marks."""
        import pytest

        main = self._mains.get("pytest", pytest.main)
        with open("test_checks.py", "w") as file:
            file.write("import sys\nglobals().update(vars(sys.modules['checks']))\n")
        vars(sys.modules["checks"]).clear()
        vars(sys.modules["checks"]).update({n: v for n, v in own.items() if not isinstance(v, RemoteObject)})
        seen = _Seen()
        options = ["-q", "-x", "-p", "no:cacheprovider", "--assert=plain", "--capture=sys", "-c", "/dev/null"]
        with contextlib.redirect_stdout(io.StringIO()):
            main([*options, "--rootdir=.", "--confcutdir=.", "test_checks.py"], plugins=[seen])
        if seen.error is not None:
            raise seen.error

    def _example(self, example: Example) -> None:
        """One example of a doctest. Raises AssertionError if another text comes out than the one below it."""
        from doctest import OutputChecker

        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                file = _example_file(example)
                exec(compile(example.source, file, "single", dont_inherit=True, optimize=0), self._scope)
        except Exception as error:
            if example.exc_msg is None:
                raise
            self.asserted += 1
            kind, _, message = example.exc_msg.strip().partition(": ")
            if (type(error).__name__, str(error)) != (kind.rpartition(".")[2], message):
                raise AssertionError(f"{type(error).__name__}: {error}") from None
            return
        self.asserted += bool(example.want)
        flags = sum(flag for flag, on in example.options.items() if on)
        if example.exc_msg is not None or not OutputChecker().check_output(example.want, out.getvalue(), flags):
            raise AssertionError(f"{example.source}: {out.getvalue()!r}")

    def _condition(self, value: Any) -> Any:
        self.asserted += 1
        return value

    def _function(self, function: Any) -> Any:
        self.asserted += not isinstance(function, RemoteObject)
        return function

    def _target(self, told: list[list[Any]]) -> None:
        """`candidate`: the entry point, or without one the last method of Solution, or the last function."""
        if self._entry:
            try:
                self._candidate = eval(self._called_entry(), self._scope)
                if not callable(self._candidate):
                    raise TypeError(f"{self._entry} is a {type(self._candidate).__name__}")
            except Exception as error:
                raise self._peer.fault(error) from None
            self._scope["candidate"] = self._candidate
            return
        for kind, name, *more in reversed(told):
            if kind == "class" and (public := [n for n in more[1] if not n.startswith("_")]):
                self._candidate = lambda *a, **k: getattr(self._program[name](), public[-1])(*a, **k)  # noqa: B023
                return
        functions = [t[1] for t in told if t[0] == "function" and t[1] not in ("main", "check")]
        self._candidate = self._program[functions[-1]] if functions else None

    def _called_entry(self) -> str:
        """The entry point as an expression: a method may be named without its class Solution, or without an object."""
        owner, dot, _ = self._entry.partition(".")
        if dot and owner in self._program:
            return self._entry.replace(".", "().", 1)
        if re.match(r"\w*", self._entry)[0] in self._program:  # type: ignore[index]
            return self._entry
        if "Solution" in self._program:
            return f"Solution().{self._entry}"
        raise NameError(f"the program does not define {self._entry}")

    # ---- blame ---------------------------------------------------------------------------------------------

    def used(self) -> bool:
        """Whether the tests had to do with the program."""
        return self._peer.asked or bool(self._read & set(self._program)) or bool(self._imported() & set(PROGRAM))

    def _imported(self) -> set[str]:
        return set().union(*(asserts.imported(tree) for tree in self._trees.values()))

    def decided(self) -> bool:
        """Whether the program may have decided which of the tests' statements ran: it raised, or a condition or a loop
        depends on what it returned."""
        if not self._peer.asked:
            return False
        nodes = [(n, tree) for tree in self._trees.values() for n in ast.walk(tree)]
        tests = [(n.test, t) for n, t in nodes if isinstance(n, (ast.If, ast.While))]
        tests += [(n.iter, t) for n, t in nodes if isinstance(n, (ast.For, ast.AsyncFor))]
        tested = {*self._program, "candidate"}
        return bool(self._peer.raised) or any(asserts.loaded(n) & _tainted(t, tested) for n, t in tests)

    def fault(self, error: BaseException) -> str:
        """What is wrong with the tests, if it is them that an exception speaks of; "" if it may be the program."""
        cause: BaseException | None = error
        while cause is not None:
            if any(cause is raised for raised in self._peer.raised):
                return ""
            cause = cause.__cause__ or cause.__context__
        if not all(_can_be_tested(name, self._program[name]) for name in self.free & set(self._program)):
            return ""
        if isinstance(error, ImportError):
            return "" if error.name in PROGRAM else str(error)
        if isinstance(error, AttributeError) and getattr(error.obj, "__name__", "") in PROGRAM:
            return ""
        missing = error.name if isinstance(error, NameError) else ""
        blamed = self._theirs(missing) if missing else self._untouched(error)
        return f"{type(error).__name__}: {error}" if blamed else ""

    def _theirs(self, name: str) -> bool:
        """Whether a missing name is one that the tests should have defined: they read it beside what is tested, or a
        call of it on what is tested judges that."""
        tested = {*self._program, "candidate"}
        if not (self.free | self._read & {"candidate"}) & tested:
            return False
        nodes = [n for tree in self._trees.values() for n in ast.walk(tree)]
        if not any(name in _functions(n) for n in nodes):
            return True
        alone = [n.value for n in nodes if isinstance(n, ast.Expr)]
        alone += [n.test for n in nodes if isinstance(n, ast.Assert)]
        calls = [n.operand if isinstance(n, ast.UnaryOp) else n for n in alone]
        judges = [n for n in calls if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]
        return any(_functions(a) & tested for call in judges for a in call.args)

    def _untouched(self, error: BaseException) -> bool:
        """Whether the statement that raised has nothing of the program in it."""
        place = None
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in self._trees:
                place = trace.tb_frame.f_code.co_filename, trace.tb_lineno
            trace = trace.tb_next
        if place is None or not self._peer.asked:
            return not self._peer.asked
        tree = self._trees[place[0]]
        statement = _statement(tree, place[1])
        lines = range(statement.lineno, (statement.end_lineno or 0) + 1)
        if any(file == place[0] and line in lines for file, line in self._peer.where):
            return False
        return not asserts.loaded(statement) & asserts.bound(tree)


class _Seen:
    """A plugin of pytest that keeps the first exception."""

    error: BaseException | None = None

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        self.error = self.error or call.excinfo.value

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.error = self.error or RuntimeError(str(report.longrepr)[-300:])


# ---- texts -------------------------------------------------------------------------------------------------


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:  # nothing but doctest examples
        return ast.Module([], [])


def _examples(text: str, tree: ast.Module) -> Iterator[Example]:
    """The doctest examples of a text that is none but them, or of the texts that stand in it for themselves."""
    for part in asserts.standing(tree) if tree.body else [text]:
        if ">>>" in part:
            from doctest import DocTestParser

            yield from DocTestParser().get_examples(part)


def _example_file(example: Example) -> str:
    return f"<checks >>> {example.source[:40]}>"


def _unguarded(tree: ast.Module) -> ast.Module:
    """A main guard holds."""

    class Main(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            is_name = node.id == "__name__" and isinstance(node.ctx, ast.Load)
            return ast.copy_location(ast.Constant("__main__"), node) if is_name else node

    return Main().visit(tree)


def _statement(tree: ast.Module, line: int) -> ast.stmt:
    """The smallest statement that holds a line."""
    holding = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or 0)]
    return min(holding, key=lambda n: (n.end_lineno or 0) - n.lineno, default=ast.Pass(lineno=line, end_lineno=line))


def _functions(node: ast.AST) -> set[str]:
    """The names that are called in a piece of code."""
    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _can_be_tested(name: str, value: Any) -> bool:
    """Whether a name of the program stands for a function, a class or the module of that name: not for plain data or an
    exception, which raise in the tests themselves when they are called."""
    if isinstance(value, ModuleType):
        return value.__name__ == name
    return callable(value) and not (isinstance(value, type) and issubclass(value, Exception))


def _is_case(value: Any) -> bool:
    unittest = sys.modules.get("unittest")
    return unittest is not None and inspect.isclass(value) and issubclass(value, unittest.TestCase)


def _wants_pytest(tree: ast.Module, tests: dict[str, Any]) -> bool:
    if "pytest" in asserts.imported(tree):
        return True
    return any(inspect.isfunction(t) and set(inspect.signature(t).parameters) - {"candidate"} for t in tests.values())


def _ours(trees: Any, program: set[str], entry: str, taken: set[str]) -> set[str]:
    """The names that the program and the standard library both have, and that mean the latter to the tests.

    A builtin does, and others do where they are used on something of the program. If nothing else is tested, they are.
    """
    taken = taken - {entry}
    read = set().union(*map(asserts.loaded, trees), [entry])
    tested = (program - taken) | {"candidate", *PROGRAM}
    if not read & tested:
        tested = _under_test(trees, read & program)
    ours = set(vars(builtins)) & taken - tested
    for tree in trees:
        tainted = _tainted(tree, tested)
        for statement in (n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not hasattr(n, "body")):
            names = asserts.loaded(statement)
            if names & tainted:
                ours |= names & taken - tested
    return ours & program


def _under_test(trees: Any, names: set[str]) -> set[str]:
    """Which of these names of the standard library are tested: no builtins if there are others, and none that is only
    used on what others return, as `all` is in `all(gcd(a, b) == c for a, b, c in cases)`."""
    names = names - set(vars(builtins)) or names
    around = set()
    for call in (n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)):
        if isinstance(call.func, ast.Name) and any(asserts.loaded(a) & names - {call.func.id} for a in call.args):
            around.add(call.func.id)
    return names - around or names


def _tainted(tree: ast.Module, tested: set[str]) -> set[str]:
    """Names that may hold something of the program: it, what is assigned from it, parameters."""
    tainted = tested | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    while True:
        before = len(tainted)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr)) and node.value:
                source: ast.AST = node.value
            elif isinstance(node, (ast.For, ast.comprehension)):
                source = node.iter
            elif isinstance(node, ast.withitem):
                source = node.context_expr
            else:
                continue
            if asserts.loaded(source) & tainted:
                tainted |= asserts.bound(node)
        if len(tainted) == before:
            return tainted


# ---- the program, seen from here ---------------------------------------------------------------------------


def _namespace(peer: Peer, told: list[list[Any]]) -> dict[str, Any]:
    """What the program defines, except that names of the standard library mean the standard library here, and that no
    name of the language itself, such as `__builtins__`, comes from there."""
    namespace: dict[str, Any] = {}
    for kind, name, what, *_ in told:
        if not name.isidentifier() or name.startswith("__"):
            continue
        if kind == "exception":
            base = getattr(builtins, what)
            if not issubclass(base, Exception) or issubclass(base, (StopIteration, StopAsyncIteration)):
                base = Exception
            namespace[name] = exceptions[name] = type(name, (base,), {"__module__": "answer"})
        elif kind == "module":
            if what in KNOWN:
                namespace[name] = importlib.import_module(what)
        elif kind == "known":
            if what in KNOWN and hasattr(importlib.import_module(what), name):
                namespace[name] = getattr(importlib.import_module(what), name)
        else:
            namespace[name] = peer.decode(what)
    return namespace


def _own(holder: Any, name: Any) -> None:
    """The program may use public attributes of what the checks define and handed to it, and of nothing else."""
    if not isinstance(name, str) or name.startswith("_") or type(holder).__module__ != "checks":
        raise AttributeError(name)


def _own_attribute(holder: Any, name: Any) -> Any:
    _own(holder, name)
    return getattr(holder, name)


def _own_assignment(holder: Any, name: Any, value: Any) -> None:
    _own(holder, name)
    setattr(holder, name, value)
