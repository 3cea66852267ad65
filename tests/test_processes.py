"""What processes share."""

import socket

import pytest

from ringrl.processes import free_port


def test_a_free_port_is_kept_for_whoever_asks_for_it_by_number() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):  # the check that the system makes itself
        other.bind(("", port))
    with socket.create_server(("", port)) as server:
        assert server.getsockname()[1] == port
