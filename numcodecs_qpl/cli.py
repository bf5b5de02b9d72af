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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numcodecs_qpl import __version__, _core
from numcodecs_qpl.devices import SYSFS, Device, WorkQueue, devices

if TYPE_CHECKING:
    # Not at run time, where argparse's private class takes no parameter.
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "numcodecs-qpl"

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses. argparse itself exits with 2 if the command line is wrong; 130 is a shell's own for Ctrl-C."""

PATH_NAMES = {"hardware": "IAA", "software": "software path"}
"""What `_core.path_in_force` returns, for readers."""

DEMO_NEEDS = ("zarr", "h5py", "pvlib", "rich")
"""Packages of the extra "demo"."""


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
        epilog=_examples("info", "demo") + f"\n\n`{PROGRAM} COMMAND --help` says more of a command.",
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
        help="versions, where the work runs and why, the devices of this machine, threads",
        description="Show the versions, the path in force and why, the devices that Linux knows of, and the threads. "
        "Nothing is compressed and no device is set up.",
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
    setting = _core.get_path()
    in_force = hardware = threads = None
    if setting != "software":  # who has chosen software may want libqpl to stay away from the devices
        status = _core.hardware_init_status()
        advice = _core.hardware_advice(status) if status else None
        hardware = {"status": status, "name": _core.status_name(status), "advice": advice}
    try:
        in_force = _core.path_in_force()
    except _core.QplError:
        pass  # `hardware` says it
    except ValueError as error:
        errors.append(str(error))
    try:
        threads = _core.get_threads()
    except ValueError as error:
        errors.append(str(error))
    packages = ("numcodecs", "numpy", "isal", "zarr")
    return {
        "versions": {
            PROGRAM: __version__,
            "libqpl": _core.libqpl_version(),
            "Python": platform.python_version(),
            **{package: _installed_version(package) for package in packages},
        },
        "path": {"setting": setting, "in_force": in_force, "hardware": hardware},
        "devices": devices(),
        "threads": threads,
        "errors": errors,
    }


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text_of(facts: dict[str, Any]) -> str:
    path = facts["path"]
    lines = [(name, version or "not installed") for name, version in facts["versions"].items()]
    lines.append(("", ""))
    lines.append(("path setting", path["setting"]))
    lines.append(("path in force", PATH_NAMES.get(path["in_force"], "none: compressing and decompressing will fail")))
    lines += _paragraph("because", _reasons(**path))
    lines.append(("", ""))
    lines += _paragraph("devices", _device_lines(facts["devices"]))
    lines.append(("", ""))
    lines.append(("threads", str(facts["threads"] or "unknown")))
    return "\n".join(f"{name:15}{text}".rstrip() for name, text in lines)


def _paragraph(name: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    return [(name if number == 0 else "", line) for number, line in enumerate(lines)]


def _reasons(setting: str, in_force: str | None, hardware: dict[str, Any] | None) -> list[str]:
    if hardware is None:
        return ["the setting says so; libqpl was not asked for a device"]
    if setting not in ("auto", "hardware"):
        return ["there is no such setting"]
    found = f"libqpl's hardware init status is {hardware['status']}, {hardware['name']}"
    if in_force == "hardware":
        return [f"an IAA can be used: {found};", "level 3, which hardware does not have, runs on the software path"]
    return [f"no IAA can be used: {found}:", hardware["advice"]]
