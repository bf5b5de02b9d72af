"""The command ``numcodecs-qpl``.

A command is a module with a pair of functions: ``add_<name>`` describes it to argparse, and ``_<name>`` runs it and
returns the exit status. `_parser` calls ``add_<name>``. An expected failure is reported by `common.failed`, without a
traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numcodecs_qpl import __version__, _core
from numcodecs_qpl.cli.bench import add_bench
from numcodecs_qpl.cli.common import EXIT_STATUS, FAILED, INTERRUPTED, PROGRAM, examples, failed
from numcodecs_qpl.cli.demo import add_demo
from numcodecs_qpl.cli.info import add_info
from numcodecs_qpl.cli.receive import add_receive
from numcodecs_qpl.cli.relay import add_relay
from numcodecs_qpl.cli.send import add_send

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own if None) and return its exit status."""
    try:
        try:
            arguments = _parser().parse_args(argv)
            return int(arguments.run(arguments))
        finally:
            sys.stdout.flush()  # flush here, where a failure can still be reported
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # stdout is broken, and Python's own flush at exit must not fail as well.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        # A reader that ended early, as in `numcodecs-qpl info | head -1`, needs no message.
        return FAILED if isinstance(error, BrokenPipeError) else failed(f"the output cannot be written: {error}")


class _Command(argparse.ArgumentParser):
    """Parser of one command. It reports unknown arguments with the command's own usage, instead of the program's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Deflate on an In-Memory Analytics Accelerator (IAA) or in software, for\n"
        "numcodecs, zarr and QEMU.",
        epilog=examples("info", "demo --quick", "bench my.zarr", "bench --help") + f"\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"{PROGRAM} {__version__} ({_core.engine_versions()})"
    parser.add_argument("--version", action="version", version=version)
    commands: Commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Command)
    add_info(commands)
    add_demo(commands)
    add_bench(commands)
    add_receive(commands)
    add_send(commands)
    add_relay(commands)
    return parser
