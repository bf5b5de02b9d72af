"""The command ``numcodecs-qpl info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numcodecs_qpl import __version__, _core
from numcodecs_qpl.advice import device_advice, host_advice, queue_advice
from numcodecs_qpl.cli.common import OK, PROGRAM, examples, failed
from numcodecs_qpl.devices import SYSFS, Device, WorkQueue, devices, host, path_names
from numcodecs_qpl.probe import Trial, probe

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands


def add_info(commands: Commands) -> None:
    """Describe ``numcodecs-qpl info`` to argparse."""
    command = commands.add_parser(
        "info",
        help="versions, where the work runs and why, threads, devices",
        description="Show the versions, the path in force and why, the threads that share a chunk, and the\n"
        "accelerators and work queues that Linux knows of, with what to do about those that cannot be used.",
        epilog=examples("info", "info --json", "info --probe"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command.add_argument(
        "--probe",
        action="store_true",
        help="run blocks through the devices, and fail unless all come out right; libqpl chooses the queues",
    )
    command.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    facts = _facts()
    if arguments.probe:
        facts["probe"], failures = _probed(facts["devices"])
        facts["errors"] += failures
    print(json.dumps(_json_of(facts), indent=2) if arguments.json else _text_of(facts))
    return failed("; ".join(facts["errors"])) if facts["errors"] else OK


def _facts() -> dict[str, Any]:
    """What `info` tells; "errors" are settings that mean nothing, which a machine without an IAA is not."""
    errors = []
    settings: dict[str, Any] = {"threads": None, "numa": None}
    for name, setting in (("threads", _core.get_threads), ("numa", _core.get_numa)):
        try:
            settings[name] = setting()
        except ValueError as error:
            errors.append(str(error))
    found = devices()
    path = _path_facts(path_names(found)["hardware"])
    if path["setting"] is None:
        errors.append(path["why"])
    advice = [*_libqpl_advice(path["hardware_init_status"]), *host_advice(host(), found)]
    return {
        "versions": {
            PROGRAM: __version__,
            "libqpl": _core.libqpl_version(),
            **_core.software_versions(),
            "Python": platform.python_version(),
            **{package: _installed_version(package) for package in ("numcodecs", "numpy", "zarr")},
        },
        "path": path,
        **settings,
        "devices": found,
        "advice": advice if _core.libqpl_version() else [],  # it is all about devices
        "errors": errors,
    }


def _path_facts(hardware: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"setting": None, "in_force": None, "why": "", "hardware_init_status": None}
    try:
        facts["setting"] = _core.get_path()
        facts["in_force"] = _core.path_in_force()
    except ValueError as error:
        return {**facts, "why": str(error)}
    except _core.QplError:
        pass  # the status says it too
    # Whoever chose software may want libqpl to keep away from the devices.
    status = _core.hardware_init_status() if facts["setting"] != "software" else None
    if _core.libqpl_version() is None:
        why = _core.NO_LIBQPL
    elif status is None:
        why = "the setting says so, and libqpl was not asked for a device"
    else:
        why = _said_by_libqpl(status, hardware)
    return {**facts, "why": why, "hardware_init_status": status}


def _said_by_libqpl(status: int, hardware: str) -> str:
    said = f"libqpl's hardware init status is {status}, {_core.status_name(status)}"
    if status:
        return f"no IAA can be used: {said}: {_core.hardware_advice(status)}"
    return f"an {hardware} can be used: {said}"


def _probed(found: list[Device]) -> tuple[list[Trial], list[str]]:
    """What came of each kind of work, and what is wrong with that."""
    if _core.libqpl_version() is None:
        return [], [f"there is nothing to probe: {_core.NO_LIBQPL}"]
    try:
        trials = probe(sum(queue.may_open for device in found for queue in device.queues))
    except _core.QplError as error:
        return [], [str(error)]
    return trials, [_trial_text(trial) for trial in trials if not trial.passed]


def _trial_text(trial: Trial) -> str:
    if trial.error:
        return f"{trial.work}: {trial.error}"
    if trial.wrong:
        return f"{trial.work}: {trial.wrong} of {trial.blocks} blocks came out wrong"
    return f"{trial.work}: {trial.on_hardware} of {trial.blocks} blocks done on hardware, and right"


def _libqpl_advice(status: int | None) -> list[str]:
    # What libqpl says of devices and queues, the advice on these says in detail.
    if status and _core.status_name(status) == "QPL_STS_INIT_LIBACCEL_NOT_FOUND":
        return [_core.hardware_advice(status)]
    return []


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _json_of(facts: dict[str, Any]) -> dict[str, Any]:
    told = {**facts, "devices": [_device_facts(device) for device in facts["devices"]]}
    if "probe" in facts:
        told["probe"] = [trial.as_json() for trial in facts["probe"]]
    return told


def _device_facts(device: Device) -> dict[str, Any]:
    queues = [{**asdict(queue), "advice": queue_advice(device, queue)} for queue in device.queues]
    return {**asdict(device), "queues": queues, "advice": device_advice(device)}


def _text_of(facts: dict[str, Any]) -> str:
    path = facts["path"]
    in_force = path_names(facts["devices"]).get(path["in_force"], "none: compressing and decompressing will fail")
    missing = {"libqpl": "not in this build"}
    invalid = "not a valid setting"
    entries = [(name, version or missing.get(name, "not installed")) for name, version in facts["versions"].items()]
    entries += [
        ("", ""),
        ("path setting", path["setting"] or invalid),
        ("path in force", in_force),
        ("because", path["why"]),
    ]
    entries += [("", ""), ("threads", str(facts["threads"] or invalid))]
    entries += [("NUMA policy", invalid if facts["numa"] is None else str(facts["numa"])), ("", "")]
    if not facts["devices"]:
        entries.append(("devices", f"none: Linux's idxd driver shows no IAA in {SYSFS}"))
    for device in facts["devices"]:
        entries.append((device.dev, _device_text(device)))
        entries += [("  to do", sentence) for sentence in device_advice(device)]
        for queue in device.queues:
            entries.append((f"  {queue.dev}", _queue_text(queue)))
            entries += [("    to do", sentence) for sentence in queue_advice(device, queue)]
    entries += [("to do", sentence) for sentence in facts["advice"]]
    if "probe" in facts:
        entries += [("", ""), *(("probe", _trial_text(trial)) for trial in facts["probe"])]
    return "\n".join(_entry(name, text) for name, text in entries)


def _entry(name: str, text: str) -> str:
    lines = textwrap.wrap(text, 64, break_on_hyphens=False, break_long_words=False) or [""]
    return f"\n{'':15}".join([f"{name:15}{lines[0]}".rstrip(), *lines[1:]])


def _device_text(device: Device) -> str:
    node = "no NUMA node" if device.numa_node in (None, -1) else f"NUMA node {device.numa_node}"
    return f"IAA, {device.state or 'state unknown'}, {node}, version {device.version or 'unknown'}"


def _queue_text(queue: WorkQueue) -> str:
    if not queue.node_exists:
        access = "does not exist"
    else:
        access = "open to this user" if queue.may_open else "not open to this user"
    traits = [queue.state or "state unknown", queue.mode or "mode unknown", f"type {queue.type or 'unknown'}"]
    traits += ["size unknown" if queue.size is None else f"size {queue.size}"]
    traits += [f"max transfer {queue.max_transfer_size or 'unknown'}"]
    blocks = {None: "unknown", True: "on", False: "off"}[queue.block_on_fault]
    traits += [f"block on fault {blocks}", f"name {queue.name or 'none'}"]
    return ", ".join([*traits, f"{queue.node} {access}"])
