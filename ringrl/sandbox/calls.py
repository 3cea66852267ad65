"""Tests written as Python, kept apart from the program they test: each runs in its own sandbox, calls go between them.

    checks.run (trusted, knows what is expected)  --- a function's name and arguments --->  program (untrusted)
                                              <--- the returned value, as plain data ---

A value that is no plain data stays where it is, and the other side holds a `RemoteObject` to it. On the side of the
checks a RemoteObject equals no plain data and takes part in no arithmetic with any, so that neither `__eq__` that is
always true nor `__sub__` that learns what is subtracted helps a program; between two of them the program's own
operators decide.

What a program can still do: answer for its own objects' truth value, order and equality with each other, their length,
text and items. A test that asserts no more than that can be passed by an object that says so.
"""

from __future__ import annotations

import builtins
import json
import operator
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from types import CoroutineType, FunctionType, ModuleType
from typing import Any

from ringrl.sandbox import values

KNOWN = {"bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json",
         "math", "operator", "random", "re", "statistics", "string", "typing"}  # fmt: skip
_MUTABLE = (list, dict, set, bytearray)
_Ops = dict[str, Callable[..., Any]]


class RemoteError(Exception):
    """An exception of the other side that is not a built-in one."""


class RemoteObject:
    """An object on the other side."""

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("setattr", self, name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._peer.call(self, args, named)

    def __iter__(self) -> Iterator[Any]:
        walk = self._peer.ask("iter", self)
        while True:
            try:
                yield self._peer.ask("next", walk)
            except StopIteration:
                return

    def __next__(self) -> Any:
        return self._peer.ask("next", self)

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._peer.ask("setitem", self, key, value)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, RemoteObject) and bool(self._peer.ask("isinstance", value, self))

    def __hash__(self) -> int:
        return hash(("RemoteObject", self._number))

    def __enter__(self) -> Any:
        return self._peer.ask("enter", self)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        return bool(self._peer.ask("exit", self, kind and kind.__name__))

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """What a class is derived from that names this one as its base."""
        return (_derivable(self),)


def _derivable(base: RemoteObject) -> type:
    """A class whose objects are each one of `base` on the other side, whose methods do not see those of a subclass."""

    def init(self: Any, *args: Any, **named: Any) -> None:
        self._remote = base(*args, **named)

    def forward(name: str) -> Callable[..., Any]:
        return lambda self, *args, **named: getattr(self._remote, name)(*args, **named)

    methods: dict[str, Any] = {name: forward(name) for name in base._peer.ask("methods", base)}
    return type("Remote", (), {**methods, "__init__": init, "__getattr__": lambda s, name: getattr(s._remote, name)})


def _unary(name: str, kind: type) -> Callable[[RemoteObject], Any]:
    def ask(self: RemoteObject) -> Any:
        result = self._peer.ask(name, self)
        if not isinstance(result, kind):
            raise TypeError(f"{name} of the program's object is a {type(result).__name__}")
        return result

    return ask


def _binary(name: str) -> Callable[[RemoteObject, Any], Any]:
    def ask(self: RemoteObject, other: Any) -> Any:
        return self._peer.ask(name, self, other) if isinstance(other, RemoteObject) else NotImplemented

    return ask


_UNARY: dict[str, type] = {"len": int, "str": str, "repr": str, "bool": bool, "int": int, "float": float}
_BINARY = ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor")
for _name, _kind in _UNARY.items():
    setattr(RemoteObject, f"__{_name}__", _unary(_name, _kind))
for _name in _BINARY:
    setattr(RemoteObject, f"__{_name}__", _binary(_name))


def _leave(manager: Any, error: Any) -> bool:
    """Leaves a `with` block that ended with an exception of this name, or None."""
    kind = getattr(builtins, error, Exception) if error else None
    return bool(manager.__exit__(kind, kind and kind(), None))


def _await(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # slow, and seldom needed

    return asyncio.run(coroutine)


def _methods(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))]


OPS: _Ops = {
    "getattr": getattr, "setattr": setattr, "iter": iter, "next": next, "getitem": operator.getitem,
    "setitem": operator.setitem, "isinstance": isinstance, "len": len, "str": str, "repr": repr, "bool": bool,
    "int": int, "float": float, **{n: getattr(operator, f"__{n}__") for n in _BINARY}}  # fmt: skip
_PROGRAM_OPS: _Ops = {**OPS, "enter": lambda manager: manager.__enter__(), "exit": _leave, "methods": _methods,
                      "run": _await}  # fmt: skip


class Peer:
    """One end of the line. `ops` is what the other side may do to the objects it was handed."""

    def __init__(self, conn: socket.socket, ops: _Ops) -> None:
        self._file = conn.makefile("rwb")
        self._ops = ops
        self._objects: list[Any] = []
        self.raised: deque[BaseException] = deque(maxlen=100)  # the last that came from the other side

    def ask(self, op: str, *args: Any) -> Any:
        """The result of an operation on the other side, or what it raised."""
        self.send({"op": op, "args": [self.encode(a) for a in args]})
        return self._taken(self._answer_to(op), "value")

    def call(self, function: RemoteObject, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Calls a function there; lists, dictionaries and sets that it changed are changed here."""
        self.send({"op": "call", "args": [self.encode(v) for v in (function, list(args), named)]})
        answer = self._answer_to("call")
        for index, changed in self._taken(answer, "changed"):
            _overwrite(args[index], changed)
        return self._taken(answer, "value")

    def _answer_to(self, op: str) -> dict[str, Any]:
        """An end of an iteration that nobody asked about is a fault, or it would end one of ours, and an `all` hold."""
        try:
            return self.receive()
        except (StopIteration, StopAsyncIteration) as error:
            if op == "next":
                raise
            raise self.fault(RemoteError(type(error).__name__)) from None

    def listen(self) -> None:
        """Serves the other side until it is gone."""
        while message := self._read():
            self._answer(message)

    def _taken(self, message: dict[str, Any], key: str) -> Any:
        """What a message holds; one that is none of ours is the other side's fault, as an exception of it is."""
        try:
            return self.decode(message[key])
        except Exception as error:
            raise self.fault(RemoteError(f"{type(error).__name__}: {error}")) from None

    def fault(self, error: BaseException) -> BaseException:
        """The exception, marked as one of the other side."""
        self.raised.append(error)
        return error

    def encode(self, value: Any) -> Any:
        return values.encode(value, self._hand_out)

    def decode(self, data: Any) -> Any:
        return values.decode(data, self._take)

    def _hand_out(self, value: Any) -> dict[str, Any]:
        if isinstance(value, RemoteObject):
            return {"yours": value._number}
        self._objects.append(value)
        return {"coroutine" if isinstance(value, CoroutineType) else "mine": len(self._objects) - 1}

    def _take(self, kind: str, number: Any) -> Any:
        if kind == "yours":
            return self._objects[number]
        if kind == "mine":
            return RemoteObject(self, int(number))
        if kind == "coroutine":
            return self._awaited(RemoteObject(self, int(number)))
        raise ValueError(f"unknown kind {kind!r}")

    async def _awaited(self, coroutine: RemoteObject) -> Any:
        return self.ask("run", coroutine)

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message."""
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
            message = json.loads(line) if line else {}
        except (OSError, ValueError, RecursionError) as error:
            raise self.fault(RemoteError(f"{type(error).__name__}: {error}")) from None
        return message if isinstance(message, dict) else {}

    def receive(self) -> dict[str, Any]:
        """The other side's answer to our last question; questions that it asks meanwhile are answered."""
        while message := self._read():
            if "op" not in message:
                if "error" in message:
                    raise self.fault(_exception(message["error"]))
                return message
            self._answer(message)
        raise self.fault(EOFError("the program is gone"))

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            args = [self.decode(a) for a in message["args"]]
            if message["op"] == "call":
                self.send(self._called(*args))
            else:
                self.send({"value": self.encode(self._ops[message["op"]](*args))})
        except Exception as error:  # whatever the program raises is raised again where the call was made
            plain = [a for a in error.args if isinstance(a, (str, int, float))]
            self.send({"error": [type(error).__name__, values.encode(plain)]})

    def _called(self, function: Any, args: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        """What a call returned, and the lists, dictionaries and sets among its arguments that it changed."""
        before = [self.encode(a) if isinstance(a, _MUTABLE) else None for a in args]
        value = self.encode(function(*args, **named))
        after = [self.encode(a) if isinstance(a, _MUTABLE) else None for a in args]
        return {"value": value, "changed": [[i, a] for i, a in enumerate(after) if a != before[i]]}


def _overwrite(old: Any, new: Any) -> None:
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif isinstance(old, (dict, set)):
        old.clear()
        old.update(new)


def _exception(told: Any) -> BaseException:
    try:
        name, args = str(told[0]), values.decode(told[1])
        kind = exceptions.get(name) or getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or kind is AssertionError:
            return RemoteError(f"{name}: {args}")
        return kind(*args)
    except Exception:  # UnicodeDecodeError and the like want more; other arguments are none of ours
        return RemoteError(str(told)[:200])


exceptions: dict[str, type[Exception]] = {}  # exceptions of the program, as classes on the side of the checks


# ---- the program's side ------------------------------------------------------------------------------------


def serve(conn: socket.socket, module: ModuleType, prelude: dict[str, Any]) -> None:
    """Tells the other side what the module defines beyond the prelude, and answers its calls until it is gone."""
    peer = Peer(conn, _PROGRAM_OPS)
    own = {n: v for n, v in vars(module).items() if not (n.startswith("__") or (n in prelude and v is prelude[n]))}
    peer.send({"value": [_describe(peer, name, value) for name, value in own.items()]})
    peer.listen()


def _describe(peer: Peer, name: str, value: Any) -> list[Any]:
    if isinstance(value, ModuleType):
        return ["module", name, value.__name__]
    if isinstance(value, type) and issubclass(value, Exception):
        base = next(b for b in value.__mro__ if b.__module__ == "builtins")
        return ["exception", name, base.__name__]
    if isinstance(value, FunctionType) and value.__module__ == "answer" and not name.startswith("_"):
        return ["function", name, peer.encode(value)]
    if isinstance(value, type) and name == "Solution":
        return ["class", name, peer.encode(value), [n for n, v in vars(value).items() if isinstance(v, FunctionType)]]
    home = getattr(value, "__module__", None)
    if isinstance(home, str) and home.lstrip("_") in KNOWN and getattr(value, "__qualname__", "") == name:
        return ["known", name, home.lstrip("_")]
    return ["value", name, peer.encode(value)]
