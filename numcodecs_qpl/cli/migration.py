"""The commands ``numcodecs-qpl receive`` and ``numcodecs-qpl relay``."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from numcodecs_qpl._core import HUFFMAN, QplError, check_settings
from numcodecs_qpl.cli.common import OK, examples, failed, missing
from numcodecs_qpl.files import write_whole
from numcodecs_qpl.multifd import MigrationParameters, MultiFDCompression, MultiFDError
from numcodecs_qpl.multifd.address import Address, Listener, TLSFiles, is_same_socket, parse_address, tls_context
from numcodecs_qpl.multifd.errors import OutcomeUnknownError
from numcodecs_qpl.multifd.output import MAX_DEVICE_STATE, OUTPUTS
from numcodecs_qpl.multifd.receiver import Receiver
from numcodecs_qpl.multifd.relay import Relay
from numcodecs_qpl.multifd.wire import PACKET_SIZE, pages_in_packet

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands

MAX_CHANNELS = 255
MAX_STATE_MIB = 1 << 20
MAX_LINK_SECONDS = 32767  # Linux's limit of TCP_KEEPIDLE
INSTALL = 'pip install "numcodecs-qpl[migration]"'
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


# ---- receive ------------------------------------------------------------------------------------


def add_receive(commands: Commands) -> None:
    """Describe ``numcodecs-qpl receive`` to argparse."""
    command = commands.add_parser(
        "receive",
        help="take a live migration of QEMU and keep the guest's memory",
        description="Take one incoming multifd migration of QEMU (7.2 to 11), of any compression method, as a\n"
        "destination would, and write the guest's memory to files or to a zarr group, with the device\n"
        "state as it came and a manifest. The manifest comes last: without it DIR is not complete.",
        epilog=examples(
            "receive --listen unix:/run/m.sock --channels 4 --output guest",
            "receive --listen tcp:10.0.0.2:4444 --channels 4 --output guest --format zarr",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_listen(command)
    command.add_argument(
        "--channels",
        type=_whole_number("channels", MAX_CHANNELS),
        required=True,
        metavar="N",
        help="the source's multifd-channels, 1 to 255",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    command.add_argument(
        "--format",
        choices=list(OUTPUTS),
        default="raw",
        help="raw: a file for each RAM block (the default); zarr: an array for each, compressed with QPL",
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="give up when nothing has come for S seconds; counts from the first connection (default: 60)",
    )
    command.add_argument(
        "--uuid",
        type=UUID,
        help="accept only the guest with this uuid (QEMU's -uuid; all zeros where it was given none)",
    )
    command.add_argument(
        "--max-device-state",
        type=_whole_number("MiB", MAX_STATE_MIB),
        default=MAX_DEVICE_STATE >> 20,
        metavar="MIB",
        help="give up when the device state has more MiB than this (default: %(default)s)",
    )
    _add_page_size(command)
    command.set_defaults(run=lambda arguments: _receive(arguments, command))


def _receive(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    if arguments.listen.kind == "tls":
        command.error("--listen cannot be tls:HOST:PORT for receive; put `numcodecs-qpl relay` with TLS before it")
    if arguments.format == "zarr" and missing("zarr"):
        return failed('--format zarr needs zarr: pip install "numcodecs-qpl[zarr]"')
    try:
        _check_settings(command)
        with _Signals() as signals, contextlib.ExitStack() as stack:
            make = OUTPUTS[arguments.format]
            output = make(arguments.output, arguments.page_size, arguments.max_device_state << 20)
            stack.callback(output.discard)
            listener = Listener(arguments.listen)
            stack.callback(listener.close)
            signals.let_come()
            receiver = Receiver(
                listener,
                output,
                arguments.channels,
                page_size=arguments.page_size,
                uuid=arguments.uuid,
                timeout=arguments.timeout,
                refused=_say_refused,
            )
            with _progress(lambda: _receiving(receiver)):
                manifest = receiver.run()
    except (MultiFDError, QplError) as error:
        return failed(str(error))
    except OSError as error:
        reason = error.strerror or error
        return failed(f"cannot write to {arguments.output}: {reason}; make room there, or give another --output")
    except Terminated as error:
        return error.status
    pages, blocks = manifest["pages"], len(manifest["blocks"])
    print(
        f"{arguments.output}: {blocks} RAM blocks; {pages['normal']} pages, {pages['zero']} zero ones, "
        f"{pages['sent_again']} of them sent again; {manifest['bytes_on_the_wire']['total']} bytes in "
        f"{manifest['seconds']} s"
    )
    return OK


def _receiving(receiver: Receiver) -> str:
    counts = receiver.counts
    memory = sum(block.used_length for block in list(receiver.blocks.values()))
    return (
        f"{counts.normal_pages} pages, {counts.zero_pages} zero pages, {counts.pages_again} of them sent again; "
        f"{receiver.bytes_received() / 1e6:.1f} MB came, of a guest of {memory / 1e6:.1f} MB"
    )


# ---- relay --------------------------------------------------------------------------------------


def add_relay(commands: Commands) -> None:
    """Describe ``numcodecs-qpl relay`` to argparse."""
    command = commands.add_parser(
        "relay",
        help="stand between two QEMUs, and recode the pages of a migration on their way",
        description="Take the connections of one multifd migration, open the same onward, and recode each packet\n"
        "from one compression method to another. With a relay on each host, two QEMUs that know only\n"
        "'none' migrate over a link that carries 'qpl'. At the end one line of JSON says what was done.",
        epilog=examples(
            "relay --listen unix:/run/out.sock --connect tcp:10.0.0.2:4444 --from none --to qpl",
            "relay --listen tcp:10.0.0.2:4444 --connect unix:/run/in.sock --from qpl --to none",
        )
        + "\nThe first runs on the source's host, the second on the destination's. Start the second one first.\n"
        "Instead of tcp:HOST:PORT, use tls:HOST:PORT with --tls-cert, --tls-key and --tls-ca.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_listen(command)
    command.add_argument("--connect", type=_address, required=True, metavar="ADDRESS", help="where the migration goes")
    command.add_argument(
        "--from", dest="decode", choices=METHODS, required=True, help="method of the packets that come"
    )
    command.add_argument("--to", dest="encode", choices=METHODS, required=True, help="method of the packets that go")
    command.add_argument(
        "--huffman",
        choices=list(HUFFMAN),
        help="Huffman tables of qpl: fixed, as QEMU's own (the default), or dynamic: smaller and slower",
    )
    tls = command.add_argument_group("TLS", "for an address of the kind tls:HOST:PORT; files in PEM format")
    tls.add_argument("--tls-cert", type=Path, metavar="FILE", help="our certificate")
    tls.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    tls.add_argument(
        "--tls-ca",
        type=Path,
        metavar="FILE",
        help="certificate of the authority that issued the other relay's certificate",
    )
    tls.add_argument(
        "--verify-peer",
        action=argparse.BooleanOptionalAction,
        help="a listener asks for the certificate of the relay that connects (the default)",
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="give up when nothing has passed for S seconds; counts from the first connection (default: 600)",
    )
    command.add_argument(
        "--link-timeout",
        type=_whole_number("seconds", MAX_LINK_SECONDS),
        default=120,
        metavar="S",
        help="end when the other host has acknowledged nothing, or taken nothing, on a tcp or tls connection for S "
        f"seconds, 1 to {MAX_LINK_SECONDS} (default: 120)",
    )
    command.add_argument("--stats", type=Path, metavar="FILE", help="write the line of JSON to FILE too")
    _add_page_size(command)
    command.set_defaults(run=lambda arguments: _relay(arguments, command))


def _relay(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    if "zstd" in (arguments.decode, arguments.encode) and missing("zstandard"):
        return failed(f"zstd needs zstandard: {INSTALL}")
    tls = _tls_files(arguments, command)
    _check_effect(arguments, command)
    try:
        _check_settings(command)
        with _Signals() as signals, contextlib.ExitStack() as stack:
            tls_context(arguments.connect, tls, server=False)  # reports now what would fail later
            listener = Listener(arguments.listen, tls)
            stack.callback(listener.close)
            relay = Relay(
                listener,
                arguments.connect,
                arguments.decode,
                arguments.encode,
                parameters=MigrationParameters(huffman=arguments.huffman or "fixed"),
                tls=tls,
                page_size=arguments.page_size,
                timeout=arguments.timeout,
                link_timeout=arguments.link_timeout,
                refused=_say_refused,
                warned=_warn,
            )
            return _run_relay(relay, arguments.stats, signals)
    except MultiFDError as error:
        return failed(str(error))
    except Terminated as error:
        return error.status


def _tls_files(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> TLSFiles | None:
    """The files of the TLS options, if an address is of the kind "tls"; options without effect are misuse."""
    files = (arguments.tls_cert, arguments.tls_key, arguments.tls_ca)
    wanted = [str(address) for address in (arguments.listen, arguments.connect) if address.kind == "tls"]
    if wanted and not all(files):
        command.error(f"{wanted[0]} needs --tls-cert, --tls-key and --tls-ca")
    if any(files) and not wanted:
        command.error("--tls-cert, --tls-key and --tls-ca are for tls:HOST:PORT; neither address is of that kind")
    return TLSFiles(*files, verify_peer=arguments.verify_peer is not False) if wanted else None


def _check_effect(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """Refuse options that would have no effect, and a relay that would connect to itself."""
    if arguments.huffman and arguments.encode != MultiFDCompression.QPL.value:
        command.error(f"--huffman is for --to qpl; it has no effect on {arguments.encode}")
    if arguments.verify_peer is not None and arguments.listen.kind != "tls":
        command.error("--verify-peer and --no-verify-peer are for --listen tls:HOST:PORT; other listeners do not ask")
    if is_same_socket(arguments.listen, arguments.connect):
        command.error(f"--listen {arguments.listen} and --connect {arguments.connect} are the same socket")


def _run_relay(relay: Relay, stats: Path | None, signals: _Signals) -> int:
    ended, error_text, status = "failed", None, OK
    try:
        with _progress(lambda: _relaying(relay)):
            relay.run(signals.check)
        ended = "complete"
    except MultiFDError as error:
        if isinstance(error, OutcomeUnknownError):
            ended = "unknown"
        error_text = str(error)
        status = failed(error_text)
    except Terminated as error:
        ended, status = "terminated", error.status
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        line = json.dumps({"ended": ended, "error": error_text, **relay.statistics()})
        if stats is not None:
            status = _write(stats, line + "\n") or status
        print(line, flush=True)
    return status


def _relaying(relay: Relay) -> str:
    seen = relay.statistics()
    pages = seen["pages"]
    return (
        f"{pages['normal']} pages, {pages['zero']} zero pages; {seen['bytes_in'] / 1e6:.1f} MB came, "
        f"{seen['bytes_out'] / 1e6:.1f} MB went, in {seen['seconds']:.1f} s"
    )


def _write(path: Path, text: str) -> int:
    try:
        write_whole(path, lambda beside: beside.write_text(text))
    except OSError as error:
        return failed(f"{path} cannot be written: {error.strerror}")
    return OK


# ---- Both ---------------------------------------------------------------------------------------


def _add_listen(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--listen",
        type=_address,
        required=True,
        metavar="ADDRESS",
        help="where the migration comes: unix:PATH or tcp:HOST:PORT; tcp::PORT is loopback only",
    )


def _add_page_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--page-size", type=_page_size, default=4096, metavar="BYTES", help="of the guest (default: 4096)"
    )


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole_number(unit: str, most: int) -> Callable[[str], int]:
    """For argparse: a number of `unit` from 1 to `most`."""

    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {unit} from 1 to {most}")

    return parse


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def _page_size(text: str) -> int:
    size = _whole_number("bytes", PACKET_SIZE)(text)
    try:
        pages_in_packet(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return size


def _check_settings(command: argparse.ArgumentParser) -> None:
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


def _say_refused(reason: str) -> None:
    _tell(f"refused a connection: {reason}")


def _warn(text: str) -> None:
    _tell(f"warning: {text}")


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # a migration goes on without its log
        print(line, file=sys.stderr, flush=True)


class _Signals:
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


def _progress(text: Callable[[], str]) -> AbstractContextManager[Any]:
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
