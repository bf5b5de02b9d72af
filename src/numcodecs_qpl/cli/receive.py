"""The command ``numcodecs-qpl receive``."""

from __future__ import annotations

import argparse
import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from numcodecs_qpl._core import QplError
from numcodecs_qpl.cli.common import OK, examples, failed, missing
from numcodecs_qpl.cli.migration import (
    MAX_CHANNELS,
    add_listen,
    add_page_size,
    check_path,
    positive,
    progress,
    say_listening,
    say_refused,
    whole_number,
)
from numcodecs_qpl.cli.signals import Signals, Terminated
from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder
from numcodecs_qpl.multifd.folder.writer import MAX_DEVICE_STATE, OUTPUTS, ZarrOutput
from numcodecs_qpl.multifd.receiver import Receiver
from numcodecs_qpl.multifd.transport.listener import Listener

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands

MAX_STATE_MIB = 1 << 20


def add_receive(commands: Commands) -> None:
    """Describe ``numcodecs-qpl receive`` to argparse."""
    command = commands.add_parser(
        "receive",
        help="receive a live migration of QEMU and store the guest's memory",
        description="Receive one multifd migration of QEMU (7.2 to 11), with any compression method,\n"
        "like a destination. Write the guest's memory to files or to a zarr group, with\n"
        "the unchanged device state and a manifest. The manifest comes last: without it\n"
        "DIR is not complete.",
        epilog=examples(
            "receive --listen unix:m.sock --channels 4 --output guest",
            "receive --listen tcp::4444 --channels 4 --format zarr \\\n      --output day-1",
            "receive --listen tcp::4444 --channels 4 --format zarr \\\n      --output day-2 --like day-1",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_listen(command)
    command.add_argument(
        "--channels",
        type=whole_number("channels", MAX_CHANNELS),
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
        "--like",
        type=Path,
        metavar="EARLIER",
        help="an earlier snapshot of the guest, of the format zarr: equal chunks of memory become hard links",
    )
    command.add_argument(
        "--timeout",
        type=positive("seconds"),
        default=60.0,
        metavar="S",
        help="give up when nothing has come for S seconds; counts from the first connection (default: 60)",
    )
    command.add_argument(
        "--uuid",
        type=_uuid,
        help="accept only the guest with this uuid (QEMU's -uuid; all zeros without that option)",
    )
    command.add_argument(
        "--max-device-state",
        type=whole_number("MiB", MAX_STATE_MIB),
        default=MAX_DEVICE_STATE >> 20,
        metavar="MIB",
        help="give up when the device state has more MiB than this (default: %(default)s)",
    )
    add_page_size(command)
    command.set_defaults(run=lambda arguments: _receive(arguments, command))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        message = f"invalid uuid {text!r}: expected 32 hexadecimal digits, with or without hyphens"
        raise argparse.ArgumentTypeError(message) from None


def _receive(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    if arguments.listen.kind == "tls":
        command.error("--listen cannot be tls:HOST:PORT for receive; put `numcodecs-qpl relay` with TLS before it")
    if arguments.like and arguments.format != "zarr":
        command.error("--like needs --format zarr: a raw file cannot share its parts with another")
    if arguments.format == "zarr" and missing("zarr"):
        return failed('--format zarr needs zarr: pip install "zarr>=3.1.6"')
    try:
        check_path(command)
        with Signals() as signals, contextlib.ExitStack() as stack:
            make = OUTPUTS[arguments.format]
            if arguments.like:
                make = partial(ZarrOutput, earlier=stack.enter_context(ReceivedFolder(arguments.like)))
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
                refused=say_refused,
            )
            say_listening(listener.address)
            with progress(lambda: _receiving(receiver)):
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
    if arguments.like and isinstance(output, ZarrOutput):
        kept, links = output.chunks_kept()
        print(f"{links} of {kept} chunks are links to {arguments.like}")
    return OK


def _receiving(receiver: Receiver) -> str:
    counts = receiver.counts
    memory = sum(block.used_length for block in list(receiver.blocks.values()))
    return (
        f"{receiver.bytes_received() / 1e6:.1f} MB came, guest {memory / 1e6:.1f} MB; {counts.normal_pages} pages, "
        f"{counts.zero_pages} zero pages, {counts.pages_again} sent again"
    )
