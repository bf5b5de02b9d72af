"""``numcodecs-qpl`` in a forked process, which begins without the imports.

They take 0.3 s of CPU time, and the tests start some hundreds of relays and receivers. The fork server of
`multiprocessing` does them once.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["numcodecs_qpl.cli"])


class Forked:
    """A running command, with what `commands.Command` needs of `subprocess.Popen`.

    It has the caller's working folder and umask, and the environment that the first one had.

    Parameters
    ----------
    arguments : sequence of str
        The program and its command line.
    stderr : Path, optional
        File for what it writes to stderr, which `communicate` does not return then.
    """

    def __init__(self, arguments: Sequence[str], stderr: Path | None = None) -> None:
        self.args = arguments
        self._written: tuple[str, str | None] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._stdout = Path(self._folder.name, "stdout")
        self._returns_stderr = stderr is None
        self._stderr = stderr or Path(self._folder.name, "stderr")
        self._stderr.write_text("")  # its caller may read it at once
        umask = os.umask(0o077)
        os.umask(umask)
        words = (arguments, str(Path.cwd()), umask, self._stdout, self._stderr)
        self._process = _server.Process(target=_run, args=words, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> Any:
        """Exit status, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, if it has not ended."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Wait for its end; return what it has written to stdout, and to stderr.

        Raises
        ------
        subprocess.TimeoutExpired
            If it has not ended after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        if self._written is None:
            self._written = self._stdout.read_text(), self._stderr.read_text() if self._returns_stderr else None
            self._folder.cleanup()
        return self._written


def _run(arguments: Sequence[str], folder: str, umask: int, stdout: Path, stderr: Path) -> None:
    from numcodecs_qpl.cli import main

    for descriptor, path in ((1, stdout), (2, stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.umask(umask)
    sys.argv = list(arguments)
    sys.exit(main())
