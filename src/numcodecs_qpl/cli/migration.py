"""Common options, messages and signals of the commands for migrations."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

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


# ---- Options ------------------------------------------------------------------------------------


def add_connect(command: argparse.ArgumentParser) -> None:
    """Describe ``--connect``."""
    command.add_argument(
        "--connect",
        type=checked(parse_address),
        required=True,
        metavar="ADDRESS",
        help="where the migration goes: unix:PATH, tcp:HOST:PORT or tls:HOST:PORT",
    )


def add_huffman(command: argparse.ArgumentParser) -> None:
    """Describe ``--huffman``."""
    command.add_argument(
        "--huffman",
        choices=list(HUFFMAN),
        help="Huffman tables of qpl: fixed, as in QEMU (the default), or dynamic: smaller output, slower",
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
    """Return the files of the TLS options if an address is of the kind "tls", or `also` is true.

    Options without effect are a usage error.
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
        help="end when the other host has acknowledged or accepted nothing on a tcp or tls connection for S seconds, "
        f"1 to {MAX_LINK_SECONDS} (default: 120)",
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
        "--page-size", type=page_size, default=4096, metavar="BYTES", help="the guest's page size (default: 4096)"
    )


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return `parse` for argparse: the text of its ValueError is the message."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def whole_number(unit: str, most: int) -> Callable[[str], int]:
    """Return a parser for argparse: a whole number of `unit` from 1 to `most`."""

    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected a whole number of {unit} from 1 to {most}")

    return parse


def positive(unit: str) -> Callable[[str], float]:
    """Return a parser for argparse: a number of `unit` above 0."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < float(text) < float("inf"):
                return float(text)
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected a number of {unit} above 0")

    return parse


def page_size(text: str) -> int:
    """Parse the size of a page, for argparse."""
    size = whole_number("bytes", PACKET_SIZE)(text)
    try:
        pages_in_packet(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return size


# ---- Settings, messages and signals ---------------------------------------------------------------


def check_path(command: argparse.ArgumentParser) -> None:
    """Check the settings before the listener opens, so that the first page does not fail.

    An invalid environment variable is a usage error.

    Raises
    ------
    MultiFDError
        If the path setting is "hardware" and hardware cannot be used.
    """
    try:
        check_settings()
    except QplError as error:
        raise MultiFDError(str(error)) from error
    except ValueError as error:
        command.error(str(error))


def say_refused(reason: str) -> None:
    """Print the reason of a refused connection."""
    _tell(f"refused a connection: {reason}")


def say_listening(address: Address) -> None:
    """Print the address at which a migration may begin."""
    _tell(f"listening at {address}")


def warn(text: str) -> None:
    """Print a warning."""
    _tell(f"warning: {text}")


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # a migration continues without its log
        print(line, file=sys.stderr, flush=True)


def progress(text: Callable[[], str]) -> AbstractContextManager[Any]:
    """Show `text` in one line of a terminal, updated four times a second, if rich is installed."""
    if not sys.stderr.isatty() or missing("rich"):
        return contextlib.nullcontext()
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console = Console(stderr=True)
    spinner = Spinner("dots")

    def line() -> Spinner:
        # Room for the spinner, a space, and the "^C" that a terminal adds: in a longer line, it would move the cursor
        # to the next line, and this one would remain.
        spinner.text = Text(text())  # not a string, which would be markup
        spinner.text.truncate(console.width - 4, overflow="ellipsis")
        return spinner

    return Live(get_renderable=line, console=console, refresh_per_second=4, transient=True)
