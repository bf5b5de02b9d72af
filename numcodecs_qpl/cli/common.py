"""What the commands share: exit statuses, and how they speak."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import TYPE_CHECKING

from numcodecs_qpl._core import QplError, get_threads, path_in_force

if TYPE_CHECKING:
    # Not at run time, where argparse's private class takes no parameter.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "numcodecs-qpl"

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses. argparse itself exits with 2 if the command line is wrong; 130 is a shell's own for Ctrl-C."""

EXIT_STATUS = "exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong"


def examples(*arguments: str) -> str:
    """The last lines of a ``--help``: the command lines that `arguments` make."""
    return "\n  ".join(["examples:", *(f"{PROGRAM} {words}" for words in arguments)])


def missing(*packages: str) -> str:
    """Those of `packages` that are not installed, as a sentence has them; nothing if all are."""
    return ", ".join(package for package in packages if importlib.util.find_spec(package) is None)


def unusable_settings() -> str:
    """Why the process's path and threads cannot be followed; nothing if they can."""
    try:
        path_in_force()
        get_threads()
    except (QplError, ValueError) as error:
        return f"{error} (`{PROGRAM} info` says more)"
    return ""


def failed(message: str) -> int:
    """Say what went wrong, and return the exit status that says so too."""
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return FAILED
