"""Sockets that listen."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from commands import PATIENCE
from tls_files import issue

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.transport.address import Address, parse_address
from numcodecs_qpl.multifd.transport.connecting import connect
from numcodecs_qpl.multifd.transport.listener import Listener

# ---- Unix sockets -----------------------------------------------------------------------------------------------


def exchange(listener: Listener) -> None:
    """See that a byte goes from one who connects to the listener."""
    connection = connect(listener.address)
    with listener.accept() as accepted:
        connection.send([b"x"])
        assert accepted.recv(1) == b"x"
    connection.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_unix_socket_is_the_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "s"
    before = os.umask(umask)
    try:
        listener = Listener(parse_address(f"unix:{path}"))
    finally:
        left = os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left == umask
    exchange(listener)
    listener.close()
    assert not path.exists()


def test_a_socket_that_nobody_listens_on_any_more_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
    assert path.is_socket()
    listener = Listener(parse_address(f"unix:{path}"))
    exchange(listener)
    listener.close()


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    address = parse_address(f"unix:{tmp_path}/s")
    first = Listener(address)
    with pytest.raises(MultiFDError, match=r"cannot listen on unix:.*/s: Address already in use"):
        Listener(address)
    first.accept().close()  # the one that looked whether anybody listens
    exchange(first)
    first.close()


def test_a_socket_whose_listener_is_busy_is_left_alone(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(f"{tmp_path}/s")
        busy.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(f"{tmp_path}/s")  # the queue is full
        end = threading.Timer(5, busy.accept)  # of a connect that waits
        end.start()
        stack.callback(end.cancel)
        began = time.monotonic()
        with pytest.raises(MultiFDError, match=r"cannot listen on unix:.*/s: Address already in use"):
            Listener(parse_address(f"unix:{tmp_path}/s"))
        assert time.monotonic() - began < 2


def make_file(path: Path) -> None:
    path.write_text("precious")


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("target"))
    path.with_name("target").write_text("precious")


def make_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


@pytest.mark.parametrize("make", [make_file, make_link, make_link_to_nothing, Path.mkdir])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "s"
    make(path)
    before = path.lstat()
    with pytest.raises(MultiFDError, match=r"cannot listen on unix:.*/s: a file that is not a socket is there; give"):
        Listener(parse_address(f"unix:{path}"))
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert not path.is_file() or path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "reason"), [("no/folder/s", "No such file or directory"), ("s" * 108, "AF_UNIX path too long")]
)
def test_a_path_that_cannot_be_listened_on_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MultiFDError, match=f"cannot listen on unix:{path}: {reason}"):
        Listener(Address("unix", path=path))
    assert list(tmp_path.iterdir()) == []


# ---- TCP --------------------------------------------------------------------------------------------------------


def name_of(listener: Listener) -> tuple[str, int]:
    host, port, *_ = listener._socket.getsockname()
    return host, port


@pytest.mark.parametrize(
    ("text", "host"), [("tcp::9", "127.0.0.1"), ("tcp:127.0.0.2:9", "127.0.0.2"), ("tcp:0.0.0.0:9", "0.0.0.0")]
)
def test_tcp_is_loopback_unless_told_otherwise(text: str, host: str) -> None:
    listener = Listener(replace(parse_address(text), port=0))
    assert name_of(listener) == (host, listener.address.port)
    assert listener.address == Address("tcp", host=host, port=listener.address.port)
    assert listener.address.port > 0
    exchange(listener)
    listener.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_an_ipv6_number_is_listened_on() -> None:
    listener = Listener(Address("tcp", host="::1"))
    assert name_of(listener) == ("::1", listener.address.port)
    exchange(listener)
    listener.close()


def test_a_port_in_use_is_an_error() -> None:
    first = Listener(Address("tcp", host="127.0.0.1"))
    with pytest.raises(MultiFDError, match=f"cannot listen on {first.address}: Address already in use$"):
        Listener(first.address)
    first.close()


@contextlib.contextmanager
def waiting(listener: Listener) -> Iterator[Future[socket.socket]]:
    """A thread that waits for a connection."""
    with ThreadPoolExecutor() as threads:
        accepting = threads.submit(listener.accept, PATIENCE)
        time.sleep(0.1)  # so that it does wait, and has not only begun
        yield accepting


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_closing_wakes_whoever_waits_for_a_connection_and_may_be_done_twice(tmp_path: Path, kind: str) -> None:
    listener = Listener(Address(kind, path=f"{tmp_path}/s", host="127.0.0.1"))
    with waiting(listener) as accepting:
        listener.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            accepting.result()
    listener.close()


def test_closing_again_leaves_the_socket_of_another_alone(tmp_path: Path) -> None:
    address = parse_address(f"unix:{tmp_path}/s")
    first = Listener(address)
    first.close()
    second = Listener(address)
    first.close()
    exchange(second)
    second.close()


# ---- Sockets that were passed -----------------------------------------------------------------------------------


@contextlib.contextmanager
def passed(family: socket.AddressFamily, where: Any) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that listens, as the service manager has it and as it is passed."""
    with socket.socket(family) as managers:
        managers.bind(where)
        managers.listen()
        with managers.dup() as ours:
            yield managers, ours


def test_a_unix_socket_that_was_passed_is_listened_on_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with passed(socket.AF_UNIX, str(path)) as (managers, ours):
        listener = Listener(ours)
        assert listener.address == Address("unix", path=str(path))
        exchange(listener)
        listener.close()
        assert path.is_socket()
        assert managers.getsockname() == str(path)


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        pytest.param(socket.AF_INET6, "::1", marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")),
    ],
)
def test_a_tcp_socket_that_was_passed_is_listened_on(family: socket.AddressFamily, host: str) -> None:
    with passed(family, (host, 0)) as (managers, ours):
        listener = Listener(ours)
        assert listener.address == Address("tcp", host=host, port=managers.getsockname()[1])
        exchange(listener)
        listener.close()


def test_a_tcp_socket_that_was_passed_is_of_tls_if_there_are_files(tmp_path: Path) -> None:
    files = issue(tmp_path, trustme.CA())
    with passed(socket.AF_INET, ("127.0.0.1", 0)) as (_, ours):
        listener = Listener(ours, files)
        assert listener.address.kind == "tls"
        with ThreadPoolExecutor() as threads:
            connecting = threads.submit(connect, listener.address, files.context(server=False))
            accepted = listener.greet(listener.accept(), "the source")
            connecting.result().close()
            accepted.close()
        listener.close()


@pytest.mark.parametrize(("family", "where"), [(socket.AF_UNIX, "s"), (socket.AF_INET, ("127.0.0.1", 0))])
def test_closing_leaves_the_service_managers_socket_listening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, where: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with passed(family, where) as (managers, ours):
        first = Listener(ours)
        with waiting(first) as accepting:
            first.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                accepting.result()
        second = Listener(managers.dup())  # as the service is started again
        exchange(second)
        second.close()


def not_listening() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("s")
    return sock


def connected() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def packets() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind("s")
    sock.listen()
    return sock


def netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


@pytest.mark.parametrize(
    "make", [not_listening, connected, packets, netlink, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
)
def test_a_socket_of_another_kind_is_an_error_that_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], socket.socket]
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        make() as sock,
        pytest.raises(MultiFDError, match=r"expected a unix or TCP socket that listens .*ListenStream="),
    ):
        Listener(sock)


@pytest.mark.parametrize("name", ["\0numcodecs-qpl-test", ""])
def test_an_abstract_socket_that_was_passed_is_refused(name: str) -> None:
    with (
        passed(socket.AF_UNIX, name) as (_, ours),
        pytest.raises(MultiFDError, match="abstract unix sockets have no owner and no mode"),
    ):
        Listener(ours)


# ---- Accepting --------------------------------------------------------------------------------------------------


def test_accepting_ends_after_its_time_out_and_connections_have_none(tmp_path: Path) -> None:
    with contextlib.closing(Listener(Address("unix", path=f"{tmp_path}/s"))) as listener:
        with pytest.raises(TimeoutError):
            listener.accept(0.01)
        with contextlib.closing(connect(listener.address)), listener.accept(5) as accepted:
            assert accepted.gettimeout() is None
            assert os.get_blocking(accepted.fileno())


def test_accepting_goes_on_where_a_connection_was_taken_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with passed(socket.AF_UNIX, "s") as (managers, ours), contextlib.closing(Listener(ours)) as listener:
        real = select.poll

        class Late:
            """A poll that another process is faster than, the first time."""

            def __init__(self) -> None:
                self.poll_ = real()
                self.register = self.poll_.register

            def poll(self, timeout: float | None) -> object:
                found = self.poll_.poll(timeout)
                taken.append(managers.accept()[0]) if not taken else None
                return found

        taken: list[socket.socket] = []
        monkeypatch.setattr("numcodecs_qpl.multifd.transport.listener.select.poll", Late)
        with contextlib.closing(connect(listener.address)), pytest.raises(TimeoutError):
            listener.accept(0.1)
        taken[0].close()


def test_accepting_after_closing_is_an_error() -> None:
    listener = Listener(Address("tcp", host="127.0.0.1"))
    listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        listener.accept()


def test_a_listener_that_is_gone_leaves_no_file_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        Listener(Address("unix", path=f"{tmp_path}/s")).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
