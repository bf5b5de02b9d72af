"""Access to a unix socket."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.transport.access import MAX_ID, Access, find_group, find_user, parse_mode
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import Listener

NOBODY = 65534
ROOT = os.geteuid() == 0
AS_ROOT = pytest.mark.skipif(not ROOT, reason="only root can give a file away")

# ---- Words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "mode"), [("0600", 0o600), ("660", 0o660), ("0", 0), ("777", 0o777), ("0777", 0o777)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "1777", "8", "0o600", "-1", "rw", "00660", " 660", "660\n", "²"])
def test_an_invalid_mode_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid mode .*: expected an octal number of up to three digits, as 0660$"):
        parse_mode(text)


def test_users_and_groups_are_known_by_name_and_by_number() -> None:
    user, group = pwd.getpwuid(0), grp.getgrgid(0)
    assert find_user(user.pw_name) == user.pw_uid
    assert find_group(group.gr_name) == group.gr_gid
    assert find_user("64055") == find_group("64055") == 64055
    assert find_user(str(MAX_ID)) == MAX_ID


@pytest.mark.parametrize("text", ["", "no such one", "-1", str(MAX_ID + 1), "²", "a\0b", "9" * 5000])
def test_an_unknown_user_or_group_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^unknown user .*: expected a name that this system knows, or a number$"):
        find_user(text)
    with pytest.raises(ValueError, match=r"^unknown group .*: expected a name that this system knows, or a number$"):
        find_group(text)


# ---- The socket's file ------------------------------------------------------------------------------------------


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket's path in a folder that other users can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "s"


@contextlib.contextmanager
def listening(path: Path, access: Access) -> Iterator[os.stat_result]:
    """A listener that works; yields what its file is."""
    listens = Listener(Address("unix", path=str(path)), access=access)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        listens.accept().close()
    yield path.stat()
    listens.close()


@pytest.mark.parametrize("umask", [0o000, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_the_mode_is_the_one_that_was_asked_for_whatever_the_umask(path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listening(path, Access(mode)) as status:
            assert stat.S_IMODE(status.st_mode) == mode
    finally:
        assert os.umask(before) == umask


@AS_ROOT
def test_root_gives_the_socket_to_a_user_and_a_group(path: Path) -> None:
    with listening(path, Access(0o620, owner=1234, group=4321)) as status:
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o620, 1234, 4321)


@AS_ROOT
def test_the_owner_and_the_group_are_each_left_alone_where_none_is_asked_for(path: Path) -> None:
    with listening(path, Access(0o600, owner=1234)) as status:
        assert (status.st_uid, status.st_gid) == (1234, os.getegid())
    with listening(path, Access(0o660, group=4321)) as status:
        assert (status.st_uid, status.st_gid) == (os.geteuid(), 4321)


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Take root's rights from this process, if it has them; `folder` is writable for everybody then."""
    if not ROOT:
        yield
        return
    folder.chmod(0o777)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_group_of_the_users_own_needs_no_root(path: Path) -> None:
    with as_nobody(path.parent), listening(path, Access(0o660, group=os.getegid())) as status:
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o660, os.geteuid())
        assert status.st_gid == os.getegid()


def test_a_socket_that_this_user_may_not_connect_to_is_left_alone(path: Path) -> None:
    """The owner that is not root is refused by the mode 0, as another user is by 0600."""
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    path.chmod(0)
    with (
        as_nobody(path.parent),
        pytest.raises(MultiFDError, match=rf"user \d+ may not connect .* in use\. If no .*, remove it: rm {path}$"),
    ):
        Listener(Address("unix", path=str(path)))
    assert path.is_socket()


def test_a_socket_that_the_group_may_connect_to_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    path.chmod(0o660)
    with as_nobody(path.parent), listening(path, Access(0o660)) as status:
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o660, os.geteuid())


@pytest.mark.parametrize("access", [Access(owner=0), Access(group=MAX_ID)], ids=["owner", "group"])
def test_what_the_system_does_not_allow_is_an_error_and_leaves_no_socket(path: Path, access: Access) -> None:
    with (
        as_nobody(path.parent),
        pytest.raises(
            MultiFDError,
            match=rf"^cannot listen on unix:.*/s: user \d+ may not give the socket to {access}: a user other than root "
            "may choose a group that the user is in, and no owner$",
        ),
    ):
        Listener(Address("unix", path=str(path)), access=access)
    assert list(path.parent.iterdir()) == []


def test_nobody_can_connect_before_the_socket_has_its_owner_and_mode(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def give(access: Access, given: str) -> None:
        modes.append(stat.S_IMODE(Path(given).stat().st_mode))
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(given)
        real(access, given)
        modes.append(stat.S_IMODE(Path(given).stat().st_mode))
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(given)

    real = Access.give
    monkeypatch.setattr(Access, "give", give)
    with listening(path, Access(0o666, group=os.getegid())):
        assert modes == [0, 0o666]


def put_file(path: Path) -> None:
    path.touch(mode=0)


def put_link(path: Path) -> None:
    path.symlink_to(path.with_name("precious"))


def put_second_name(path: Path) -> None:
    path.hardlink_to(path.with_name("precious"))


def put_another_mode(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def put_another_users(path: Path) -> None:
    put_another_mode(path)
    path.chmod(0)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    "put", [put_file, put_link, put_second_name, put_another_mode, pytest.param(put_another_users, marks=AS_ROOT)]
)
def test_a_file_that_takes_the_sockets_place_is_not_given_away(
    path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None]
) -> None:
    precious = path.with_name("precious")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(precious))
    precious.chmod(0)

    def give(access: Access, given: str) -> None:
        Path(given).unlink()
        put(path)
        before = path.lstat()
        try:
            real(access, given)
        finally:
            after = path.lstat()
            assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
            assert stat.S_IMODE(precious.stat().st_mode) == 0

    real = Access.give
    monkeypatch.setattr(Access, "give", give)
    with pytest.raises(MultiFDError, match=r"cannot listen on unix:.*/s: another file has replaced the new"):
        Listener(Address("unix", path=str(path)), access=Access(0o666, group=os.getegid()))
