"""In-Memory Analytics Accelerators and their work queues, as Linux shows them.

The Linux kernel documents the attributes under ``/sys/bus/dsa/devices`` in
``Documentation/ABI/stable/sysfs-driver-dma-idxd``. The name ``iax<m>``, a queue's ``name`` attribute and the device
node ``/dev/iax/wq<m>.<n>`` are defined in its idxd driver (``drivers/dma/idxd``: init.c, sysfs.c, cdev.c). This module
opens text files only, so it never occupies a queue. ``numcodecs-qpl info`` adds advice on devices and queues that
cannot be used.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import PathName

SYSFS = "/sys/bus/dsa/devices"
"""Folder of the idxd driver's devices. It exists only while the driver is loaded."""

PCI = "/sys/bus/pci/devices"
"""Folder of all PCI devices."""

INTEL = 0x8086
IAAS = (0x0CFE, 0x1216, 0xB02D, 0xFD2D)
"""PCI device numbers of IAAs (Linux, ``drivers/dma/idxd/registers.h``). The first is Sapphire Rapids."""

EMULATED = "emulated IAA"
"""Name of a device that libqpl finds and Linux does not show."""

NODES = "/dev/iax"
"""Folder of the queues' device nodes."""

# The bus also lists the queues' device nodes, as "iax!wq1.0".
_DEVICE = re.compile(r"iax(\d+)")
_QUEUE = re.compile(r"wq(\d+)\.(\d+)")


@dataclass(frozen=True)
class WorkQueue:
    """A work queue of an accelerator. None: Linux does not show it.

    Attributes
    ----------
    dev : str
        The kernel's name, ``wq<m>.<n>``.
    state : str or None
        "enabled" or "disabled".
    mode : str or None
        "shared" or "dedicated" (one program at a time; libqpl takes only shared ones).
    type : str or None
        Clients of the queue: "user", "kernel" or "none".
    name : str or None
        Name given to the queue when it was set up.
    size : int or None
        Capacity in descriptors; 0 if the queue is not set up.
    max_transfer_size : int or None
        Bytes that one descriptor may read. Longer blocks go to software.
    block_on_fault : bool or None
        True if the device waits for a page that is not in memory; False if it returns the job.
    node : str
        Path of the device node that a program opens.
    node_exists : bool
        True if the node exists. Only an enabled queue of type "user" has one.
    may_open : bool
        True if the permissions let this user open the node to read and write.
    node_owner, node_group : str or None
        Owner and group of the node: names, or numbers without a name.
    node_mode : str or None
        Permissions of the node in octal, like "0600".
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
    """An In-Memory Analytics Accelerator. None: Linux does not show it.

    Attributes
    ----------
    dev : str
        The kernel's name, ``iax<m>``.
    state : str or None
        "enabled", "disabled" or "halted".
    numa_node : int or None
        Nearest NUMA node; -1 for none.
    version : str or None
        Version of the hardware, like "0x100".
    pasid_enabled : bool or None
        True if the device can use the addresses of user processes. This needs an IOMMU in scalable mode.
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
    """Facts about the machine and its kernel. None: Linux does not show it.

    Attributes
    ----------
    iaas : tuple of str or None
        PCI addresses of the IAAs, with or without a driver.
    driver : bool
        True if the idxd driver is loaded.
    module : bool or None
        True if the running kernel has the driver, loaded or not. None where the list of its modules cannot be read,
        as in most containers.
    command_line : str or None
        Command line of the kernel.
    """

    iaas: tuple[str, ...] | None
    driver: bool
    module: bool | None
    command_line: str | None


def host(root: Path = Path("/")) -> Host:
    """Read the facts about the machine. It never fails.

    Parameters
    ----------
    root : Path
        Folder to take for ``/``.
    """
    return Host(
        iaas=_iaas(root / PCI.lstrip("/")),
        driver=(root / SYSFS.lstrip("/")).is_dir(),
        module=_has_module(root),
        command_line=_text(root / "proc/cmdline"),
    )


def _iaas(folder: Path) -> tuple[str, ...] | None:
    try:
        devices = sorted(folder.iterdir())
    except OSError:
        return None
    return tuple(path.name for path in devices if _hex(path / "vendor") == INTEL and _hex(path / "device") in IAAS)


def _has_module(root: Path) -> bool | None:
    modules = root / "lib/modules" / (_text(root / "proc/sys/kernel/osrelease") or "unknown")
    # modules.dep(5) lists modules to load, modules.builtin those in the kernel itself.
    lists = [_text(modules / name) for name in ("modules.dep", "modules.builtin")]
    if lists == [None, None]:
        return None
    return any("/idxd.ko" in (text or "") for text in lists)


def devices(root: Path = Path("/")) -> list[Device]:
    """List the accelerators that the idxd driver shows.

    It never fails: a file that is missing or cannot be read gives None, and without the driver the list is empty.

    Parameters
    ----------
    root : Path
        Folder to take for ``/``.
    """
    folder = root / SYSFS.lstrip("/")
    return [_device(root, path) for path in _numbered(folder, _DEVICE)]


def path_names(found: Sequence[Device]) -> dict[PathName, str]:
    """Return the names of the paths, "hardware" and "software", for users.

    libqpl trusts any library with the name of libaccel-config. If Linux shows no device (`found` is empty), the device
    that does the work is not an IAA.
    """
    return {
        "hardware": hardware_label(found) + ("" if found else " (a device that Linux does not show)"),
        "software": "software path",
    }


def hardware_label(found: Sequence[Device]) -> str:
    """Return the short name of the hardware path: "IAA" or "emulated IAA"."""
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
        # access(2), not open(2): opening a queue makes this process one of its clients.
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
    """Return the entries of `folder` whose whole name matches the pattern, sorted by the numbers in it."""
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


def _hex(path: Path) -> int | None:
    try:
        return int(_text(path) or "", 16)
    except ValueError:
        return None


def _flag(path: Path) -> bool | None:
    number = _number(path)
    return None if number is None else bool(number)
