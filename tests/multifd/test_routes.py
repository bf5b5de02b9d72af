"""Routes from patterns of addresses."""

from __future__ import annotations

from uuid import UUID

import pytest

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.routes import GuestAddress, Route, make_routes, parse_listen

GUEST = UUID("6d0ff2c0-5c4b-4a5e-9d0f-000000000001")


def routes_of(listen: str, connect: str) -> list[Route]:
    return make_routes(parse_listen(listen), connect)


@pytest.mark.parametrize(
    ("listen", "connect", "expected"),
    [
        ("unix:/a", "tcp::1", {"unix:/a": "tcp:127.0.0.1:1"}),
        ("tcp:[::1]:{8-10}", "unix:/q", {f"tcp:[::1]:{port}": "unix:/q" for port in (8, 9, 10)}),
        ("unix:/m/{web,db}.s", "tcp:h:{4-5}", {"unix:/m/web.s": "tcp:h:4", "unix:/m/db.s": "tcp:h:5"}),
        ("tls:h:{4-5}", "unix:/m/{web,db}.s", {"tls:h:4": "unix:/m/web.s", "tls:h:5": "unix:/m/db.s"}),
        ("unix:/m/{web,db}", "unix:/{name}/{name}", {"unix:/m/web": "unix:/web/web", "unix:/m/db": "unix:/db/db"}),
        ("tcp::1", "unix:/q/{uuid}", {"tcp:127.0.0.1:1": "unix:/q/{uuid}"}),
        ("unix:/{a,b}", "unix:/{name}/{uuid}", {"unix:/a": "unix:/a/{uuid}", "unix:/b": "unix:/b/{uuid}"}),
    ],
)
def test_patterns_make_routes(listen: str, connect: str, expected: dict[str, str]) -> None:
    assert {str(route.listen): str(route.onward) for route in routes_of(listen, connect)} == expected


@pytest.mark.parametrize(
    ("listen", "connect", "message"),
    [
        (
            "unix:/{a,b}",
            "tcp::{1-3}",
            "stands for 3 addresses, and --listen for 2; expected as many",
        ),
        ("unix:/a", "tcp::{1-3}", "stands for 3 addresses, and --listen for 1; expected as many"),
        ("unix:/{a,b}/{c,d}", "tcp::1", "has 2 lists in braces; expected one at most"),
        ("unix:/{2-1}", "tcp::1", "has the range 2-1; expected 1 to 1024 numbers, the lowest first"),
        ("tcp::{1-1025}", "tcp::1", "has the range 1-1025; expected 1 to 1024 numbers, the lowest first"),
        ("unix:/{a,}", "tcp::1", r"has \{a,\}; expected \{FIRST-LAST\}"),
        ("unix:/{}", "tcp::1", r"has \{\}; expected \{FIRST-LAST\}"),
        ("unix:/{a,a}", "tcp::1", r"has \{a,a\}; expected .* different names"),
        ("tcp::{65535-65536}", "unix:/a", "invalid address 'tcp::65536': expected a port from 1 to 65535"),
        ("unix:/a", "tcp:{uuid}:x", "invalid address .*: expected a port from 1 to 65535"),
        ("unix:/{uuid}", "tcp::{uuid}", "invalid address .*: expected a port"),
        ("unix:/a", "unix:/{name}", r"--listen has no list of names: add one, as \{a,b\}"),
        ("{tcp,tls}::1", "unix:/a", r"\{tcp,tls\}::1 has braces in its kind; expected unix:, tcp: or tls: in front"),
        ("unix:/{tcp,tls}", "{name}:h:1", r"\{name\}:h:1 has braces in its kind; expected unix:, tcp: or tls: in"),
    ],
)
def test_patterns_that_make_no_routes_are_refused(listen: str, connect: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        routes_of(listen, connect)


def test_the_uuid_of_the_guest_is_put_into_the_address() -> None:
    assert str(GuestAddress("unix:/q/{uuid}")(GUEST)) == f"unix:/q/{GUEST}"


def test_a_guest_without_a_uuid_has_no_such_address() -> None:
    with pytest.raises(MultiFDError, match=r"the guest has no uuid for unix:/q/\{uuid\}: start both QEMUs with"):
        GuestAddress("unix:/q/{uuid}")(UUID(int=0))


@pytest.mark.parametrize(
    ("listen", "connect", "loop"),
    [
        ("unix:/{a,b}", "unix:/{c,b}", [False, True]),
        ("tcp::1", "tcp:localhost:1", [True]),
        ("unix:/a", "unix:/{uuid}", [False]),
    ],
)
def test_a_route_to_itself_is_a_loop(listen: str, connect: str, loop: list[bool]) -> None:
    assert [route.is_loop() for route in routes_of(listen, connect)] == loop
