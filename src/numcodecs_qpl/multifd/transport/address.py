"""Addresses of end points."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535
ANY_IPV4 = "0.0.0.0"  # noqa: S104, as it is compared and not bound


@dataclass(frozen=True)
class Address:
    """An end point.

    Attributes
    ----------
    kind : {"unix", "tcp", "tls"}
        "tls" is TLS over TCP.
    path : str
        Path of the unix socket.
    host : str
        A host name or an IP address.
    port : int
        1 to 65535, or 0 to listen on a port that the system chooses.
    """

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """Return the text for `parse_address`. Unprintable characters in a path are escaped, for terminals."""
        if self.kind == "unix":
            path = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in self.path)
            return f"unix:{''.join(path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse ``unix:PATH``, ``tcp:HOST:PORT`` or ``tls:HOST:PORT``.

    An empty host (``tcp::PORT``) is the loopback address. Only an IPv6 address is written in brackets.

    Raises
    ------
    ValueError
        If `text` is not an address of one of these kinds.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return Address(kind, path=_checked_path(text, rest))
    host, colon, port = rest.rpartition(":")
    if kind not in ("tcp", "tls") or not colon:
        raise ValueError(f"invalid address {text!r}: expected unix:PATH, tcp:HOST:PORT or tls:HOST:PORT")
    return Address(kind, host=_checked_host(text, host), port=_checked_port(text, port))


def _checked_path(text: str, path: str) -> str:
    if path.startswith("@"):
        raise ValueError(
            f"invalid address {text!r}: abstract unix sockets have no owner and no mode, and are not supported; "
            f"expected unix:PATH (for a file of that name unix:./{path})"
        )
    if not path or "\0" in path:
        raise ValueError(f"invalid address {text!r}: expected unix:PATH, with the path of a socket")
    return path


def _checked_host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        number, percent, zone = host[1:-1].partition("%")
        if not _is_ipv6(number) or bool(percent) != bool(zone) or not zone.isprintable():
            raise ValueError(f"invalid address {text!r}: expected an IPv6 address in the brackets")
        return host[1:-1]
    if ":" in host:
        raise ValueError(f"invalid address {text!r}: expected an IPv6 address in brackets, as in tcp:[::1]:4444")
    # The socket module encodes names with idna too. A name cannot contain "[" or "]".
    with contextlib.suppress(UnicodeError):
        if re.fullmatch(r"[A-Za-z0-9._-]*", host.encode("idna").decode()):
            return host or LOOPBACK
    raise ValueError(f"invalid address {text!r}: expected a host name or an IP address")


def _checked_port(text: str, port: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"invalid address {text!r}: expected a port from 1 to {MAX_PORT}")
    return int(port)


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):  # ValueError: `text` contains a NUL or is not ASCII
        return False
    return True


def is_same_socket(listen: Address, onward: Address) -> bool:
    """Return True if connecting to `onward` reaches the listener at `listen`."""
    if "unix" in (listen.kind, onward.kind):
        return listen.kind == onward.kind and os.path.realpath(listen.path) == os.path.realpath(onward.path)
    if listen.port != onward.port:
        return False
    here = _numbers(listen.host)
    # A listener at [::] accepts no IPv4 connections: socket.create_server sets IPV6_V6ONLY.
    return any(
        number in here or (("::" if ":" in number else ANY_IPV4) in here and _is_here(number))
        for number in map(_reached, _numbers(onward.host))
    )


def _reached(number: str) -> str:
    """Return the address that a connection to `number` reaches."""
    if number in (ANY_IPV4, "::"):
        return LOOPBACK if number == ANY_IPV4 else "::1"
    mapped = ipaddress.IPv6Address(number).ipv4_mapped if ":" in number else None
    return str(mapped or number)


def _numbers(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:  # listening and connecting report the error
        return set()


def _is_here(number: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in number else socket.AF_INET) as sock:
            sock.bind((number, 0))
    except OSError:
        return False
    return True
