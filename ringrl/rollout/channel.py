"""Messages between a controller and its vLLM workers, over a network that others use too.

Both sides have a key that nobody else has. Whoever connects and whoever is called prove it to each other, and every
message carries a MAC, so nobody between them can make one up, change, repeat or reorder one. Nothing is encrypted: what
travels are tokens and log-probs. HMAC from the standard library and not TLS, since a shared secret needs no
certificates, and since ssl offers pre-shared keys only from Python 3.13 on.

    worker      MAGIC, nonce                                 each side draws its nonce anew, so old proofs are worthless
    controller  nonce, session, line, HMAC(key, "controller" + all of the above)
    worker      1, HMAC(key, "worker" + all of the above)    or 0 and zeros: another key
    then, in each direction, with a key derived from all of the above:
    lengths of text and arrays, MAC(number, lengths)         before anything is allocated
    text, arrays, MAC(number, text, arrays)                  before anything is parsed

The text is JSON, [dtype and shape of every array, value], see `ringrl.data.arrays`; arrays follow as raw buffers and
are read in place. Nothing is ever unpickled.
"""

from __future__ import annotations

import hmac
import json
import secrets
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import numpy as np

from ringrl.data.arrays import ALIGNED, aligned, join, split, views
from ringrl.errors import UserError

Bytes = bytes | bytearray | memoryview
MAGIC = b"ringrl/2"
MAC = 32  # bytes of an HMAC-SHA256
HELLO = struct.Struct("32s 16s B")  # nonce, session, line
LENGTHS = struct.Struct("> Q Q")
HANDSHAKE_S = 10.0  # deadline of a handshake, whatever the other side does
STRANGERS = 64  # most connections that have not shown the key yet; one more, and the oldest is closed


class Channel:
    """One authenticated connection. Used by one thread at a time; any may call `hang_up`."""

    def __init__(self, sock: socket.socket, own_key: bytes, other_key: bytes) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.own_key, self.other_key = sock, own_key, other_key
        self.sent = self.received = 0  # messages

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def here(self) -> str:
        """This machine's address, as the other side sees it."""
        return str(self.sock.getsockname()[0])

    def send(self, value: Any, timeout_s: float | None = None) -> None:
        """Raises OSError if the other side is gone, or has not taken it in time."""
        arrays: list[np.ndarray] = []
        tree = split(value, arrays)
        kinds, buffers = aligned(arrays)
        text = json.dumps([kinds, tree], separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNED)
        body: list[Bytes] = [text, *buffers]
        lengths = LENGTHS.pack(len(text), sum(len(part) for part in body[1:]))
        end = _end(timeout_s)
        _send(self.sock, lengths + _mac(self.own_key, b"lengths", self.sent, lengths), end)
        for part in body:
            _send(self.sock, part, end)
        _send(self.sock, _mac(self.own_key, b"body", self.sent, *body), end)
        self.sent += 1

    def receive(self, timeout_s: float | None = None) -> Any:
        """The next message; arrays in it are views of one buffer.

        Raises:
            EOFError: the other side has hung up.
            OSError: it is late (TimeoutError), or somebody else wrote (ConnectionError).
        """
        end = _end(timeout_s)
        lengths = _receive(self.sock, LENGTHS.size, end)
        self._check(b"lengths", _receive(self.sock, MAC, end), lengths)
        text_size, arrays_size = LENGTHS.unpack(lengths)
        body = _receive(self.sock, text_size + arrays_size, end)
        self._check(b"body", _receive(self.sock, MAC, end), body)
        self.received += 1
        kinds, tree = json.loads(bytes(body[:text_size]))
        return join(tree, views(kinds, body, text_size))

    def hang_up(self) -> None:
        """The other side, and whoever waits for it here, sees the end."""
        with suppress(OSError):  # the other side was faster
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.sock.close()

    def _check(self, part: bytes, mac: Bytes, content: Bytes) -> None:
        if not hmac.compare_digest(_mac(self.other_key, part, self.received, content), mac):
            raise ConnectionError("a message was not written by the process at the other end")


def ready(channels: Iterable[Channel], timeout_s: float | None = None) -> list[Channel]:
    """Those with something to receive, be it the end, as soon as there is one; or none after the timeout."""
    by_number, poll = {c.fileno(): c for c in channels}, select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[n] for n, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]


class Listener:
    """Where a worker waits for its controller. Everybody else costs one connection for at most HANDSHAKE_S."""

    def __init__(self, sock: socket.socket, key: bytes, lines: int) -> None:
        self.sock, self.key, self.lines = sock, key, lines
        self.strangers: deque[socket.socket] = deque()
        self.known: SimpleQueue[tuple[bytes, int, Channel]] = SimpleQueue()
        self.ended = False
        sock.listen(STRANGERS)
        threading.Thread(target=self._listen, daemon=True).start()

    def accept(self) -> list[Channel]:
        """The lines of the first controller that has the key and opens all of them; nobody is listened to after it."""
        sessions: dict[bytes, dict[int, Channel]] = {}
        while True:
            session, line, channel = self.known.get()
            opened = sessions.setdefault(session, {})
            opened[line] = channel
            if len(opened) == self.lines:
                break
        self.ended = True
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # ends `_listen`
        for others in sessions.values():
            if others is not opened:
                for channel in others.values():
                    channel.close()
        return [opened[i] for i in range(self.lines)]

    def _listen(self) -> None:
        while not self.ended:
            try:
                stranger = self.sock.accept()[0]
            except OSError:  # it was closed; or it lasts a moment, as when there are too many open files
                time.sleep(0.01)
                continue
            self.strangers.append(stranger)
            if len(self.strangers) > STRANGERS:
                with suppress(OSError):
                    self.strangers.popleft().shutdown(socket.SHUT_RDWR)
            threading.Thread(target=self._meet, args=(stranger,), daemon=True).start()
        self.sock.close()

    def _meet(self, stranger: socket.socket) -> None:
        try:
            session, line, channel = _called(stranger, self.key, time.monotonic() + HANDSHAKE_S)
            if line >= self.lines:
                raise ConnectionError(f"got line {line}, expected one below {self.lines}")
        except (EOFError, OSError):
            stranger.close()
        else:
            if self.ended:
                channel.close()
            self.known.put((session, line, channel))
        with suppress(ValueError):  # it was the oldest of too many
            self.strangers.remove(stranger)


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to an address of this machine, which refuses whoever connects until it listens.

    Raises:
        UserError: there is no such address here, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as e:
        raise UserError(f"cannot listen at {host}:{port}: {e.strerror or e}; expected an address of this machine and a "
                        f"free port") from None  # fmt: skip
    return sock


def connect(address: str, key: bytes, lines: int, timeout_s: float = HANDSHAKE_S) -> list[Channel]:
    """All lines to the worker at "host:port".

    Raises:
        EOFError, OSError: nobody is there yet, or somebody else.
        UserError: a worker with another key.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ConnectionError(f"got {address!r}, expected host:port")
    session, channels = secrets.token_bytes(16), []
    try:
        for line in range(lines):
            sock = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
            channels.append(_caller(sock, key, session, line, time.monotonic() + timeout_s))
    except BaseException:
        for channel in channels:
            channel.close()
        raise
    return channels


def _caller(sock: socket.socket, key: bytes, session: bytes, line: int, end: float) -> Channel:
    try:
        greeting = _receive(sock, len(MAGIC) + 32, end)
        if not greeting.startswith(MAGIC):
            raise ConnectionError("something else than a worker of this version answers there")
        hello = HELLO.pack(secrets.token_bytes(32), session, line)
        said = bytes(greeting) + hello
        proof = _mac(key, b"controller", 0, said)
        _send(sock, hello + proof, end)
        answer = _receive(sock, 1 + MAC, end)
        if not answer[0]:
            raise UserError("the worker there has another key, expected the same rollout.key_file on both sides")
        if not hmac.compare_digest(_mac(key, b"worker", 0, said + proof), answer[1:]):
            raise ConnectionError("who answers there does not have the key")
    except BaseException:
        sock.close()
        raise
    return Channel(sock, _mac(key, b"from controller", 0, said), _mac(key, b"from worker", 0, said))


def _called(sock: socket.socket, key: bytes, end: float) -> tuple[bytes, int, Channel]:
    """(session, line, channel). Raises EOFError or OSError for a peer without the key."""
    greeting = MAGIC + secrets.token_bytes(32)
    _send(sock, greeting, end)
    hello, proof = bytes(_receive(sock, HELLO.size, end)), _receive(sock, MAC, end)
    said = greeting + hello
    if not hmac.compare_digest(_mac(key, b"controller", 0, said), proof):
        _send(sock, bytes(1 + MAC), end)
        raise ConnectionError("a peer with another key")
    _send(sock, b"\1" + _mac(key, b"worker", 0, said + proof), end)
    _, session, line = HELLO.unpack(hello)
    return session, line, Channel(sock, _mac(key, b"from worker", 0, said), _mac(key, b"from controller", 0, said))


def _mac(key: bytes, part: bytes, number: int, *content: Bytes) -> bytes:
    mac = hmac.new(key, struct.pack("> B", len(part)) + part + struct.pack("> Q", number), "sha256")
    for piece in content:
        mac.update(piece)
    return mac.digest()


def _end(timeout_s: float | None) -> float:
    return float("inf") if timeout_s is None else time.monotonic() + timeout_s


def _wait(sock: socket.socket, end: float) -> None:
    """Lets the next call on the socket take until `end`. Raises TimeoutError when that has passed."""
    if end == float("inf"):
        sock.settimeout(None)
        return
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("the other side is late")
    sock.settimeout(left)


def _send(sock: socket.socket, data: Bytes, end: float) -> None:
    _wait(sock, end)
    sock.sendall(data)  # its timeout is for all of it


def _receive(sock: socket.socket, size: int, end: float) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        _wait(sock, end)
        count = sock.recv_into(view)
        if not count:
            raise EOFError("the other side has hung up")
        view = view[count:]
    return data
