"""Common parts of the commands: exit statuses and messages."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import TYPE_CHECKING

from numcodecs_qpl._core import QplError, get_threads, path_in_force

if TYPE_CHECKING:
    # For type checkers only: at run time, argparse's private class takes no parameter.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "numcodecs-qpl"

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses. argparse itself exits with 2 if the command line is wrong; 130 is a shell's status for Ctrl-C."""

NO_HARDWARE = "the hardware path cannot be used: no IAA is ready; unset NUMCODECS_QPL_PATH to use software"

EXIT_STATUS = "exit status: 0 for success, 1 for a failure, 2 for a wrong command line"


def examples(*arguments: str) -> str:
    """Return the last lines of a ``--help``: one command line for each of `arguments`."""
    return "\n  ".join(["examples:", *(f"{PROGRAM} {words}" for words in arguments)])


def missing(*packages: str) -> list[str]:
    """Return the names of the `packages` that are not installed."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def unusable_settings() -> str:
    """Return an error message about the settings of path and threads; empty if they are valid and possible."""
    try:
        path_in_force()
        get_threads()
    except QplError:
        return f"{NO_HARDWARE}, or see `{PROGRAM} info`"
    except ValueError as error:
        return str(error)
    return ""


def failed(message: str) -> int:
    """Print an error message, and return the exit status of a failure."""
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return FAILED
