"""Commands whose stderr is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def on_terminal(command: Sequence[str | Path], environment: Mapping[str, str]) -> tuple[str, bytes]:
    """Run a command that has to succeed: its output, and what the terminal was sent."""
    screen, keyboard = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=keyboard, text=True)
    os.close(keyboard)
    shown = b""
    try:
        while piece := os.read(screen, 65536):
            shown += piece
    except OSError:  # the last writer has closed it
        pass
    os.close(screen)
    output, _ = process.communicate()
    assert process.returncode == 0
    return output, shown
