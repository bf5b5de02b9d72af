"""Sockets that systemd passes, and messages to it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from commands import PATIENCE, is_listening, wait_until
from programs import environment, give_up, missing

from numcodecs_qpl.cli.systemd import listen_sockets, notify, notify_reloading
from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.transport.address import parse_address
from numcodecs_qpl.multifd.transport.connecting import connect

# ---- Sockets ----------------------------------------------------------------------------------------------------

TAKE = """
import os, sys
from numcodecs_qpl.cli.systemd import listen_sockets
from numcodecs_qpl.multifd import MultiFDError
for number, fd in enumerate(map(int, sys.argv[1:]), 3):
    os.dup2(fd, number)  # which a child would inherit
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    for name, sock in listen_sockets():
        assert not sock.get_inheritable()
        print(name, sock.detach(), sock.family.name)
except MultiFDError as error:
    print("error:", error)
assert not [name for name in os.environ if name.startswith("LISTEN")]
assert listen_sockets() == []
"""


def take(*files: socket.socket | IO[bytes], **variables: str) -> list[str]:
    """Have a process take the `files`, from number 3 on; return what it has got."""
    fds = [fcntl.fcntl(file, fcntl.F_DUPFD, 20) for file in files]
    try:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", TAKE, *map(str, fds)],
            env=environment(**variables),
            pass_fds=fds,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout.splitlines()
    finally:
        for fd in fds:
            os.close(fd)


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str | None) -> None:
    """Set those of these variables of this process that are not None; at the end they are as they were."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
        if (value := variables.get(name)) is not None:
            monkeypatch.setenv(name, value)


@pytest.fixture
def two() -> Iterator[list[socket.socket]]:
    """A unix and a TCP socket."""
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        yield [unix, tcp]


def test_sockets_are_taken_with_their_names(two: list[socket.socket]) -> None:
    assert take(*two, LISTEN_FDS="2", LISTEN_FDNAMES="out:in") == ["out 3 AF_UNIX", "in 4 AF_INET"]


def test_sockets_without_names_are_unknown(two: list[socket.socket]) -> None:
    assert take(*two, LISTEN_FDS="1") == ["unknown 3 AF_UNIX"]


@pytest.mark.parametrize("pid", [None, "1", ""])
def test_sockets_of_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch, pid: str | None) -> None:
    set_variables(monkeypatch, LISTEN_PID=pid, LISTEN_FDS="2", LISTEN_FDNAMES="out:in")
    assert listen_sockets() == []


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS is 'x'; expected the number of sockets that were passed"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS is '-1'; expected the number of sockets that were passed"),
        (
            {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"},
            "LISTEN_FDNAMES is 'a:b'; expected 1 names, as LISTEN_FDS is 1",
        ),
    ],
)
def test_variables_that_are_not_right_are_an_error(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], error: str
) -> None:
    set_variables(monkeypatch, LISTEN_PID=str(os.getpid()), **variables)
    with pytest.raises(MultiFDError, match=f"^{re.escape(error)}$"):
        listen_sockets()
    assert not [name for name in os.environ if name.startswith("LISTEN")]


def test_a_file_that_was_not_passed_is_an_error() -> None:
    assert take(LISTEN_FDS="1", LISTEN_FDNAMES="gone") == [
        "error: file 3 ('gone'), which was passed as a socket, cannot be used: Bad file descriptor"
    ]


def test_a_file_that_is_not_a_socket_is_an_error() -> None:
    with Path("/dev/null").open("rb") as null:
        assert take(null, LISTEN_FDS="1", LISTEN_FDNAMES="fifo") == [
            "error: file 3 ('fifo'), which was passed as a socket, cannot be used: Socket operation on non-socket"
        ]


SERVE = """
from numcodecs_qpl.cli.systemd import listen_sockets
from numcodecs_qpl.multifd.transport.listener import Listener
[(name, sock)] = listen_sockets()
listener = Listener(sock)
with listener.accept() as accepted:
    accepted.sendall(f"{name} {listener.address}".encode())
listener.close()
"""


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_socket_that_systemd_activates_is_listened_on(folder: Path, kind: str) -> None:
    if reason := missing("systemd-socket-activate"):
        give_up(reason)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"{folder}/s" if kind == "unix" else f"127.0.0.1:{port}"
    address = parse_address(f"{kind}:{where}")
    # It clears the environment, with PYTHONSAFEPATH: "-P" is the same.
    command = ["systemd-socket-activate", f"--listen={where}", "--fdname=in", sys.executable, "-P", "-c", SERVE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: is_listening(str(address)), "systemd-socket-activate to listen")
            with contextlib.closing(connect(address)) as connection:
                answer = b"".join(map(bytes, connection.pieces(1000)))
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert answer.decode() == f"in {address}", errors
    assert process.returncode == 0, errors
    assert kind == "tcp" or Path(where).is_socket()


# ---- Messages ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the addresses that systemd listens at."""
    name = f"{folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "path" else f"\0{name}")
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else f"@{name}")
        yield sock


def test_a_state_is_one_message_of_assignments(manager: socket.socket) -> None:
    assert notify(READY=1, STATUS="no migration")
    assert manager.recv(1000) == b"READY=1\nSTATUS=no migration"
    assert notify(STOPPING=1)
    assert manager.recv(1000) == b"STOPPING=1"


def test_a_text_cannot_add_assignments(manager: socket.socket) -> None:
    assert notify(STATUS="a\nREADY=1\r\nb")
    assert manager.recv(1000) == b"STATUS=a READY=1 b"


def test_reloading_is_told_with_the_time(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notify_reloading()
    first, _, second = manager.recv(1000).decode().partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(second) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("where", [None, ""])
def test_without_systemd_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str | None
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if where is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
    assert not notify(READY=1)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("/nowhere/notify", "No such file or directory"),
        ("@numcodecs-qpl-nobody", "Connection refused"),
        ("x" * 200, "AF_UNIX path too long"),
    ],
)
def test_a_service_goes_on_if_systemd_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str, reason: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    assert not notify(READY=1)
    assert caplog.record_tuples == [
        (
            "numcodecs_qpl.cli.systemd",
            logging.WARNING,
            f"cannot tell systemd the state, at NOTIFY_SOCKET={where}: {reason}",
        )
    ]
