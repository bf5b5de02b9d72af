"""The command ``numcodecs-qpl``.

A command is a pair of functions: ``_add_<name>`` describes it to argparse, and ``_<name>`` does it and returns the exit
status; `_parser` calls the first of the two. A failure that can be expected is told by `_failed`, without a traceback.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numcodecs_qpl import __version__, _core
from numcodecs_qpl._core._jobs import PATH_SETTINGS
from numcodecs_qpl.devices import PATH_NAMES, SYSFS, Device, WorkQueue, devices

if TYPE_CHECKING:
    # Not at run time, where argparse's private class takes no parameter.
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "numcodecs-qpl"

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses. argparse itself exits with 2 if the command line is wrong; 130 is a shell's own for Ctrl-C."""

DEMO_NEEDS = ("zarr", "h5py", "pvlib", "rich")
DEMO_INSTALL = 'pip install "numcodecs-qpl[demo]"'
"""Packages of the extra "demo", and the command that installs them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own if None) and return its exit status."""
    try:
        try:
            arguments = _parser().parse_args(argv)
            return int(arguments.run(arguments))
        finally:
            sys.stdout.flush()  # now, while a failure of it can still be told
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # stdout takes no more, and Python's own flush at exit must not complain once more.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        # A reader who has gone, as in `numcodecs-qpl info | head -1`, has seen enough and needs no message.
        return FAILED if isinstance(error, BrokenPipeError) else _failed(f"the output cannot be written: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Deflate through Intel's libqpl: on an In-Memory Analytics Accelerator (IAA), or in software.",
        epilog=_examples("info", "demo --quick", "demo --help"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"{PROGRAM} {__version__} (libqpl {_core.libqpl_version()})"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_info(commands)
    _add_demo(commands)
    return parser


def _examples(*arguments: str) -> str:
    return "\n  ".join(["examples:", *(f"{PROGRAM} {words}" for words in arguments)])


def _failed(message: str) -> int:
    """Say what went wrong, and return the exit status that says so too."""
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return FAILED


# ---- info ---------------------------------------------------------------------------------------


def _add_info(commands: _Commands) -> None:
    command = commands.add_parser(
        "info",
        help="versions, where the work runs and why, threads, devices",
        description="Show the versions, the path in force and why, the threads that share a chunk, and the\n"
        "accelerators and work queues that Linux knows of.",
        epilog=_examples("info", "info --json"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    facts = _facts()
    print(json.dumps(facts, indent=2, default=asdict) if arguments.json else _text_of(facts))
    return _failed("; ".join(facts["errors"])) if facts["errors"] else OK


def _facts() -> dict[str, Any]:
    """What `info` tells; "errors" are settings that mean nothing, which a machine without an IAA is not."""
    errors = []
    threads = None
    try:
        threads = _core.get_threads()
    except ValueError as error:
        errors.append(str(error))
    path = _path_facts()
    if path["setting"] not in PATH_SETTINGS:
        errors.append(path["why"])
    return {
        "versions": {
            PROGRAM: __version__,
            "libqpl": _core.libqpl_version(),
            "Python": platform.python_version(),
            **{package: _installed_version(package) for package in ("numcodecs", "numpy", "isal", "zarr")},
        },
        "path": path,
        "threads": threads,
        "devices": devices(),
        "errors": errors,
    }


def _path_facts() -> dict[str, Any]:
    facts: dict[str, Any] = {"setting": _core.get_path(), "in_force": None, "why": "", "hardware_init_status": None}
    try:
        facts["in_force"] = _core.path_in_force()
    except ValueError as error:
        return {**facts, "why": str(error)}
    except _core.QplError:
        pass  # the status says it too
    if facts["setting"] == "software":
        # Whoever chose it may want libqpl to keep away from the devices.
        return {**facts, "why": "the setting says so, and libqpl was not asked for a device"}
    status = _core.hardware_init_status()
    said = f"libqpl's hardware init status is {status}, {_core.status_name(status)}"
    if status:
        why = f"no IAA can be used: {said}: {_core.hardware_advice(status)}"
    else:
        why = f"an IAA can be used: {said}. Level 3, which hardware does not have, "
        why += "fails" if facts["setting"] == "hardware" else "runs on the software path"
    return {**facts, "why": why, "hardware_init_status": status}


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text_of(facts: dict[str, Any]) -> str:
    path = facts["path"]
    in_force = PATH_NAMES.get(path["in_force"], "none: compressing and decompressing will fail")
    entries = [(name, version or "not installed") for name, version in facts["versions"].items()]
    entries += [("", ""), ("path setting", path["setting"]), ("path in force", in_force), ("because", path["why"])]
    entries += [("", ""), ("threads", str(facts["threads"] or "not a valid setting")), ("", "")]
    if not facts["devices"]:
        entries.append(("devices", f"none: Linux's idxd driver shows no IAA in {SYSFS}"))
    for device in facts["devices"]:
        entries.append((device.dev, _device_text(device)))
        entries += [(f"  {queue.dev}", _queue_text(queue)) for queue in device.queues]
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
    traits += ["size unknown" if queue.size is None else f"size {queue.size}", f"name {queue.name or 'none'}"]
    return ", ".join([*traits, f"{queue.node} {access}"])


# ---- demo ---------------------------------------------------------------------------------------


def _add_demo(commands: _Commands) -> None:
    command = commands.add_parser(
        "demo",
        help="a real array through zarr, with QPL and the usual codecs",
        description="Write a real array (monthly maps of how hazy the air is, 112 MB) to zarr stores, with QPL\n"
        "and with the usual codecs; read each back, compare it bit for bit, and show ratio and speed.\n"
        f"What it needs is installed by: {DEMO_INSTALL}",
        epilog=_examples("demo", "demo --quick", "demo --store stores"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--quick", action="store_true", help="take a small part of the array: a second, but rougher speeds"
    )
    command.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        help="keep the stores in DIR, a new or empty folder (default: a temporary folder that is removed)",
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    missing = [package for package in DEMO_NEEDS if importlib.util.find_spec(package) is None]
    if missing:
        return _failed(f"the demo needs {', '.join(missing)}: {DEMO_INSTALL}")
    try:
        from numcodecs_qpl import demo
    except ImportError as error:  # there, but not of the version that is needed
        return _failed(f"the demo cannot use what is installed ({error}): {DEMO_INSTALL}")
    try:
        demo.run(arguments.store, quick=arguments.quick)
    except demo.DemoError as error:
        return _failed(str(error))
    return OK
