"""The command ``numcodecs-qpl send``."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl._core import QplError
from numcodecs_qpl.cli.common import OK, examples, failed, missing
from numcodecs_qpl.cli.migration import (
    INSTALL,
    MAX_CHANNELS,
    METHODS,
    add_connect,
    add_huffman,
    add_timeouts,
    add_tls,
    check_path,
    progress,
    tls_files,
    whole_number,
)
from numcodecs_qpl.cli.signals import Signals, Terminated
from numcodecs_qpl.multifd import MigrationParameters, MultiFDCompression, MultiFDError
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder
from numcodecs_qpl.multifd.sender import Sender
from numcodecs_qpl.multifd.transport.tlsfiles import tls_context
from numcodecs_qpl.text import wrapped

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands


def add_send(commands: Commands) -> None:
    """Describe ``numcodecs-qpl send`` to argparse."""
    command = commands.add_parser(
        "send",
        help="restore a guest that was received, into a QEMU that waits for it",
        description="Send a guest that `numcodecs-qpl receive` has stored to a QEMU that was started\n"
        "with -incoming. Nothing is sent before all of FOLDER has been checked. The\n"
        "command succeeds when the QEMU has confirmed that it has loaded everything.\n"
        "FOLDER does not change.",
        epilog=examples(
            "send guest --connect unix:in.sock",
            "send guest --connect tcp:10.0.0.2:4444 --channels 4 --method qpl",
        )
        + "\nThe QEMU needs the machine type, the memory and the devices that are printed,\n"
        "and its disks as they were when the guest was stopped. For N channels, turn on\n"
        "its capability multifd, and set multifd-channels to N and multifd-compression\n"
        "to METHOD.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the output folder of receive")
    add_connect(command)
    command.add_argument(
        "--channels",
        type=_channels,
        default=0,
        metavar="N",
        help="the QEMU's multifd-channels, 1 to 255, or 0 (the default) if its multifd is off",
    )
    command.add_argument(
        "--method", choices=METHODS, default="none", help="the QEMU's multifd-compression (default: none)"
    )
    add_huffman(command)
    add_tls(command)
    add_timeouts(command, "")
    command.set_defaults(run=lambda arguments: _send(arguments, command))


def _channels(text: str) -> int:
    return 0 if text == "0" else whole_number("channels", MAX_CHANNELS)(text)


def _send(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    tls = tls_files(arguments, command, arguments.connect)
    if arguments.method != MultiFDCompression.NONE.value and not arguments.channels:
        command.error(f"--method {arguments.method} is for multifd channels: set --channels to the QEMU's number")
    if arguments.huffman and arguments.method != MultiFDCompression.QPL.value:
        command.error(f"--huffman is for --method qpl; it has no effect on {arguments.method}")
    if arguments.method == "zstd" and missing("zstandard"):
        return failed(f"zstd needs zstandard: {INSTALL}")
    started = time.monotonic()
    try:
        check_path(command)
        with Signals() as signals, contextlib.ExitStack() as stack:
            context = tls_context(arguments.connect, tls, server=False)
            folder = stack.enter_context(ReceivedFolder(arguments.folder))
            print(_needs(folder, arguments), flush=True)
            sender = Sender(
                folder,
                arguments.connect,
                channels=arguments.channels,
                method=arguments.method,
                parameters=MigrationParameters(huffman=arguments.huffman or "fixed"),
                tls=context,
                timeout=arguments.timeout,
                link_timeout=arguments.link_timeout,
            )
            with progress(lambda: f"checking {folder.path}"):
                folder.verify(signals.check)
            with progress(lambda: _sending(sender)):
                sender.run(signals.check)
    except (MultiFDError, QplError) as error:
        return failed(str(error))
    except Terminated as error:
        return error.status
    seconds = time.monotonic() - started
    print(wrapped(f"restored: the QEMU has loaded everything; {_sending(sender)}, in {seconds:.1f} s"))
    return OK


def _needs(folder: ReceivedFolder, arguments: argparse.Namespace) -> str:
    """List the properties that the QEMU needs, for the operator to compare."""
    memory = sum(block.used_length for block in folder.blocks)
    blocks = ", ".join(f"{block.name} ({block.used_length})" for block in folder.blocks)
    multifd = (
        f"on, multifd-channels {arguments.channels}, multifd-compression {arguments.method}"
        if arguments.channels
        else "off"
    )
    lines = {
        "machine type": folder.configuration.machine or "not known",
        "uuid": str(folder.uuid),
        "memory": f"{memory} bytes in {len(folder.blocks)} RAM blocks: {blocks}",
        "devices": ", ".join(folder.devices),
        "disks": folder.disks,
        "multifd": multifd,
    }
    text = (wrapped(value, f"  {name}: ") for name, value in lines.items())
    return "\n".join([f"{folder.path}: the QEMU needs", *text])


def _sending(sender: Sender) -> str:
    counts = sender.counts
    return f"{counts.normal_pages} pages, {counts.zero_pages} zero pages; {sender.bytes_sent() / 1e6:.1f} MB sent"
