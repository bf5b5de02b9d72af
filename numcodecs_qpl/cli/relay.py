"""The command ``numcodecs-qpl relay``."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl.cli.common import OK, examples, failed, missing
from numcodecs_qpl.cli.migration import (
    INSTALL,
    METHODS,
    Signals,
    Terminated,
    add_connect,
    add_huffman,
    add_listen,
    add_page_size,
    add_timeouts,
    add_tls,
    check_path,
    progress,
    say_refused,
    tls_files,
    warn,
)
from numcodecs_qpl.files import write_whole
from numcodecs_qpl.multifd import MigrationParameters, MultiFDCompression, MultiFDError
from numcodecs_qpl.multifd.address import is_same_socket
from numcodecs_qpl.multifd.errors import OutcomeUnknownError
from numcodecs_qpl.multifd.listener import Listener
from numcodecs_qpl.multifd.relay import Relay
from numcodecs_qpl.multifd.tlsfiles import tls_context

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands


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
    add_listen(command)
    add_connect(command)
    command.add_argument(
        "--from", dest="decode", choices=METHODS, required=True, help="method of the packets that come"
    )
    command.add_argument("--to", dest="encode", choices=METHODS, required=True, help="method of the packets that go")
    add_huffman(command)
    tls = add_tls(command)
    tls.add_argument(
        "--verify-peer",
        action=argparse.BooleanOptionalAction,
        help="a listener asks for the certificate of the relay that connects (the default)",
    )
    add_timeouts(command, "; counts from the first connection")
    command.add_argument("--stats", type=Path, metavar="FILE", help="write the line of JSON to FILE too")
    add_page_size(command)
    command.set_defaults(run=lambda arguments: _relay(arguments, command))


def _relay(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    if "zstd" in (arguments.decode, arguments.encode) and missing("zstandard"):
        return failed(f"zstd needs zstandard: {INSTALL}")
    verify_peer = arguments.verify_peer is not False
    tls = tls_files(arguments, command, arguments.listen, arguments.connect, verify_peer=verify_peer)
    _check_effect(arguments, command)
    try:
        check_path(command)
        with Signals() as signals, contextlib.ExitStack() as stack:
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
                refused=say_refused,
                warned=warn,
            )
            return _run_relay(relay, arguments.stats, signals)
    except MultiFDError as error:
        return failed(str(error))
    except Terminated as error:
        return error.status


def _check_effect(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """Refuse options that would have no effect, and a relay that would connect to itself."""
    if arguments.huffman and arguments.encode != MultiFDCompression.QPL.value:
        command.error(f"--huffman is for --to qpl; it has no effect on {arguments.encode}")
    if arguments.verify_peer is not None and arguments.listen.kind != "tls":
        command.error("--verify-peer and --no-verify-peer are for --listen tls:HOST:PORT; other listeners do not ask")
    if is_same_socket(arguments.listen, arguments.connect):
        command.error(f"--listen {arguments.listen} and --connect {arguments.connect} are the same socket")


def _run_relay(relay: Relay, stats: Path | None, signals: Signals) -> int:
    ended, error_text, status = "failed", None, OK
    try:
        with progress(lambda: _relaying(relay)):
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
