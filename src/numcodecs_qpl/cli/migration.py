"""Options, messages and signals that the commands for migrations share."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeVar

from numcodecs_qpl._core import HUFFMAN, QplError, check_settings
from numcodecs_qpl.cli.common import missing
from numcodecs_qpl.multifd import MultiFDCompression, MultiFDError
from numcodecs_qpl.multifd.stream.wire import PACKET_SIZE, pages_in_packet
from numcodecs_qpl.multifd.transport.address import Address, parse_address
from numcodecs_qpl.multifd.transport.tlsfiles import TLSFiles

MAX_CHANNELS = 255
MAX_LINK_SECONDS = 32767  # Linux's limit of TCP_KEEPIDLE
INSTALL = "pip install zstandard"
T = TypeVar("T")
METHODS = [method.value for method in MultiFDCompression]


class Terminated(BaseException):
    """SIGTERM came, or SIGHUP, as from a terminal that was closed.

    Attributes
    ----------
    status : int
        The exit status: a shell's own for the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


# ---- Options ------------------------------------------------------------------------------------


def add_connect(command: argparse.ArgumentParser) -> None:
    """Describe ``--connect``."""
    command.add_argument(
        "--connect", type=checked(parse_address), required=True, metavar="ADDRESS", help="where the migration goes"
    )


def add_huffman(command: argparse.ArgumentParser) -> None:
    """Describe ``--huffman``."""
    command.add_argument(
        "--huffman",
        choices=list(HUFFMAN),
        help="Huffman tables of qpl: fixed, as QEMU's own (the default), or dynamic: smaller and slower",
    )


def add_tls(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Describe the options that `tls_files` reads."""
    tls = command.add_argument_group("TLS", "for an address of the kind tls:HOST:PORT; files in PEM format")
    tls.add_argument("--tls-cert", type=Path, metavar="FILE", help="our certificate")
    tls.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    tls.add_argument(
        "--tls-ca",
        type=Path,
        metavar="FILE",
        help="certificate of the authority that issued the other relay's certificate",
    )
    return tls


def tls_files(
    arguments: argparse.Namespace,
    command: argparse.ArgumentParser,
    *addresses: Address,
    also: bool = False,
    verify_peer: bool = True,
) -> TLSFiles | None:
    """Return the files of the TLS options if an address is of the kind "tls", or `also` something else needs them.

    Options without effect are misuse.
    """
    files = (arguments.tls_cert, arguments.tls_key, arguments.tls_ca)
    wanted = [str(address) for address in addresses if address.kind == "tls"] + ["--listen systemd-tls"] * also
    if wanted and not all(files):
        command.error(f"{wanted[0]} needs --tls-cert, --tls-key and --tls-ca")
    if any(files) and not wanted:
        neither = "neither address is" if len(addresses) > 1 else "the address is not"
        command.error(f"--tls-cert, --tls-key and --tls-ca are for tls:HOST:PORT; {neither} of that kind")
    return TLSFiles(*files, verify_peer=verify_peer) if wanted else None


def add_timeouts(command: argparse.ArgumentParser, passed: str) -> None:
    """Describe ``--timeout`` and ``--link-timeout``."""
    command.add_argument(
        "--timeout",
        type=positive("seconds"),
        default=600.0,
        metavar="S",
        help=f"give up when nothing has passed for S seconds{passed} (default: 600)",
    )
    command.add_argument(
        "--link-timeout",
        type=whole_number("seconds", MAX_LINK_SECONDS),
        default=120,
        metavar="S",
        help="end when the other host has acknowledged nothing, or taken nothing, on a tcp or tls connection for S "
        f"seconds, 1 to {MAX_LINK_SECONDS} (default: 120)",
    )


def add_listen(command: argparse.ArgumentParser) -> None:
    """Describe ``--listen``."""
    command.add_argument(
        "--listen",
        type=checked(parse_address),
        required=True,
        metavar="ADDRESS",
        help="where the migration comes: unix:PATH or tcp:HOST:PORT; tcp::PORT is loopback only",
    )


def add_page_size(command: argparse.ArgumentParser) -> None:
    """Describe ``--page-size``."""
    command.add_argument(
        "--page-size", type=page_size, default=4096, metavar="BYTES", help="of the guest (default: 4096)"
    )


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse: `parse`, whose ValueError is the message."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def whole_number(unit: str, most: int) -> Callable[[str], int]:
    """For argparse: a number of `unit` from 1 to `most`."""

    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {unit} from 1 to {most}")

    return parse


def positive(unit: str) -> Callable[[str], float]:
    """For argparse: a number of `unit` above 0."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < float(text) < float("inf"):
                return float(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")

    return parse


def page_size(text: str) -> int:
    """For argparse: the size of a page."""
    size = whole_number("bytes", PACKET_SIZE)(text)
    try:
        pages_in_packet(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return size


# ---- Settings, messages and signals ---------------------------------------------------------------


def check_path(command: argparse.ArgumentParser) -> None:
    """Report a setting that cannot be followed before the listener opens, not with the first page.

    A wrong environment variable is misuse.

    Raises
    ------
    MultiFDError
        If the hardware path is asked for and cannot be used.
    """
    try:
        check_settings()
    except QplError as error:
        raise MultiFDError(str(error)) from error
    except ValueError as error:
        command.error(str(error))


def say_refused(reason: str) -> None:
    """Say why a connection was turned away."""
    _tell(f"refused a connection: {reason}")


def warn(text: str) -> None:
    """Say a warning."""
    _tell(f"warning: {text}")


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # a migration goes on without its log
        print(line, file=sys.stderr, flush=True)


class Signals:
    """Has the first SIGINT, SIGTERM or SIGHUP end the command as an error does, by an exception.

    The first signal waits until `check` or `let_come` is called, so that what is made before can be cleaned up. Later
    signals are ignored: they would interrupt the cleaning up. So is a signal that the process was started to ignore
    (nohup).

    Not by the thread's signal mask: NumPy's libraries have threads, which take the signal then, and Python handles it
    in the main thread all the same.
    """

    def __init__(self) -> None:
        self._waits = True
        self._first: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def let_come(self) -> None:
        """Raise as `check` does when the first signal comes, or now if it came."""
        self._waits = False
        self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt (SIGINT) or `Terminated` if a signal came."""
        if self._first is not None:
            raise KeyboardInterrupt if self._first == signal.SIGINT else Terminated(self._first)

    def _take(self, number: int, frame: object) -> None:
        if self._first is None:
            self._first = number
            if not self._waits:
                self.check()


def progress(text: Callable[[], str]) -> AbstractContextManager[Any]:
    """Show `text` on a terminal, anew four times a second, if rich is installed."""
    if not sys.stderr.isatty() or missing("rich"):
        return contextlib.nullcontext()
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.table import Table

    spinner = Spinner("dots")

    def line() -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(spinner, text())
        return grid

    return Live(get_renderable=line, console=Console(stderr=True), refresh_per_second=4, transient=True)
