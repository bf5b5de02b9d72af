"""Addresses as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.transport.address import Address, is_same_socket, parse_address
from numcodecs_qpl.multifd.transport.connecting import connect
from numcodecs_qpl.multifd.transport.listener import Listener


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
HOST = "a host name or an IP address"
BRACKETS = "an IPv6 address in brackets"
IN_BRACKETS = "an IPv6 address in the brackets"


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
