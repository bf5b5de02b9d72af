"""docs/restore.md, step by step: its commands and its Python are run as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE, is_listening, wait_until
from programs import need
from qmpshell import answer

need("qemu-system-x86_64")

PAGE = Path(__file__).parents[2] / "docs/restore.md"


class Terminals:
    """Commands that stay in the foreground, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, commands: str) -> None:
        """Run a command, and wait until it listens."""
        terminal = subprocess.Popen(
            ["bash", "-euc", commands],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.running.append(terminal)
        for address in re.findall(r"unix:[\w.-]+", commands):
            wait_until(lambda: terminal.poll() is not None or is_listening(address), address)  # noqa: B023
        assert terminal.poll() is None, terminal.communicate()

    def finish(self, number: int) -> int:
        """Wait for the end of one; its exit status."""
        self.running[number].communicate(timeout=PATIENCE)
        return self.running[number].returncode

    def interrupt(self, number: int) -> None:
        """End one as Ctrl-C does."""
        os.killpg(self.running[number].pid, signal.SIGINT)
        self.finish(number)

    def close(self) -> None:
        for terminal in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(terminal.pid, signal.SIGKILL)
            terminal.communicate()

    def run(self, *command: str) -> str:
        """Run a command to its end; what it printed."""
        return subprocess.run(
            command, cwd=self.folder, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
        ).stdout


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.close()


def test_the_steps_of_the_page_suspend_and_restore_a_guest(terminals: Terminals) -> None:
    steps = re.findall(r"^```(sh stays|sh|python)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    said = []
    for kind, text in steps:
        if "-incoming" in text:
            terminals.interrupt(0)
        if kind == "python" or "echo cont" in text:
            assert terminals.finish(-1) == 0  # what receives
        if kind == "sh stays":
            terminals.start(text)
        else:
            said.append(terminals.run(*(["bash", "-euc"] if kind == "sh" else [sys.executable, "-c"]), text))
    _, looked, restored, status, _, sizes = said
    assert looked.startswith("pc-q35-")
    assert int(re.findall(r"(\d+) of 256 pages", looked)[0]) > 10
    assert "b'SeaBIOS (version" in looked
    assert "the QEMU has loaded everything" in restored
    assert answer(status)["status"] == "running"
    assert answer(terminals.run("bash", "-euc", "echo query-status | qmp-shell guest.qmp"))["status"] == "running"
    chunks = [path.stat().st_nlink for path in (terminals.folder / "guest-2").rglob("c.*")]
    assert "\tguest-2\n" in sizes
    assert chunks.count(2) > len(chunks) // 2
