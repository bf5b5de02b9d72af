"""What to do about accelerators and work queues that cannot be used, in sentences.

Pure functions of what `numcodecs_qpl.devices` read. A usable queue is one that libqpl takes (enabled, shared, its node
open to the user); the rest is what keeps Linux's idxd driver from giving one to a program (``drivers/dma/idxd``:
cdev.c wants type "user" and PASIDs, device.c a name, a group and a threshold). The commands are those of accel-config's
man pages; docs/iaa.md has them in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from numcodecs_qpl.devices import SYSFS, Device, Host, WorkQueue

_PARAMETER = "intel_iommu=on,sm_on"  # the IOMMU, and its scalable mode
_READ_WRITE = 0o6


def host_advice(host: Host, devices: Sequence[Device]) -> list[str]:
    """Say what the whole system lacks; nothing if there is a device that programs can use."""
    if not host.driver:
        return [_driver_advice(host.module)]
    if not devices:
        return [_no_device_advice(host.dsa)]
    return _scalable_mode_advice(host.command_line, devices)


def _driver_advice(module: bool | None) -> str:
    look = "`lspci -d 8086:0cfe` lists the IAAs, of Sapphire Rapids at least"
    if module is None:
        return (
            f"Linux's idxd driver is not there: `sudo modprobe idxd` on the host loads it, if its kernel has it; {look}"
        )
    if module:
        return f"Linux's idxd driver is not loaded: `sudo modprobe idxd`; {look}"
    return (
        "the running kernel has no idxd driver: take one of 5.18 or later that was built with CONFIG_INTEL_IDXD; "
        + look
    )


def _no_device_advice(dsa: Sequence[str]) -> str:
    if dsa:
        return (
            f"{SYSFS} has only Data Streaming Accelerators ({', '.join(dsa)}), which do not compress: "
            "this machine has no IAA, or it is off in the BIOS"
        )
    return f"the idxd driver is loaded and {SYSFS} has no device: this machine has no IAA, or it is off in the BIOS"


def _scalable_mode_advice(command_line: str | None, devices: Sequence[Device]) -> list[str]:
    # A kernel may be built to have scalable mode on: where a device has PASIDs enabled, nothing is missing.
    refused = [device.dev for device in devices if device.pasid_enabled is False]
    unsure = [device.dev for device in devices if device.pasid_enabled is None]
    if command_line is not None and not _asks_for_scalable_mode(command_line) and refused + unsure:
        names = ", ".join(refused + unsure)
        return [
            f"programs can use {names} only with the IOMMU in scalable mode: add {_PARAMETER} to the kernel's command "
            "line and boot"
        ]
    if refused:
        return [
            f"pasid_enabled is 0 for {', '.join(refused)}, so that no program can use it: is VT-d enabled in the BIOS, "
            f"and {_PARAMETER} on the kernel's command line? `sudo dmesg | grep -e DMAR -e idxd` says more"
        ]
    return []


def _asks_for_scalable_mode(command_line: str) -> bool:
    name, _, wanted = _PARAMETER.partition("=")
    values = [value for key, _, value in (word.partition("=") for word in command_line.split()) if key == name]
    return set(wanted.split(",")) <= set(",".join(values).split(","))


def device_advice(device: Device) -> list[str]:
    """Say what keeps all of a device's queues from being used; nothing for an enabled device with queues."""
    advice = []
    if device.queues and all(queue.size == 0 for queue in device.queues):
        queue = f"{device.dev}/{device.queues[0].dev}"
        # Sizes are set while the device is disabled.
        first = f"`sudo accel-config disable-device {device.dev}`, then " if device.state == "enabled" else ""
        advice.append(
            f"none of its queues is set up: {first}give it engines (`sudo accel-config config-engine`) and a queue, "
            f"such as `sudo accel-config config-wq {queue} --group-id=0 --wq-size=16 {_wanted(16)}`"
        )
    if device.state == "disabled":
        advice.append(
            f"it is disabled: `sudo accel-config enable-device {device.dev}`, and then its queues with `enable-wq`"
        )
    elif device.state == "halted":
        advice.append(
            "it halted after an error, of which `sudo dmesg | grep idxd` tells: reset it by booting, or, if nothing "
            "else uses the driver, by `sudo modprobe -r idxd` and `sudo modprobe idxd`; then set it up again"
        )
    return advice


def queue_advice(device: Device, queue: WorkQueue) -> list[str]:
    """Say what keeps a queue of `device` from being used; nothing for one that can be, or that nobody has set up."""
    if queue.size == 0 and queue.state != "enabled":
        return []  # a device has more queues than anyone needs
    reasons = [*_mode_reasons(queue.mode), *_type_reasons(queue.type)]
    if reasons:
        return [f"{' and '.join(reasons)}: {_set_up_anew(device, queue)}"]
    if queue.state == "disabled":
        # Nothing can be enabled on a device that is not.
        enabled = device.state in ("enabled", None)
        return [f"it is disabled: `sudo accel-config enable-wq {device.dev}/{queue.dev}`"] if enabled else []
    if queue.state == "enabled" and not queue.node_exists:
        return [
            f"{queue.node} does not exist, though the queue is enabled: in a container, hand the node in "
            f"(--device={queue.node}); on the host, `ls -l /dev/iax` and udev's rules tell where it went"
        ]
    if queue.state == "enabled" and not queue.may_open:
        return [_permission_advice(queue)]
    return []


def _mode_reasons(mode: str | None) -> list[str]:
    return ["it is dedicated (libqpl takes only shared queues)"] if mode == "dedicated" else []


def _type_reasons(of: str | None) -> list[str]:
    if of == "kernel":
        return ["it is of type kernel (for the kernel itself, not for programs)"]
    return ["it has no type (it serves nobody)"] if of == "none" else []


def _set_up_anew(device: Device, queue: WorkQueue) -> str:
    name = f"{device.dev}/{queue.dev}"
    # Disabling clears mode, type, name, threshold and priority, and leaves the size.
    commands = [f"`sudo accel-config disable-wq {name}`"] if queue.state == "enabled" else []
    commands.append(f"`sudo accel-config config-wq {name} {_wanted(queue.size)}`")
    if device.state == "enabled":
        commands.append(f"`sudo accel-config enable-wq {name}`")
    return ", then ".join(commands)


def _wanted(size: int | None) -> str:
    # The man page of config-wq wants the threshold one less than the size, or lower.
    threshold = "THRESHOLD" if size is None else max(size - 1, 1)
    return f"--mode=shared --type=user --driver-name=user --name=iaa --threshold={threshold} --priority=10"


def _permission_advice(queue: WorkQueue) -> str:
    said = f"this user may not open {queue.node} ({queue.node_owner}:{queue.node_group}, mode {queue.node_mode})"
    bits = int(queue.node_mode or "0", 8) >> 3
    if queue.node_group != "root" and bits & _READ_WRITE == _READ_WRITE:
        return f"{said}: join its group (`sudo usermod -aG {queue.node_group} USER`) and log in again"
    return (
        f"{said}: let a group of yours in with a udev rule, as in docs/iaa.md, or until the queue is next enabled with "
        f"`sudo chgrp GROUP {queue.node}` and `sudo chmod 660 {queue.node}`"
    )
