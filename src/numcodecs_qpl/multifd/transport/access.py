"""Access to a unix socket: its file's mode, owner and group."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_ID = 2**32 - 2
"""The largest number of a user or group. For chown, the next number means "unchanged"."""


@dataclass(frozen=True)
class Access:
    """Mode, owner and group of a unix socket's file. Users who may write to the file may connect.

    Attributes
    ----------
    mode : int
        Permission bits.
    owner, group : int or None
        Numbers of a user and of a group; None for this process's own.
    """

    mode: int = 0o600
    owner: int | None = None
    group: int | None = None

    @property
    def first_mode(self) -> int:
        """Mode to create the file with: 0 if `give` will change its owner or group."""
        return self.mode if self.owner is None and self.group is None else 0

    def give(self, path: str) -> None:
        """Set owner and group, then the mode, of the socket that this process created at `path` with `first_mode`.

        Other users may be able to write to the folder, and to replace the socket by another file. So the file is
        opened, checked, and changed through ``/proc``: Linux has no fchown and no fchmod for the file of a socket.

        Raises
        ------
        OSError
            If the system does not allow it, or another file has replaced the socket.
        """
        if self.owner is None and self.group is None:
            return
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if (status.st_mode, status.st_uid, status.st_nlink) != (stat.S_IFSOCK, os.geteuid(), 1):
                raise FileExistsError("another file has replaced the new socket")
            file = Path(f"/proc/self/fd/{fd}")
            os.chown(file, _or_same(self.owner), _or_same(self.group))
            file.chmod(self.mode)
        except PermissionError as error:
            raise PermissionError(
                f"user {os.geteuid()} may not give the socket to {self}: a user other than root may choose a group "
                "that the user is in, and no owner"
            ) from error
        finally:
            os.close(fd)

    def __str__(self) -> str:
        named = {"owner": self.owner, "group": self.group}
        return " and ".join(f"{name} {number}" for name, number in named.items() if number is not None)


def parse_mode(text: str) -> int:
    """Parse permission bits in octal, as for chmod.

    Raises
    ------
    ValueError
        If `text` is not an octal number from 0 to 777.
    """
    if not re.fullmatch("0?[0-7]{1,3}", text):
        raise ValueError(f"invalid mode {text!r}: expected an octal number of up to three digits, as 0660")
    return int(text, 8)


def find_user(text: str) -> int:
    """Return the number of a user given by name or number.

    Raises
    ------
    ValueError
        If the system does not know the name, or the number is too large.
    """
    return _find("user", text, lambda: pwd.getpwnam(text).pw_uid)


def find_group(text: str) -> int:
    """Return the number of a group given by name or number.

    Raises
    ------
    ValueError
        If the system does not know the name, or the number is too large.
    """
    return _find("group", text, lambda: grp.getgrnam(text).gr_gid)


def _find(kind: str, text: str, look_up: Callable[[], int]) -> int:
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= MAX_ID:
        return int(text)
    try:
        return look_up()
    except (KeyError, ValueError):  # ValueError: `text` contains a NUL
        raise ValueError(f"unknown {kind} {text!r}: expected a name that this system knows, or a number") from None


def _or_same(number: int | None) -> int:
    return -1 if number is None else number
