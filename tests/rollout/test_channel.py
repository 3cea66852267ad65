"""The line to a worker, with the strangers who find its port: none of them is more than one lost connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from ringrl.errors import UserError
from ringrl.rollout import channel as module
from ringrl.rollout.channel import MAC, MAGIC, STRANGERS, Channel, Listener, bound, connect, ready

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


class Worker:
    """A listener that answers the lines of its controller with what it was sent, until it has heard `None`."""

    def __init__(self, key: bytes = KEY, host: str = "127.0.0.1") -> None:
        sock = bound(host, 0)
        self.place = sock.getsockname()[:2]
        self.address = "[{}]:{}".format(*self.place) if ":" in host else "{}:{}".format(*self.place)
        self.listener = Listener(sock, key, 2)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        lines = self.listener.accept()
        with suppress(EOFError, OSError):  # the test has ended
            while True:
                for line in ready(lines):
                    if (value := line.receive()) is None:
                        return
                    line.send(value)

    def stranger(self) -> socket.socket:
        return socket.create_connection(self.place)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """(ours, theirs), without a handshake."""
    a, b = (Channel(s, k, o) for s, k, o in zip(tcp_pair(), (KEY, OTHER), (OTHER, KEY), strict=True))
    yield a, b
    a.close()
    b.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return type(left) is type(right) and left == right


VALUES = [
    ["generate", 3, -1.5, True, None, "naïve 日本 \ud800"],
    {"$array": 0, "$$": [{"$array": np.arange(3)}], "": {}},
    [np.array([], np.int32), np.zeros((2, 0, 3)), np.array(7, np.uint8), np.array([True, False, True])],
    np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(2, 0, 1),
    [np.arange(5, dtype=np.uint8), np.array([1.5, np.nan, -np.inf])[::2], np.arange(2, dtype=">i8")],
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_sent_arrives(value: Any, pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    for _ in range(2):
        ours.send(value)
        arrived = theirs.receive(60)
        if "nan" in repr(value):
            assert repr(arrived) == repr(value)
        else:
            assert same(arrived, value)


def test_a_large_message_is_cut_and_put_together(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    value = np.random.default_rng(0).integers(0, 1 << 30, 3_000_001, np.int32)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(ours.send, [value], 60)
        assert np.array_equal(theirs.receive(60)[0], value)
        sent.result()


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array(["a"]), np.array([object()]), b"raw"])
def test_what_is_neither_json_nor_numbers_is_not_sent(value: Any, pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(TypeError, match="expected"):
        pair[0].send([value])


def recorded(*values: Any) -> bytes:
    """The bytes of these messages, as our side of the pair writes them."""
    ours, theirs = tcp_pair()
    channel = Channel(ours, KEY, OTHER)
    for value in values:
        channel.send(value)
    channel.close()
    with theirs:
        return b"".join(iter(lambda: theirs.recv(1 << 16), b""))


def test_no_byte_of_a_message_can_be_changed(pair: tuple[Channel, Channel]) -> None:
    """By whoever sits between the two; and nothing is parsed, or allocated for a length, that was."""
    whole = recorded(["part", np.arange(4)])
    for place in range(len(whole)):
        ours, theirs = tcp_pair()
        with ours, theirs:
            ours.sendall(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(ConnectionError, match="was not written by the process at the other end"):
                Channel(theirs, OTHER, KEY).receive(60)


def test_messages_cannot_be_repeated_reordered_left_out_or_sent_back(pair: tuple[Channel, Channel]) -> None:
    size = len(recorded("a"))
    both = recorded("a", "b")
    for good, forged in ((1, both[:size] * 2), (0, both[size:]), (1, both[:size] + recorded("b", "b", "c")[-size:])):
        ours, theirs = tcp_pair()
        with ours, theirs:
            ours.sendall(forged)
            reader = Channel(theirs, OTHER, KEY)
            assert [reader.receive(60) for _ in range(good)] == ["a"] * good
            with pytest.raises(ConnectionError, match="was not written"):
                reader.receive(60)
    pair[0].send("mine")
    pair[0].sock, pair[1].sock = pair[1].sock, pair[0].sock  # our own message comes back to us
    with pytest.raises(ConnectionError, match="was not written"):
        pair[0].receive(60)


def test_half_a_message_is_waited_for_no_longer_than_is_said(pair: tuple[Channel, Channel]) -> None:
    whole = recorded(["a"])
    pair[0].sock.sendall(whole[:-1])
    with pytest.raises(TimeoutError):
        pair[1].receive(0.1)
    pair[0].hang_up()
    with pytest.raises(EOFError):
        pair[1].receive(60)


def silent(worker: Worker) -> socket.socket:
    return worker.stranger()


def http(worker: Worker) -> socket.socket:
    sock = worker.stranger()
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return sock


def gone(worker: Worker) -> socket.socket:
    sock = worker.stranger()
    sock.close()
    return sock


def guess(worker: Worker) -> socket.socket:
    sock = worker.stranger()
    sock.sendall(bytes(1000))
    return sock


def half(worker: Worker) -> socket.socket:
    sock = worker.stranger()
    sock.sendall(bytes(40))
    return sock


def pickled(worker: Worker) -> socket.socket:
    """What multiprocessing.connection would have taken for a message."""
    sock = worker.stranger()
    sock.sendall(b"\0\0\0\x20cbuiltins\nexit\n(I1\ntR.")
    return sock


def wrong_key(worker: Worker) -> socket.socket:
    with pytest.raises(UserError, match=r"has another key, expected the same rollout\.key_file on both sides"):
        connect(worker.address, OTHER, 2)
    return worker.stranger()


def one_line_only(worker: Worker) -> socket.socket:
    return connect(worker.address, KEY, 1)[0].sock


STRANGE = [silent, http, gone, guess, half, pickled, wrong_key, one_line_only]


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_peer_costs_only_its_own_connection(strange: Callable[[Worker], socket.socket]) -> None:
    worker = Worker()
    peers = [strange(worker) for _ in range(3)]
    lines = connect(worker.address, KEY, 2, 60)
    for i, line in enumerate(lines):
        line.send(["hello", i], 60)
        assert line.receive(60) == ["hello", i]
    lines[0].send(None)
    worker.thread.join(60)
    assert not worker.thread.is_alive()
    for sock in [*peers, *(line.sock for line in lines)]:
        sock.close()


def test_more_strangers_than_are_kept_waiting() -> None:
    worker = Worker()
    crowd = [worker.stranger() for _ in range(STRANGERS + 20)]
    lines = connect(worker.address, KEY, 2, 60)
    lines[1].send("through")
    assert lines[1].receive(60) == "through"
    crowd[0].settimeout(60)
    greeting = crowd[0].recv(1000)
    assert greeting.startswith(MAGIC)
    assert crowd[0].recv(1) == b""  # the oldest was let go
    for sock in [*crowd, *(line.sock for line in lines)]:
        sock.close()


def test_a_stranger_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.1)
    worker = Worker()
    with worker.stranger() as sock:
        sock.settimeout(60)
        assert len(sock.recv(1000)) == len(MAGIC) + 32
        assert sock.recv(1) == b""


def test_nobody_is_listened_to_once_the_controller_is_there() -> None:
    worker = Worker()
    lines = connect(worker.address, KEY, 2, 60)
    lines[0].send("there?")
    assert lines[0].receive(60) == "there?"
    with pytest.raises((OSError, EOFError)):
        connect(worker.address, KEY, 2, 60)
    for line in lines:
        line.close()


def test_a_listener_without_the_key_is_not_believed() -> None:
    """Not one that repeats what a worker with the key once said, either."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def impostor() -> None:
            for answer in (b"\1" + bytes(MAC), b"\1" + bytes(range(MAC))):
                sock = server.accept()[0]
                sock.sendall(MAGIC + bytes(32))
                said.append(sock.recv(1000))
                sock.sendall(answer)
                sock.close()

        threading.Thread(target=impostor, daemon=True).start()
        address = "{}:{}".format(*server.getsockname())
        for _ in range(2):
            with pytest.raises((ConnectionError, EOFError)):
                connect(address, KEY, 2, 60)
    assert KEY not in said[0]
    assert said[0] != said[1]


def test_a_proof_cannot_be_used_twice() -> None:
    """A man in the middle who has heard a whole handshake repeats the controller's half to another worker."""
    first, second = Worker(), Worker()
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def between() -> None:
            caller, worker = server.accept()[0], first.stranger()
            caller.sendall(worker.recv(1000))
            heard.append(caller.recv(1000))
            worker.sendall(heard[0])
            caller.sendall(worker.recv(1000))

        threading.Thread(target=between, daemon=True).start()
        connect("{}:{}".format(*server.getsockname()), KEY, 1, 60)
    for worker in (first, second):
        with worker.stranger() as sock:
            sock.settimeout(60)
            sock.recv(1000)
            sock.sendall(heard[0])
            assert sock.recv(1000) == bytes(1 + MAC)  # refused


def test_a_worker_listens_where_it_is_told() -> None:
    assert Worker().place[0] == "127.0.0.1"
    with pytest.raises(UserError, match=r"cannot listen at 192\.0\.2\.1:0: .*expected an address of this machine"):
        bound("192.0.2.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=r"in use; expected an address of this machine and a free port"):
            bound("127.0.0.1", port)
    with bound("localhost", 0) as unheard, pytest.raises(ConnectionRefusedError):  # until it listens
        socket.create_connection(unheard.getsockname()[:2])


@pytest.mark.parametrize("address", ["", "host", "host:", "127.0.0.1:port"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ConnectionError, match=f"got '{address}', expected host:port"):
        connect(address, KEY, 2)


def test_another_family_of_addresses() -> None:
    try:
        worker = Worker(host="::1")
    except UserError:
        pytest.skip("no IPv6 here")
    lines = connect(worker.address, KEY, 2, 60)
    lines[0].send("six")
    assert lines[0].receive(60) == "six"
    assert lines[0].here == "::1"
    for line in lines:
        line.close()
