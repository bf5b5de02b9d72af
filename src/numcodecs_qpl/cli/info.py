"""The command ``numcodecs-qpl info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from numcodecs_qpl import __version__, _core
from numcodecs_qpl.cli.common import NO_HARDWARE, OK, PROGRAM, examples, failed
from numcodecs_qpl.host.advice import device_advice, host_advice, queue_advice
from numcodecs_qpl.host.devices import Device, WorkQueue, devices, host, path_names
from numcodecs_qpl.host.probe import Trial, probe
from numcodecs_qpl.text import wrapped

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands


def add_info(commands: Commands) -> None:
    """Describe ``numcodecs-qpl info`` to argparse."""
    command = commands.add_parser(
        "info",
        help="show IAAs, their use and the next step; versions and settings",
        description="Show if this machine has an IAA and uses it, and the next command if it does\n"
        "not. Then show versions, settings, and the accelerators and work queues that\n"
        "Linux knows.",
        epilog=examples("info", "info --json", "info --probe")
        + "\n\nexit status: 1 if a setting is invalid, or demands hardware that is missing;\n0 otherwise",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command.add_argument("--verbose", action="store_true", help="also show libqpl's status for the search for a device")
    command.add_argument(
        "--probe",
        action="store_true",
        help="run blocks on the devices, and fail unless every result is correct; libqpl chooses the queues",
    )
    command.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    facts = _facts()
    if arguments.probe and not facts["errors"]:
        facts["probe"], facts["errors"] = _probed(facts["devices"])
    print(json.dumps(_json_of(facts), indent=2) if arguments.json else _text_of(facts, verbose=arguments.verbose))
    return failed("; ".join(facts["errors"])) if facts["errors"] else OK


def _facts() -> dict[str, Any]:
    """Return all facts that `info` shows. "errors" are settings that are invalid or impossible."""
    errors = []
    settings: dict[str, Any] = {"threads": None, "numa": None}
    for name, setting in (("threads", _core.get_threads), ("numa", _core.get_numa)):
        try:
            settings[name] = setting()
        except ValueError as error:
            errors.append(str(error))
    machine, found = host(), devices()
    path: dict[str, Any] = {"setting": None, "in_force": None, "hardware_init_status": None}
    try:
        path["setting"] = _core.get_path()
        path["in_force"] = _core.path_in_force()
    except ValueError as error:
        errors.append(str(error))
    except _core.QplError:
        errors.append(NO_HARDWARE)
    if path["setting"] in ("auto", "hardware"):  # with "software", libqpl must not touch the devices
        path["hardware_init_status"] = _core.hardware_init_status()
    iaas = max(len(found), len(machine.iaas or ()))
    return {
        "summary": _summary(iaas, path, found, listed=machine.iaas is not None),
        "versions": {
            PROGRAM: __version__,
            "libqpl": _core.libqpl_version(),
            **_core.software_versions(),
            "Python": platform.python_version(),
            **{package: _installed_version(package) for package in ("numcodecs", "numpy", "zarr")},
        },
        "path": path,
        **settings,
        "iaas": machine.iaas,
        "devices": found,
        "advice": [*_use_advice(path), *host_advice(machine, found)] if iaas else [],
        "errors": errors,
    }


def _summary(iaas: int, path: dict[str, Any], found: list[Device], *, listed: bool) -> str:
    """Return two or three sentences: IAAs of the machine, and the path in force."""
    machine = f"{iaas} IAA{'s' * (iaas != 1)} in this machine"
    if path["in_force"] == "hardware":
        if found:
            return f"{machine}. Blocks run on hardware."
        return f"Blocks run on an {path_names(found)['hardware']}."
    effect = "Everything runs in software." if path["in_force"] else "Compressing and decompressing fail."
    if iaas:
        unused = "not used" if path["setting"] == "software" else "not usable yet"
        return f"{machine}, {unused}. {effect}"
    if not listed:
        return f"Linux shows no list of PCI devices here, and no IAA. {effect} On a host with an IAA, run this there."
    return f"No IAA in this machine. {effect}{' Nothing to do.' * bool(path['in_force'])}"


def _use_advice(path: dict[str, Any]) -> list[str]:
    """Return the steps that this process needs to use a device that is ready."""
    if _core.libqpl_version() is None:
        return [_core.NO_LIBQPL]
    if path["setting"] == "software":
        return ["the path setting is software: unset NUMCODECS_QPL_PATH to use an IAA"]
    status = path["hardware_init_status"]
    # The advice on devices and queues is more detailed than libqpl's other answers.
    if status and _core.status_name(status) == "QPL_STS_INIT_LIBACCEL_NOT_FOUND":
        return [_core.hardware_advice(status)]
    return []


def _probed(found: list[Device]) -> tuple[list[Trial], list[str]]:
    """Return trials of each kind of work, and their failures as sentences."""
    if _core.libqpl_version() is None:
        return [], [f"no device can be probed: {_core.NO_LIBQPL}"]
    try:
        trials = probe(sum(queue.may_open for device in found for queue in device.queues))
    except _core.QplError as error:
        return [], [str(error)]
    return trials, [_trial_text(trial) for trial in trials if not trial.passed]


def _trial_text(trial: Trial) -> str:
    if trial.error:
        return f"{trial.work}: {trial.error}"
    if trial.wrong:
        return f"{trial.work}: {trial.wrong} of {trial.blocks} blocks have a wrong result"
    return f"{trial.work}: {trial.on_hardware} of {trial.blocks} blocks done on hardware, and correct"


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _json_of(facts: dict[str, Any]) -> dict[str, Any]:
    document = {**facts, "devices": [_device_facts(device) for device in facts["devices"]]}
    if "probe" in facts:
        document["probe"] = [trial.as_json() for trial in facts["probe"]]
    return document


def _device_facts(device: Device) -> dict[str, Any]:
    queues = [{**asdict(queue), "advice": queue_advice(device, queue)} for queue in device.queues]
    return {**asdict(device), "queues": queues, "advice": device_advice(device)}


def _text_of(facts: dict[str, Any], *, verbose: bool) -> str:
    path, found = facts["path"], facts["devices"]
    missing = {"libqpl": "not in this build"}
    invalid = "not a valid setting"
    entries = [(name, version or missing.get(name, "not installed")) for name, version in facts["versions"].items()]
    entries += [
        ("", ""),
        ("path setting", path["setting"] or invalid),
        ("path in force", path_names(found).get(path["in_force"], "none")),
        ("threads", str(facts["threads"] or invalid)),
        ("NUMA policy", invalid if facts["numa"] is None else str(facts["numa"])),
    ]
    if verbose:
        entries.append(("libqpl status", _status_text(path["hardware_init_status"])))
    for device in found:
        entries += [("", ""), (device.dev, _device_text(device))]
        entries += [("  to do", sentence) for sentence in device_advice(device)]
        for queue in device.queues:
            entries.append((f"  {queue.dev}", _queue_text(queue)))
            entries += [("    to do", sentence) for sentence in queue_advice(device, queue)]
    if "probe" in facts:
        entries += [("", ""), *(("probe", _trial_text(trial)) for trial in facts["probe"])]
    return "\n".join([*_top(facts), "", *(wrapped(text, f"{name:15}") for name, text in entries)])


def _top(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the first lines: the summary and the next step."""
    yield wrapped(facts["summary"])
    if facts["path"]["in_force"] != "hardware":
        for step in islice(_steps(facts), 1):
            yield wrapped(f"Next: {step}.")


def _steps(facts: dict[str, Any]) -> Iterator[str]:
    """Yield all steps, in order."""
    yield from facts["advice"]
    for device in facts["devices"]:
        yield from (f"{device.dev}: {step}" for step in device_advice(device))
        for queue in device.queues:
            yield from (f"{queue.dev}: {step}" for step in queue_advice(device, queue))


def _status_text(status: int | None) -> str:
    if _core.libqpl_version() is None:
        return "not in this build"
    if status is None:
        return "not asked for a device"
    advice = f": {_core.hardware_advice(status)}" if status else ""
    return f"{status}, {_core.status_name(status)}{advice}"


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
