"""``numcodecs-qpl`` as a process that listens, for tests and benchmarks that connect to it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from forked import Forked

from numcodecs_qpl.multifd.mainrelay import NO_RETURN_PATH
from numcodecs_qpl.multifd.routes import parse_listen

PATIENCE = 30.0
"""Seconds after which something that should have happened has not."""


Environment = Mapping[str, str] | None


class Command:
    """A running ``numcodecs-qpl``; killed when the context ends, if it has not ended itself.

    Attributes
    ----------
    fork : bool
        True if one without a prefix and an environment of its own is a fork (see `forked`). Benchmarks do not fork.

    Parameters
    ----------
    arguments : str
        The command line.
    listens : sequence of str, optional
        Addresses to wait for, if not those after ``--listen``.
    prefix : sequence of str
        What to run it with, as ``["ip", "netns", "exec", NAME]``.
    environment : mapping, optional
        Its environment variables, if not ours.
    stderr : Path, optional
        File for what it writes to stderr, which `finish` does not return then.
    """

    fork: ClassVar[bool] = False

    def __init__(
        self,
        *arguments: str,
        listens: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stderr: Path | None = None,
    ) -> None:
        words = [*prefix, "numcodecs-qpl", *arguments]
        self._process: Forked | subprocess.Popen[str]
        if self.fork and not prefix and environment is None:
            self._process = Forked(words, stderr)
        else:
            with stderr.open("w") if stderr else contextlib.nullcontext(subprocess.PIPE) as errors:
                self._process = subprocess.Popen(
                    words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
                )
        self._listen = list(listens)
        with contextlib.suppress(ValueError):  # it has none; the command reports a wrong address
            self._listen = self._listen or [
                str(address) for _, address in parse_listen(arguments[arguments.index("--listen") + 1])
            ]

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            wait_until(lambda: self._process.poll() is not None or self._is_listening(), "it to listen")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _is_listening(self) -> bool:
        return bool(self._listen) and all(is_listening(address, self.pid) for address in self._listen)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end. Its stderr is returned without the line that it listens."""
        stdout, stderr = self._process.communicate(timeout=PATIENCE)
        if stderr is not None:
            stderr = re.sub("^listening at .*\n", "", stderr, count=1, flags=re.MULTILINE)
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, stdout, stderr)

    def finish_relay(self) -> tuple[int, dict[str, Any], str]:
        """Wait for a relay's end: its exit status, the line of JSON, and what it wrote to stderr.

        Without the warning that the source has not opened the return path, as most recordings have not.
        """
        done = self.finish()
        lines = done.stdout.splitlines()
        assert len(lines) == 1, done
        return done.returncode, json.loads(lines[0]), done.stderr.replace(f"warning: {NO_RETURN_PATH}\n", "")


def wait_until(condition: Any, what: str, patience: float = PATIENCE) -> None:
    """Wait until ``condition()`` holds; TimeoutError if it does not."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.01)


def is_listening(address: str, pid: int | str = "self") -> bool:
    """Return True if a listener is at ``unix:PATH`` or ``tcp:…:PORT``, in the network namespace of the process `pid`.

    Connecting to see would be taken for the migration.
    """
    kind, _, where = address.partition(":")
    if kind == "unix":
        listening = 0x10000
        lines = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
        return any(line[-1] == where and int(line[3], 16) & listening for line in lines)
    port = int(where.rpartition(":")[2])
    tables = [Path(f"/proc/{pid}/net/{table}") for table in ("tcp", "tcp6")]
    text = "".join(table.read_text() for table in tables if table.exists())
    return re.search(rf":{port:04X} 0+:0000 0A ", text) is not None


def receive(folder: Path, listen: str = "", channels: int = 2, environment: Environment = None) -> Command:
    words = ("--listen", listen or f"unix:{folder}/end", "--channels", str(channels), "--output", f"{folder}/out")
    return Command("receive", *words, environment=environment)


def relay(listen: str, connect: str, decode: str, encode: str, *more: str, environment: Environment = None) -> Command:
    words = ("--listen", listen, "--connect", connect, "--from", decode, "--to", encode, *more)
    return Command("relay", *words, environment=environment)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def tls(certificates: Path, name: str) -> list[str]:
    files = (("cert", f"{name}.pem"), ("key", f"{name}.key"), ("ca", "ca.pem"))
    return [word for option, file in files for word in (f"--tls-{option}", str(certificates / file))]
