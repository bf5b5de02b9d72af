"""Which In-Memory Analytics Accelerators and work queues the system has, as Linux tells.

The attributes under ``/sys/bus/dsa/devices`` are those of the Linux kernel's
``Documentation/ABI/stable/sysfs-driver-dma-idxd``; that an IAA is called ``iax<m>`` there, a queue's ``name`` attribute
and the device node ``/dev/iax/wq<m>.<n>`` are in its idxd driver (``drivers/dma/idxd``: init.c, sysfs.c, cdev.c).
Nothing is opened but text files: a look does not take a queue from anyone. What to do about a device or a queue that
cannot be used, ``numcodecs-qpl info`` says.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSFS = "/sys/bus/dsa/devices"
"""Where the idxd driver shows its devices; it is not there if the driver is not."""

EMULATED = "emulated IAA"
"""Name of a device that libqpl finds and Linux does not show."""

NODES = "/dev/iax"
"""Where the device nodes of the queues are."""

# The bus has the queues' device nodes too, as "iax!wq1.0".
_DEVICE = re.compile(r"iax(\d+)")
_DSA = re.compile(r"dsa(\d+)")
_QUEUE = re.compile(r"wq(\d+)\.(\d+)")


@dataclass(frozen=True)
class WorkQueue:
    """A work queue of an accelerator; None stands for what the system does not tell.

    Attributes
    ----------
    dev : str
        The kernel's name, ``wq<m>.<n>``.
    state : str or None
        "enabled" or "disabled".
    mode : str or None
        "shared" or "dedicated" (one program at a time; libqpl takes only shared ones).
    type : str or None
        Whom the queue serves: "user", "kernel" or "none".
    name : str or None
        The name that was given to it when it was set up.
    size : int or None
        Descriptors that it holds; 0 for a queue that nobody has set up.
    max_transfer_size : int or None
        Bytes that one descriptor may have it read; what is longer goes to software.
    block_on_fault : bool or None
        Whether the device waits for a page that is not there, instead of giving the job back.
    node : str
        Path of the device node that a program opens.
    node_exists : bool
        Whether there is such a node; only an enabled queue of type "user" has one.
    may_open : bool
        Whether the permissions let this user open it to read and write.
    node_owner, node_group : str or None
        To whom the node belongs: names, or numbers where there are none.
    node_mode : str or None
        Its permissions in octal, like "0600".
    """

    dev: str
    state: str | None
    mode: str | None
    type: str | None
    name: str | None
    size: int | None
    max_transfer_size: int | None
    block_on_fault: bool | None
    node: str
    node_exists: bool
    may_open: bool
    node_owner: str | None
    node_group: str | None
    node_mode: str | None


@dataclass(frozen=True)
class Device:
    """An In-Memory Analytics Accelerator; None stands for what the system does not tell.

    Attributes
    ----------
    dev : str
        The kernel's name, ``iax<m>``.
    state : str or None
        "enabled", "disabled" or "halted".
    numa_node : int or None
        The NUMA node it is nearest to; -1 for none.
    version : str or None
        The hardware's version, like "0x100".
    pasid_enabled : bool or None
        Whether it works on the addresses of user processes, for which the IOMMU has to be in scalable mode.
    queues : tuple of WorkQueue
        All of its work queues, set up or not.
    """

    dev: str
    state: str | None
    numa_node: int | None
    version: str | None
    pasid_enabled: bool | None
    queues: tuple[WorkQueue, ...]


@dataclass(frozen=True)
class Host:
    """What Linux tells beside its accelerators.

    Attributes
    ----------
    driver : bool
        Whether the idxd driver is there.
    module : bool or None
        Whether the running kernel has the driver, loaded or not; None where its list of modules cannot be read, as in
        most containers.
    command_line : str or None
        The kernel's.
    dsa : tuple of str
        Data Streaming Accelerators, ``dsa<m>``, which are on the same bus and do not compress.
    """

    driver: bool
    module: bool | None
    command_line: str | None
    dsa: tuple[str, ...]


def host(root: Path = Path("/")) -> Host:
    """Say what the system has beside its accelerators; it never fails.

    Parameters
    ----------
    root : Path
        Folder to take for ``/``.
    """
    folder = root / SYSFS.lstrip("/")
    return Host(
        driver=folder.is_dir(),
        module=_has_module(root),
        command_line=_text(root / "proc/cmdline"),
        dsa=tuple(path.name for path in _numbered(folder, _DSA)),
    )


def _has_module(root: Path) -> bool | None:
    modules = root / "lib/modules" / (_text(root / "proc/sys/kernel/osrelease") or "unknown")
    # modules.dep(5) lists what can be loaded, modules.builtin what need not be.
    lists = [_text(modules / name) for name in ("modules.dep", "modules.builtin")]
    if lists == [None, None]:
        return None
    return any("/idxd.ko" in (text or "") for text in lists)


def devices(root: Path = Path("/")) -> list[Device]:
    """List the accelerators of the system.

    It never fails: a file that is missing or cannot be read is a None, and a system without the driver has no devices.

    Parameters
    ----------
    root : Path
        Folder to take for ``/``.
    """
    folder = root / SYSFS.lstrip("/")
    return [_device(root, path) for path in _numbered(folder, _DEVICE)]


def path_names(found: Sequence[Device]) -> dict[str, str]:
    """What the paths, "hardware" and "software", are called where a user reads of them.

    libqpl believes whatever library it finds by the name of libaccel-config. Where Linux has shown no device (`found`
    is empty), what does the work is no IAA.
    """
    return {
        "hardware": hardware_label(found) + ("" if found else " (a device that Linux does not show)"),
        "software": "software path",
    }


def hardware_label(found: Sequence[Device]) -> str:
    """`path_names`' hardware where there is room for a word or two only."""
    return "IAA" if found else EMULATED


def _device(root: Path, path: Path) -> Device:
    return Device(
        dev=path.name,
        state=_text(path / "state"),
        numa_node=_number(path / "numa_node"),
        version=_text(path / "version"),
        pasid_enabled=_flag(path / "pasid_enabled"),
        queues=tuple(_queue(root, queue) for queue in _numbered(path, _QUEUE)),
    )


def _queue(root: Path, path: Path) -> WorkQueue:
    node = f"{NODES}/{path.name}"
    here = root / node.lstrip("/")
    owner, group, mode = _ownership(here)
    return WorkQueue(
        dev=path.name,
        state=_text(path / "state"),
        mode=_text(path / "mode"),
        type=_text(path / "type"),
        name=_text(path / "name"),
        size=_number(path / "size"),
        max_transfer_size=_number(path / "max_transfer_size"),
        block_on_fault=_flag(path / "block_on_fault"),
        node=node,
        node_exists=os.access(here, os.F_OK),
        # Asked, not tried: opening a queue makes this process one of its clients.
        may_open=os.access(here, os.R_OK | os.W_OK, effective_ids=True),
        node_owner=owner,
        node_group=group,
        node_mode=mode,
    )


def _ownership(node: Path) -> tuple[str | None, str | None, str | None]:
    try:
        status = node.stat()
    except OSError:
        return None, None, None
    owner, group = str(status.st_uid), str(status.st_gid)
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(status.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    return owner, group, f"{stat.S_IMODE(status.st_mode):04o}"


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Entries of `folder` whose whole name is of the pattern, in the order of its numbers."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    matches = [match for match in map(pattern.fullmatch, names) if match]
    matches.sort(key=lambda match: [int(number) for number in match.groups()])
    return [folder / match[0] for match in matches]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _flag(path: Path) -> bool | None:
    number = _number(path)
    return None if number is None else bool(number)
