"""Routes of a relay service. A route has a listening address and an address onward.

A pattern for each makes many routes: ``{1-8}`` stands for the numbers from 1 to 8, ``{web,db}`` for two names.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from numcodecs_qpl.multifd.errors import SettingsError
from numcodecs_qpl.multifd.transport.address import Address, is_same_socket, parse_address

MAX_ROUTES = 1024
"""Most routes of a pattern: each has a listening socket and a thread."""
UUID_FIELD = "{uuid}"
NAME_FIELD = "{name}"

_CHOICE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile("([0-9]{1,5})-([0-9]{1,5})")


@dataclass(frozen=True)
class GuestAddress:
    """An address that contains the guest's uuid.

    Attributes
    ----------
    pattern : str
        The address, with ``{uuid}`` for the uuid.
    """

    pattern: str

    def __str__(self) -> str:
        """Return the pattern."""
        return self.pattern

    def __call__(self, uuid: UUID) -> Address:
        """Return the address for a guest.

        Raises
        ------
        SettingsError
            If the guest has no uuid.
        """
        if not uuid.int:
            raise SettingsError(f"the guest has no uuid for {self.pattern}: start both QEMUs with the same -uuid")
        return parse_address(self.pattern.replace(UUID_FIELD, str(uuid)))


@dataclass(frozen=True)
class Route:
    """A listening address, and the next hop of its migrations.

    Attributes
    ----------
    listen : Address or socket.socket
        Address to listen at, or a listening socket.
    onward : Address or GuestAddress
        Address of the next hop.
    """

    listen: Address | socket.socket
    onward: Address | GuestAddress

    def is_loop(self) -> bool:
        """Return True if the addresses show that the relay would connect to itself."""
        if not isinstance(self.listen, Address) or not isinstance(self.onward, Address):
            return False
        return is_same_socket(self.listen, self.onward)


def parse_listen(pattern: str) -> list[tuple[str, Address]]:
    """Return the addresses of a pattern, each with its element of the pattern's list.

    Parameters
    ----------
    pattern : str
        An address as for `numcodecs_qpl.multifd.transport.address.parse_address`, which may contain one list:
        ``{FIRST-LAST}`` or ``{A,B,C}``.

    Raises
    ------
    ValueError
        If the pattern, or an address, is not of this form.
    """
    _check_kind(pattern)
    return [(name, parse_address(text)) for name, text in _expand(pattern)]


def make_routes(listens: Sequence[tuple[str, Address | socket.socket]], connect: str) -> list[Route]:
    """Make a route for each listening address.

    Parameters
    ----------
    listens : sequence of (str, Address or socket.socket)
        The listening addresses, each with its name, as `parse_listen` returns them.
    connect : str
        One address for all; or a list with one element for each listening address; or an address with ``{name}``, the
        listening address's name, or with ``{uuid}``, the guest's uuid.

    Raises
    ------
    ValueError
        If the number of addresses in `connect` is different.
    """
    _check_kind(connect)
    if NAME_FIELD in connect and not all(name for name, _ in listens):
        raise ValueError(
            f"--connect {connect} has {NAME_FIELD}, and --listen has no list of names: add one, as {{a,b}}"
        )
    fields = [field for field in (UUID_FIELD, NAME_FIELD) if field in connect]
    texts = [connect] if fields else [text for _, text in _expand(connect)]
    if len(texts) == 1:
        texts *= len(listens)
    if len(texts) != len(listens):
        raise ValueError(
            f"--connect {connect} stands for {len(texts)} addresses, and --listen for {len(listens)}; expected as many"
        )
    return [
        Route(listen, _onward(text.replace(NAME_FIELD, name)))
        for (name, listen), text in zip(listens, texts, strict=True)
    ]


def _check_kind(pattern: str) -> None:
    if "{" in pattern.partition(":")[0]:
        raise ValueError(f"{pattern} has braces in its kind; expected unix:, tcp: or tls: in front of them")


def _onward(text: str) -> Address | GuestAddress:
    if UUID_FIELD not in text:
        return parse_address(text)
    parse_address(text.replace(UUID_FIELD, str(UUID(int=1))))
    return GuestAddress(text)


def _expand(pattern: str) -> list[tuple[str, str]]:
    """Return the elements of the list in a pattern, each with the pattern in which it replaces the list."""
    found = _CHOICE.findall(pattern)
    if not found:
        return [("", pattern)]
    if len(found) > 1:
        raise ValueError(f"{pattern} has {len(found)} lists in braces; expected one at most")
    return [(part, pattern.replace(f"{{{found[0]}}}", part)) for part in _parts(pattern, found[0])]


def _parts(pattern: str, content: str) -> list[str]:
    if numbers := _RANGE.fullmatch(content):
        first, last = int(numbers[1]), int(numbers[2])
        if not 1 <= last - first + 1 <= MAX_ROUTES:
            raise ValueError(f"{pattern} has the range {content}; expected 1 to {MAX_ROUTES} numbers, the lowest first")
        return [str(number) for number in range(first, last + 1)]
    parts = content.split(",")
    if "" in parts or len(set(parts)) < len(parts) or len(parts) > MAX_ROUTES:
        raise ValueError(
            f"{pattern} has {{{content}}}; expected {{FIRST-LAST}} with two numbers, or {{A,B,C}} with different names"
        )
    return parts
