"""The command ``numcodecs-qpl relay``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl.cli.common import examples, failed, missing
from numcodecs_qpl.cli.migration import (
    INSTALL,
    METHODS,
    add_huffman,
    add_page_size,
    add_timeouts,
    add_tls,
    check_path,
    checked,
    positive,
    whole_number,
)
from numcodecs_qpl.cli.relayone import run_one
from numcodecs_qpl.cli.relayplan import SYSTEMD_TLS, Plan
from numcodecs_qpl.cli.relayservice import run_service
from numcodecs_qpl.cli.signals import Terminated
from numcodecs_qpl.multifd import MultiFDCompression, MultiFDError
from numcodecs_qpl.multifd.transport.access import find_group, find_user, parse_mode
from numcodecs_qpl.multifd.transport.address import parse_address

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands

MAX_MIGRATIONS = 16
"""Default of the most migrations at one time."""


def add_relay(commands: Commands) -> None:
    """Describe ``numcodecs-qpl relay`` to argparse."""
    command = commands.add_parser(
        "relay",
        help="relay a migration between two QEMUs, and recode its pages",
        description="Accept the connections of one multifd migration, open the same connections\n"
        "onward, and recode each packet from one compression method to another. With a\n"
        "relay on each host, two QEMUs that know only 'none' migrate over a link that\n"
        "carries 'qpl'. At the end the relay prints its statistics as a line of JSON.",
        epilog=examples(
            "relay --listen unix:out.sock --connect tcp:10.0.0.2:4444 \\\n      --from none --to qpl",
            "relay --listen tcp:10.0.0.2:4444 --connect unix:in.sock \\\n      --from qpl --to none",
        )
        + "\nThe first runs on the source's host, the second on the destination's. Start the\nsecond one first. "
        "Instead of tcp:HOST:PORT, use tls:HOST:PORT with --tls-cert,\n--tls-key and --tls-ca.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--listen",
        required=True,
        metavar="ADDRESS",
        help="where migrations come: unix:PATH, tcp:HOST:PORT or tls:HOST:PORT; tcp::PORT is loopback only; systemd or "
        "systemd-tls: the sockets that systemd passes",
    )
    command.add_argument("--connect", required=True, metavar="ADDRESS", help="where they go")
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
    _add_access(command)
    service = command.add_argument_group("a relay that stays")
    service.add_argument(
        "--serve",
        action="store_true",
        help="relay many migrations, until SIGTERM; --listen may then stand for many addresses, and --connect for as "
        "many or for one that depends on the guest: {1-8}, {web,db}, and in --connect {name} and {uuid}",
    )
    service.add_argument(
        "--max-migrations",
        type=whole_number("migrations", 1000),
        metavar="N",
        help=f"refuse more than N at one time (default: {MAX_MIGRATIONS})",
    )
    service.add_argument(
        "--metrics",
        type=checked(parse_address),
        metavar="ADDRESS",
        help="serve over HTTP what was done: /metrics for Prometheus, and /status as JSON; unix:PATH or tcp:HOST:PORT",
    )
    command.add_argument(
        "--send-proxy",
        action="store_true",
        help="begin each connection with a PROXY header (version 2), which names the migration; for a next hop that is "
        "a relay with --serve and takes several migrations at one address",
    )
    command.add_argument(
        "--max-bandwidth",
        type=positive("Mbit/s"),
        metavar="MBITS",
        help="send no more than MBITS Mbit/s, all migrations together",
    )
    add_timeouts(command, "; counts from the first connection")
    command.add_argument("--stats", type=Path, metavar="FILE", help="write the line of JSON to FILE too")
    add_page_size(command)
    command.set_defaults(run=lambda arguments: _relay(arguments, command))


def _add_access(command: argparse.ArgumentParser) -> None:
    access = command.add_argument_group(
        "who may connect", "to a unix socket that --listen makes: whoever may write to it"
    )
    for name, parse, what in (
        ("mode", parse_mode, "permission bits, octal (default: 0600)"),
        ("owner", find_user, "name or number of a user"),
        ("group", find_group, "name or number of a group"),
    ):
        access.add_argument(f"--socket-{name}", type=checked(parse), metavar=name.upper(), help=what)


def _relay(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    if "zstd" in (arguments.decode, arguments.encode) and missing("zstandard"):
        return failed(f"zstd needs zstandard: {INSTALL}")
    _check_effect(arguments, command)
    try:
        check_path(command)
        plan = Plan(arguments, command)
        if arguments.serve:
            return run_service(plan, arguments.max_migrations or MAX_MIGRATIONS, arguments.metrics)
        return run_one(plan, arguments.stats)
    except MultiFDError as error:
        return failed(str(error))
    except Terminated as error:
        return error.status


def _check_effect(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """Refuse options that would have no effect."""
    if arguments.huffman and arguments.encode != MultiFDCompression.QPL.value:
        command.error(f"--huffman is for --to qpl; it has no effect on {arguments.encode}")
    access = [arguments.socket_mode, arguments.socket_owner, arguments.socket_group]
    if access != [None] * 3 and not arguments.listen.startswith("unix:"):
        command.error("--socket-mode, --socket-owner and --socket-group are for --listen unix:PATH")
    if arguments.verify_peer is not None and not arguments.listen.startswith(("tls:", SYSTEMD_TLS)):
        command.error("--verify-peer and --no-verify-peer are for --listen tls:HOST:PORT; other listeners do not ask")
    if arguments.serve and arguments.stats:
        command.error("--stats is for a relay of one migration; with --serve, use --metrics")
    if (arguments.max_migrations or arguments.metrics) and not arguments.serve:
        command.error("--max-migrations and --metrics are for --serve; without it a relay takes one migration")
