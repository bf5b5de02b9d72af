"""Addresses in words, the sockets that come of them, and TLS files that are not what they should be."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from tls_files import issue

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.address import (
    Abort,
    Address,
    Listener,
    TLSFiles,
    connect,
    is_same_socket,
    parse_address,
    tls_context,
)

# ---- Words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "again"),
    [
        ("unix:/run/x.sock", Address("unix", path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:x:1:2", Address("unix", path="x:1:2"), "unix:x:1:2"),
        ("unix:./@x", Address("unix", path="./@x"), "unix:./@x"),
        ("tcp:host:1", Address("tcp", host="host", port=1), "tcp:host:1"),
        ("tcp:a-b_c.example:1", Address("tcp", host="a-b_c.example", port=1), "tcp:a-b_c.example:1"),
        ("tcp:ä.example:1", Address("tcp", host="ä.example", port=1), "tcp:ä.example:1"),
        ("tcp:[fe80::1%lo]:5", Address("tcp", host="fe80::1%lo", port=5), "tcp:[fe80::1%lo]:5"),
        ("tcp:10.0.0.1:65535", Address("tcp", host="10.0.0.1", port=65535), "tcp:10.0.0.1:65535"),
        ("tls:host.example:4444", Address("tls", host="host.example", port=4444), "tls:host.example:4444"),
        ("tcp::80", Address("tcp", host="127.0.0.1", port=80), "tcp:127.0.0.1:80"),
        ("tls::80", Address("tls", host="127.0.0.1", port=80), "tls:127.0.0.1:80"),
        ("tcp:[::1]:80", Address("tcp", host="::1", port=80), "tcp:[::1]:80"),
        ("tcp:[::]:0080", Address("tcp", host="::", port=80), "tcp:[::]:80"),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address, again: str) -> None:
    assert parse_address(text) == address
    assert str(address) == again
    assert parse_address(again) == address


KINDS = "unix:PATH, tcp:HOST:PORT or tls:HOST:PORT"
PORT = "a port from 1 to 65535"
HOST = "the name or the number of a host"
BRACKETS = "an IPv6 number in brackets"
IN_BRACKETS = "the number of an IPv6 host in the brackets"


@pytest.mark.parametrize(
    ("expected", "texts"),
    [
        (KINDS, ["", "/run/x.sock", "tcp", "tcp:", "tcp:80", "tcp:host", "udp:host:80", "TCP:host:80", "fd:3"]),
        ("unix:PATH", ["unix", "unix:", "unix:a\0b"]),
        (PORT, [f"tcp:host:{port}" for port in ("", "-1", "+1", " 1", "1 ", "1\n", "1.5", "http", "0", "65536")]),
        (PORT, [f"tcp:host:{port}" for port in ("²", "٤", "1_0", "000080", "9" * 5000)]),
        (HOST, [f"tcp:{host}:80" for host in ("a..b", "ä..b", "h" * 64, " ", "a b", "user@h", "\x1b[2J", "h\n")]),
        (HOST, [f"tcp:{host}:80" for host in ("a/b", "[", "]", "[1.2.3.4", "1.2.3.4]")]),
        (BRACKETS, [f"tcp:{host}:80" for host in ("::1", "fe80::1", "[::1", "::1]", "a:b", ":")]),
        (IN_BRACKETS, [f"tcp:[{host}]:80" for host in ("", "host", "127.0.0.1", "[::1]", "::1 ", "1::2::3", "::1%")]),
        (IN_BRACKETS, [f"tcp:[{host}]:80" for host in ("::1%\x1b", "%lo", "::1\0", "ä")]),
        (r"unix:PATH \(for a file of that name unix:./@x\)", ["unix:@x"]),
    ],
)
def test_an_invalid_address_is_an_error_that_says_what_is_expected(expected: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(
            ValueError, match=f"^invalid address {re.escape(repr(text))}: .*expected {expected}"
        ) as caught:
            parse_address(text)
        assert str(caught.value).isprintable()


def test_abstract_sockets_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="abstract unix sockets have no owner and no mode, and are not supported"):
        parse_address("unix:@x")


def test_what_a_terminal_would_obey_is_escaped_in_messages(tmp_path: Path) -> None:
    address = parse_address(f"unix:{tmp_path}/\x1b[2J/\udcff\ns")
    assert str(address) == rf"unix:{tmp_path}/\x1b[2J/\udcff\ns"
    for use_it in (Listener, connect):
        with pytest.raises(MultiFDError, match=re.escape(str(address))):
            use_it(address)


@pytest.mark.parametrize(
    ("listen", "onward"),
    [
        ("tcp::9", "tcp::8"),
        ("tcp:127.0.0.1:9", "tcp:127.0.0.2:9"),
        ("tcp:0.0.0.0:9", "tcp:192.0.2.1:9"),  # RFC 5737: nobody's
        ("tcp:[::]:9", "tcp:127.0.0.1:9"),
        ("tcp:0.0.0.0:9", "tcp:no-such-host.invalid:9"),
        ("tcp:127.0.0.2:9", "tcp:0.0.0.0:9"),
        ("tcp:[::1]:9", "tcp:[::ffff:127.0.0.1]:9"),
        ("unix:/nowhere/a", "unix:/nowhere/b"),
        ("unix:/nowhere/a", "tcp::9"),
        ("tcp::9", "unix:/nowhere/a"),
    ],
)
def test_these_are_two_sockets(listen: str, onward: str) -> None:
    assert not is_same_socket(parse_address(listen), parse_address(onward))


# ---- Connecting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_connecting_to_a_listener_that_never_accepts_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.address.HANDSHAKE_SECONDS", 0.5)
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
    monkeypatch.setattr("numcodecs_qpl.multifd.address.HANDSHAKE_SECONDS", 0.5)
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
            connect(Address("tls", host="127.0.0.1", port=server.getsockname()[1]), files)
        assert 0.4 < time.monotonic() - began < 2
        thread.join()


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
    with pytest.raises(MultiFDError, match=r"cannot listen on unix:.*/s: Address already in use"):
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


def test_nobody_at_a_unix_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MultiFDError, match=r"cannot connect to unix:.*/s: No such file or directory"):
        connect(parse_address(f"unix:{tmp_path}/s"))


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
    with pytest.raises(MultiFDError, match=f"cannot listen on {first.address}: Address already in use"):
        Listener(first.address)
    first.close()


def test_nobody_at_a_port_is_an_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = Address("tcp", host="127.0.0.1", port=sock.getsockname()[1])
        with pytest.raises(MultiFDError, match=f"cannot connect to {address}: Connection refused"):
            connect(address)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_closing_wakes_whoever_waits_for_a_connection_and_may_be_done_twice(tmp_path: Path, kind: str) -> None:
    listener = Listener(Address(kind, path=f"{tmp_path}/s", host="127.0.0.1"))
    woken = threading.Event()

    def wait() -> None:
        try:
            listener.accept()
        except OSError:
            woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    listener.close()
    assert woken.wait(20)
    thread.join()
    listener.close()


def test_closing_again_leaves_the_socket_of_another_alone(tmp_path: Path) -> None:
    address = parse_address(f"unix:{tmp_path}/s")
    first = Listener(address)
    first.close()
    second = Listener(address)
    first.close()
    exchange(second)
    second.close()


# ---- TLS files --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> TLSFiles:
    return issue(tmp_path, trustme.CA())


def use(address: str, tls: TLSFiles | None, *, server: bool) -> None:
    if server:
        Listener(parse_address(address), tls).close()
    else:
        connect(parse_address(address), tls)


SIDES = pytest.mark.parametrize("server", [True, False], ids=["listening", "connecting"])
NAMES = {"cert": "here.pem and .*here.key", "key": "here.pem and .*here.key", "ca": "ca.pem"}


@SIDES
def test_tls_without_files_is_an_error(server: bool) -> None:
    with pytest.raises(MultiFDError, match=r"tls:127.0.0.1:1 needs a certificate, its key and an authority's"):
        use("tls::1", None, server=server)


@SIDES
@pytest.mark.parametrize("missing", NAMES)
def test_a_tls_file_that_is_missing_is_named(files: TLSFiles, server: bool, missing: str) -> None:
    getattr(files, missing).unlink()
    with pytest.raises(MultiFDError, match=f"TLS cannot use .*{NAMES[missing]}: No such file or directory"):
        use("tls::1", files, server=server)


@SIDES
@pytest.mark.parametrize("wrong", NAMES)
@pytest.mark.parametrize("content", ["", "junk\n"])
def test_a_tls_file_of_another_kind_is_named(files: TLSFiles, server: bool, wrong: str, content: str) -> None:
    getattr(files, wrong).write_text(content)
    with pytest.raises(MultiFDError, match=f"TLS cannot use .*{NAMES[wrong]}: .+"):
        use("tls::1", files, server=server)


@SIDES
def test_a_key_of_another_certificate_is_named(files: TLSFiles, server: bool) -> None:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(files.key)
    with pytest.raises(MultiFDError, match=r"TLS cannot use .*here.key: .*mismatch"):
        use("tls::1", files, server=server)


@SIDES
def test_a_key_with_a_passphrase_is_refused_without_asking(files: TLSFiles, server: bool) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(MultiFDError, match=f"TLS refuses the key {files.key}: it is encrypted with a passphrase"):
        use("tls::1", files, server=server)


@SIDES
@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o660, 0o666])
def test_a_key_that_others_can_read_or_change_is_refused_with_the_chmod_to_run(
    files: TLSFiles, server: bool, mode: int
) -> None:
    files.key.chmod(mode)
    with pytest.raises(MultiFDError, match=rf"\(mode {mode:04o}\); run `chmod 600 {files.key}`$") as caught:
        use("tls::1", files, server=server)
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert files.context(server=server)


@pytest.mark.parametrize("owner", [0, 1234])
def test_a_group_can_read_a_key_of_root_alone(files: TLSFiles, monkeypatch: pytest.MonkeyPatch, owner: int) -> None:
    files.key.chmod(0o640)
    status = files.key.stat()
    owned = os.stat_result((*status[:4], owner, *status[5:10]))
    monkeypatch.setattr(Path, "stat", lambda path: owned)
    if owner == 0:
        assert files.context(server=True)
    else:
        with pytest.raises(MultiFDError, match=r"mode 0640"):
            files.context(server=True)


@pytest.mark.parametrize("kind", ["unix:/nowhere/s", "tcp::1"])
def test_without_tls_the_files_are_not_looked_at(kind: str) -> None:
    none = TLSFiles(Path("/no"), Path("/no"), Path("/no"))
    assert tls_context(parse_address(kind), none, server=True) is None


class LenientContext(ssl.SSLContext):
    """What Python makes where it, or OpenSSL, is configured to allow old versions of TLS."""

    def __init__(self, protocol: int) -> None:
        self.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED


def test_the_context_asks_for_tls_1_2_and_certificates(files: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not in the module itself: ssl.SSLContext's own setters look for the class under this name.
    lenient = SimpleNamespace(**{**vars(ssl), "SSLContext": LenientContext})
    monkeypatch.setattr("numcodecs_qpl.multifd.address.ssl", lenient)
    for server in (True, False):
        context = files.context(server=server)
        assert context.verify_mode.name == "CERT_REQUIRED"
        assert context.minimum_version.name == "TLSv1_2"
        assert context.check_hostname == (not server)
    without_peer = TLSFiles(files.cert, files.key, files.ca, verify_peer=False)
    assert without_peer.context(server=True).verify_mode.name == "CERT_NONE"
    assert without_peer.context(server=False).verify_mode.name == "CERT_REQUIRED"


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
