"""Advice on accelerators and work queues that cannot be used, as sentences.

These are pure functions of the facts that `numcodecs_qpl.host.devices` reads. libqpl uses a queue that is enabled and
shared, and whose device node the user may open. The other conditions come from Linux's idxd driver
(``drivers/dma/idxd``): cdev.c requires type "user" and PASIDs, device.c a name, a group and a threshold. The commands
are those of accel-config's man pages; docs/iaa.md has them in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from numcodecs_qpl.host.devices import SYSFS, Device, Host, WorkQueue

_PARAMETER = "intel_iommu=on,sm_on"  # the IOMMU, and its scalable mode
_READ_WRITE = 0o6


def host_advice(host: Host, devices: Sequence[Device]) -> list[str]:
    """Return steps for the whole machine; none without an IAA, and none if programs can use one."""
    if devices:
        return _scalable_mode_advice(host.command_line, devices)
    if not host.iaas:
        return []
    if host.driver:
        return [_no_device_advice(host.iaas)]
    return [_driver_advice(host.module)]


def _driver_advice(module: bool | None) -> str:
    if module is None:
        return "Linux's idxd driver is not loaded: `sudo modprobe idxd` on the host"
    if module:
        return "Linux's idxd driver is not loaded: `sudo modprobe idxd`"
    return (
        "the running kernel has no idxd driver: install a kernel of version 5.18 or later that was built with "
        "CONFIG_INTEL_IDXD"
    )


def _no_device_advice(iaas: Sequence[str]) -> str:
    return (
        f"the idxd driver is loaded, and {SYSFS} has no IAA: `lspci -k -s {iaas[0]}` shows the driver of the first, "
        "and `sudo dmesg | grep idxd` the errors of idxd"
    )


def _scalable_mode_advice(command_line: str | None, devices: Sequence[Device]) -> list[str]:
    # A kernel may be built with scalable mode on. A device with PASIDs enabled proves that it is on.
    refused = [device.dev for device in devices if device.pasid_enabled is False]
    unsure = [device.dev for device in devices if device.pasid_enabled is None]
    if command_line is not None and not _asks_for_scalable_mode(command_line) and refused + unsure:
        names = ", ".join(refused + unsure)
        return [
            f"programs can use {names} only with the IOMMU in scalable mode: add {_PARAMETER} to the kernel's command "
            "line, then reboot"
        ]
    if refused:
        return [
            f"pasid_enabled is 0 for {', '.join(refused)}, so no program can use it: enable VT-d in the BIOS; "
            "`sudo dmesg | grep -e DMAR -e idxd` shows the errors of the IOMMU and of idxd"
        ]
    return []


def _asks_for_scalable_mode(command_line: str) -> bool:
    name, _, wanted = _PARAMETER.partition("=")
    values = [value for key, _, value in (word.partition("=") for word in command_line.split()) if key == name]
    return set(wanted.split(",")) <= set(",".join(values).split(","))


def device_advice(device: Device) -> list[str]:
    """Return the steps that a device needs before its queues; none for an enabled device with queues."""
    advice = []
    if device.queues and all(queue.size == 0 for queue in device.queues):
        queue = f"{device.dev}/{device.queues[0].dev}"
        # Queue sizes can be set only while the device is disabled.
        first = f"`sudo accel-config disable-device {device.dev}`, then " if device.state == "enabled" else ""
        advice.append(
            f"none of its queues is set up: {first}add engines to a group (`sudo accel-config config-engine`), then a "
            f"queue: `sudo accel-config config-wq {queue} --group-id=0 --wq-size=16 {_wanted(16)}`"
        )
    if device.state == "disabled":
        advice.append(
            f"it is disabled: `sudo accel-config enable-device {device.dev}`, then its queues with `enable-wq`"
        )
    elif device.state == "halted":
        advice.append(
            "it halted after an error, which `sudo dmesg | grep idxd` shows: reboot, or, if nothing else uses the "
            "driver, `sudo modprobe -r idxd`, then `sudo modprobe idxd`; then set it up again"
        )
    return advice


def queue_advice(device: Device, queue: WorkQueue) -> list[str]:
    """Return the steps that a queue of `device` needs; none if it can be used, and none if it is not set up."""
    if queue.size == 0 and queue.state != "enabled":
        return []  # a device has more queues than a program needs
    reasons = [*_mode_reasons(queue.mode), *_type_reasons(queue.type)]
    if reasons:
        return [f"{' and '.join(reasons)}: {_set_up_anew(device, queue)}"]
    if queue.state == "disabled":
        # A queue cannot be enabled on a disabled device.
        enabled = device.state in ("enabled", None)
        return [f"it is disabled: `sudo accel-config enable-wq {device.dev}/{queue.dev}`"] if enabled else []
    if queue.state == "enabled" and not queue.node_exists:
        return [
            f"{queue.node} does not exist, though the queue is enabled: start the container with "
            f"--device={queue.node}; on a host, look for a udev rule that moves the node: `ls -l /dev/iax`"
        ]
    if queue.state == "enabled" and not queue.may_open:
        return [_permission_advice(queue)]
    return []


def _mode_reasons(mode: str | None) -> list[str]:
    return ["it is dedicated (libqpl takes only shared queues)"] if mode == "dedicated" else []


def _type_reasons(of: str | None) -> list[str]:
    if of == "kernel":
        return ["it is of type kernel (for the kernel itself, not for programs)"]
    return ["it has no type"] if of == "none" else []


def _set_up_anew(device: Device, queue: WorkQueue) -> str:
    name = f"{device.dev}/{queue.dev}"
    # Disabling clears mode, type, name, threshold and priority, and leaves the size.
    commands = [f"`sudo accel-config disable-wq {name}`"] if queue.state == "enabled" else []
    commands.append(f"`sudo accel-config config-wq {name} {_wanted(queue.size)}`")
    if device.state == "enabled":
        commands.append(f"`sudo accel-config enable-wq {name}`")
    return ", then ".join(commands)


def _wanted(size: int | None) -> str:
    # The man page of config-wq requires a threshold of at most the size minus one.
    threshold = "THRESHOLD" if size is None else max(size - 1, 1)
    return f"--mode=shared --type=user --driver-name=user --name=iaa --threshold={threshold} --priority=10"


def _permission_advice(queue: WorkQueue) -> str:
    problem = f"this user may not open {queue.node} ({queue.node_owner}:{queue.node_group}, mode {queue.node_mode})"
    bits = int(queue.node_mode or "0", 8) >> 3
    if queue.node_group != "root" and bits & _READ_WRITE == _READ_WRITE:
        return f"{problem}: join its group with `sudo usermod -aG {queue.node_group} USER`, then log in again"
    return (
        f"{problem}: open it to a group of yours with a udev rule, as in docs/iaa.md; or, until the queue is enabled "
        f"again, with `sudo chgrp GROUP {queue.node}` and `sudo chmod 660 {queue.node}`"
    )
