"""Connecting to an end point, and how it fails."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
import trustme
from tls_files import issue

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.transport.address import Address, parse_address
from numcodecs_qpl.multifd.transport.connecting import Abort, connect
from numcodecs_qpl.multifd.transport.listener import Listener
from numcodecs_qpl.multifd.transport.tlsfiles import TLSFiles


@pytest.fixture
def files(tmp_path: Path) -> TLSFiles:
    return issue(tmp_path, trustme.CA())


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_connecting_to_a_listener_that_never_accepts_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.transport.connecting.HANDSHAKE_SECONDS", 0.5)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family))
        server.bind(f"{tmp_path}/s" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(family))
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        text = f"unix:{tmp_path}/s" if family == socket.AF_UNIX else f"tcp::{server.getsockname()[1]}"
        with pytest.raises(MultiFDError, match=r"^cannot connect to .*: it has not accepted for 0\.5 s$"):
            connect(parse_address(text))


def test_a_tls_handshake_that_goes_on_for_ever_has_a_deadline(files: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.transport.connecting.HANDSHAKE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with server.accept()[0] as sock, contextlib.suppress(OSError):
                for byte in b"\x16\x03\x03\x3f\xff\x02" + bytes(40):  # a record that has room for many more
                    sock.sendall(bytes([byte]))
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(MultiFDError, match=r"^cannot connect to tls:.*: timed out$"):
            connect(Address("tls", host="127.0.0.1", port=server.getsockname()[1]), files.context(server=False))
        assert 0.4 < time.monotonic() - began < 2
        thread.join()


def test_nobody_at_a_unix_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MultiFDError, match=r"cannot connect to unix:.*/s: No such file or directory"):
        connect(parse_address(f"unix:{tmp_path}/s"))


def test_nobody_at_a_port_is_an_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = Address("tcp", host="127.0.0.1", port=sock.getsockname()[1])
        with pytest.raises(MultiFDError, match=f"cannot connect to {address}: Connection refused"):
            connect(address)


def test_an_abort_does_not_concern_a_connection_that_was_made_before(tmp_path: Path) -> None:
    listener = Listener(Address("unix", str(tmp_path / "s")))
    abort = Abort()
    with contextlib.closing(listener), contextlib.closing(connect(listener.address, abort=abort)) as connection:
        with listener.accept(5) as accepted:
            abort()
            connection.send([b"more"])
            assert accepted.recv(10) == b"more"
        with pytest.raises(MultiFDError, match="connecting was aborted"):
            connect(listener.address, abort=abort)


def test_a_tls_address_is_not_connected_to_without_tls() -> None:
    with pytest.raises(ValueError, match=r"tls:127\.0\.0\.1:1: a TLS context is for addresses of the kind tls"):
        connect(parse_address("tls::1"))
