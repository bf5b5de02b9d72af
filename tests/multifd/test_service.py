"""A relay that stays, with recorded migrations for sources and our receiver for destinations."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest
import trustme
from commands import PATIENCE, free_port
from misuse import misuse
from relays import Served
from sources import IDLE, MAIN, UUIDS, Source, assert_that_it_arrived, connected, receiving
from streams import NAMES, Replay, recording
from tls_files import issue

from numcodecs_qpl.multifd.relay import Relay
from numcodecs_qpl.multifd.routes import GuestAddress
from numcodecs_qpl.multifd.service import Gate, Service
from numcodecs_qpl.multifd.stream import proxy, wire
from numcodecs_qpl.multifd.totals import Totals
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import Listener

NONE = [name for name in NAMES if "-none" in name]


def test_four_migrations_at_once_each_reach_the_destination_of_their_guest(folder: Path) -> None:
    """Their sources connect to one address, and there is one TCP port between the relays."""
    between = f"tcp:127.0.0.1:{free_port()}"
    with (
        Served(between, f"unix:{folder}/{{uuid}}", "qpl", "none", log=folder / "second.log") as second,
        Served(f"unix:{folder}/in", between, "none", "qpl", "--send-proxy", log=folder / "first.log") as first,
        contextlib.ExitStack() as stack,
    ):
        guests = list(zip(UUIDS, NONE, strict=False))
        ends = [stack.enter_context(receiving(folder, uuid)) for uuid, _ in guests]
        sources = [Source(folder / "in", name, uuid) for uuid, name in guests]
        for source in sources:
            source.join()
        for end, (uuid, name) in zip(ends, guests, strict=True):
            assert_that_it_arrived(end, folder, uuid, name)
        for each in (first, second):
            each.wait_for("complete;", 4)
            assert each.metric("numcodecs_qpl_relay_migrations_total", outcome="complete") == 4
        came = sum(len(content) for _, name in guests for content in recording(name).connections)
        assert first.metric("numcodecs_qpl_relay_received_bytes_total") == came
        between_them = first.metric("numcodecs_qpl_relay_sent_bytes_total")
        assert second.metric("numcodecs_qpl_relay_received_bytes_total") == between_them < came
        manifests = [json.loads((folder / f"{uuid}.out" / "manifest.json").read_text()) for uuid, _ in guests]
        went = sum(manifest["bytes_on_the_wire"]["total"] for manifest in manifests)
        assert second.metric("numcodecs_qpl_relay_sent_bytes_total") == went
        for each in (first, second):
            for kind in ("normal", "zero"):
                pages = sum(manifest["pages"][kind] for manifest in manifests if manifest["packets"])
                assert each.metric("numcodecs_qpl_relay_pages_total", kind=kind) <= pages
            assert "ERROR" not in each.drain()


def serve(folder: Path, *more: str, connect: str = "", listen: str = "") -> Served:
    words = (listen or f"unix:{folder}/in", connect or f"unix:{folder}/{{uuid}}", "none", "none")
    return Served(*words, *more, log=folder / "log")


def has_ended(sock: socket.socket) -> bool:
    """Wait until the other side has closed; a reset is one that had not read everything."""
    with contextlib.suppress(ConnectionResetError):
        return sock.recv(1) == b""
    return True


def channel(number: int, uuid: UUID) -> bytes:
    return wire.pack_initial(wire.InitialPacket(uuid, number))


def test_a_source_tries_again_until_its_destination_is_there(folder: Path) -> None:
    with serve(folder) as middle:
        for turn in (1, 2):
            Source(folder / "in", "qemu-11.0.92-none", UUIDS[0]).join()
            middle.wait_for("failed: main channel: cannot connect to", turn)
        with receiving(folder, UUIDS[0]) as end:
            Source(folder / "in", "qemu-11.0.92-none", UUIDS[0]).join()
            assert_that_it_arrived(end, folder, UUIDS[0], "qemu-11.0.92-none")
        middle.wait_for("complete;")
        middle.drain()


def test_a_source_that_begins_again_at_once_is_taken_each_time(folder: Path) -> None:
    """Its second main connection may be seen before the end of its first one."""
    with socket.socket(socket.AF_UNIX) as destination, serve(folder, connect=f"unix:{folder}/end") as middle:
        destination.bind(f"{folder}/end")
        destination.listen(100)
        for _ in range(30):
            with connected(MAIN, path=folder / "in"):
                pass
        middle.wait_for("ERROR.*failed: ", 30)
        assert "refused" not in middle.drain()


def test_a_channel_of_the_next_migration_may_come_before_its_main_connection(folder: Path) -> None:
    """The source has ended the first migration. Its relay has not noticed: the destination reads nothing."""
    with socket.socket(socket.AF_UNIX) as destination, serve(folder, connect=f"unix:{folder}/end") as middle:
        destination.bind(f"{folder}/end")
        destination.listen(100)
        with connected(MAIN, channel(0, UUIDS[0]), path=folder / "in") as (main, _):
            main.settimeout(1)
            with pytest.raises(TimeoutError):
                main.sendall(bytes(16 << 20))
        with connected(channel(0, UUIDS[0]), path=folder / "in") as (first,):
            time.sleep(0.5)  # it is taken
            with connected(MAIN, path=folder / "in"):
                middle.wait_for("migration 2 at .*: began")
                first.setblocking(False)
                with pytest.raises(BlockingIOError):
                    first.recv(1)
        assert "refused" not in middle.log()


def test_channels_that_are_left_from_a_failed_migration_do_not_hinder_the_next(folder: Path) -> None:
    with serve(folder) as middle, receiving(folder, UUIDS[0]) as end:
        with connected(channel(0, UUIDS[1]), channel(1, UUIDS[1]), path=folder / "in"):
            time.sleep(0.5)  # they are taken
        main, *channels = IDLE.connections
        Replay(folder / "in", [main, *[each[:8] + UUIDS[0].bytes + each[24:] for each in channels]]).join()
        assert_that_it_arrived(end, folder, UUIDS[0], "qemu-11.0.92-none")
        middle.drain()


def test_a_migration_whose_guest_stays_unknown_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.service.HANDSHAKE_SECONDS", 0.3)
    relay = Relay(GuestAddress(f"unix:{folder}/{{uuid}}"), "none", "none")
    gate = Gate(Listener(Address("unix", f"{folder}/in")), lambda warned: relay)
    totals = Totals([gate.route])
    service = Service([gate], totals, 1)
    thread = threading.Thread(target=service.run)
    thread.start()
    with connected(MAIN, path=folder / "in") as (source,):
        assert has_ended(source)
    service.drain()
    thread.join(PATIENCE)
    failure = totals.snapshot().routes[gate.route].last_failure
    assert failure is not None
    assert failure.error == (
        f"no multifd channel came within 0.3 s, and unix:{folder}/{{uuid}} needs the guest's uuid: turn multifd on in "
        "both QEMUs (QMP migrate-set-capabilities), or name a socket without {uuid}"
    )
    assert (failure.outcome, failure.cause) == ("failed", "settings")
    assert not relay.statistics().keys() & relay.process_statistics().keys()


def test_a_second_migration_of_the_same_process_is_refused_while_one_runs(folder: Path) -> None:
    with serve(folder) as middle, connected(MAIN, path=folder / "in") as (first,):
        middle.wait_for("began")
        with connected(MAIN, path=folder / "in") as (second,):
            assert has_ended(second)
        (line,) = middle.wait_for("refused a connection.*")
        assert f"another migration from process {os.getpid()} runs here: use another address for it, or, if a" in line
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.recv(1)


def test_more_migrations_than_the_limit_are_refused(folder: Path) -> None:
    listen = f"unix:{folder}/{{a,b}}"
    with (
        serve(folder, "--max-migrations", "1", listen=listen, connect="tcp::1") as middle,
        connected(channel(0, UUIDS[0]), path=folder / "a"),
    ):
        middle.wait_for("listening", 2)
        time.sleep(0.3)
        with connected(channel(0, UUIDS[1]), path=folder / "b") as (late,):
            assert has_ended(late)
        assert middle.wait_for(
            r"refused a connection at .*/b: 1 migrations run, which is the limit \(--max-migrations\)"
        )


# ---- Signals ----------------------------------------------------------------------------------------------------


def test_sigterm_lets_a_migration_finish_and_refuses_the_next(folder: Path) -> None:
    """The migration's last channel comes after the signal."""
    with serve(folder) as middle, receiving(folder, UUIDS[0]) as end:
        main, first, second = (
            each[:8] + UUIDS[0].bytes + each[24:] if number else each for number, each in enumerate(IDLE.connections)
        )
        with connected(main, first, path=folder / "in") as early:
            middle.wait_for("began")
            middle.signal(signal.SIGTERM)
            middle.wait_for("taking no new migration; 1 still runs")
            other = Source(folder / "in", "qemu-11.0.92-none", UUIDS[1])
            middle.wait_for("refused.*: this relay ends when its migrations have ended, and takes no new one")
            other.join()
            with connected(second, path=folder / "in") as late:
                for sock in (*early, *late):
                    sock.shutdown(socket.SHUT_WR)
                assert_that_it_arrived(end, folder, UUIDS[0], "qemu-11.0.92-none")
        assert middle.finish().returncode == 0
        middle.wait_for("complete;")
    assert not (folder / "in").exists()


def test_a_second_sigterm_ends_the_migrations_that_run(folder: Path) -> None:
    with serve(folder) as middle, connected(MAIN, path=folder / "in") as (source,):
        middle.wait_for("began")
        for _ in range(2):
            middle.signal(signal.SIGTERM)
            middle.wait_for("taking no new migration")
        assert has_ended(source)
        assert middle.finish().returncode == 143
        middle.wait_for("terminated: the relay was stopped")


def test_an_idle_relay_ends_at_the_first_sigint(folder: Path) -> None:
    with serve(folder) as middle:
        middle.wait_for("listening")
        middle.signal(signal.SIGINT)
        assert middle.finish().returncode == 0


def test_sighup_reads_certificates_again_on_both_sides(folder: Path) -> None:
    """The second time they are of another authority; a file that cannot be used changes nothing."""
    port = free_port()
    names = [f"--tls-{name}={folder}/{file}" for name, file in (("cert", "a.pem"), ("key", "a.key"), ("ca", "ca.pem"))]
    authorities = [trustme.CA(), trustme.CA()]
    issue(folder, authorities[0], "a")
    with (
        Served(f"tls::{port}", f"unix:{folder}/{{uuid}}", "none", "none", *names, log=folder / "2.log") as second,
        Served(f"unix:{folder}/in", f"tls::{port}", "none", "none", *names, log=folder / "1.log") as first,
    ):
        both = (first, second)

        def migrate(uuid: UUID) -> None:
            with receiving(folder, uuid) as end:
                Source(folder / "in", "qemu-11.0.92-none", uuid).join()
                assert_that_it_arrived(end, folder, uuid, "qemu-11.0.92-none")

        migrate(UUIDS[0])
        issue(folder, authorities[1], "a")
        migrate(UUIDS[1])  # nothing was read again
        first.signal(signal.SIGHUP)
        first.wait_for("read the TLS files again")
        Source(folder / "in", "qemu-11.0.92-none", UUIDS[2]).join()
        first.wait_for("failed: main channel: cannot connect to tls:.*certificate verify failed")
        second.signal(signal.SIGHUP)
        second.wait_for("read the TLS files again")
        migrate(UUIDS[3])
        (folder / "a.pem").write_text("junk")
        for each in both:
            each.signal(signal.SIGHUP)
            each.wait_for("kept the TLS files that were read before: TLS cannot use .*a.pem")
        migrate(UUIDS[4])


# ---- The command line -------------------------------------------------------------------------------------------


def test_a_guest_without_a_uuid_is_refused_where_others_may_come_from_the_same_host(folder: Path) -> None:
    port = free_port()
    with (
        serve(folder, listen=f"tcp::{port}") as middle,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as guest,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as relayed,
    ):
        guest.sendall(channel(0, UUID(int=0)))
        assert has_ended(guest)
        middle.wait_for("refused a connection at tcp:.*: the guest has no uuid, and other guests may come from 127")
        relayed.sendall(proxy.pack(b"one of them") + channel(0, UUID(int=0)))
        relayed.settimeout(0.5)
        with pytest.raises(TimeoutError):
            relayed.recv(1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stats", "f"], "--stats is for a relay of one migration"),
        (["--max-migrations", "0"], "invalid number '0': expected a whole number of migrations from 1 to 1000"),
        (["--max-bandwidth", "0"], "invalid number '0': expected a number of Mbit/s above 0"),
        (["--listen", "unix:/nowhere/{a,b}", "--connect", "tcp::{1-3}"], "stands for 3 addresses, and --listen for 2"),
        (["--listen", "unix:/nowhere/{a,b}", "--connect", "unix:/nowhere/{c,b}"], "/b are the same socket"),
        (["--listen", "unix:/nowhere/{a,b}", "--connect", "unix:/nowhere/{b,a}"], "/b are the same socket"),
        (["--listen", "unix:/nowhere/{2-1}"], "has the range 2-1; expected 1 to 1024 numbers, the lowest first"),
        (["--listen", "unix:/nowhere/{a,a}"], "expected {FIRST-LAST} with two numbers, or {A,B,C} with different"),
    ],
)
def test_a_wrong_option_is_exit_status_2(capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    words = ["--serve", "--listen", "unix:/nowhere/a", "--connect", "tcp::1", "--from", "none", "--to", "qpl"]
    assert message in misuse(capsys, "relay", *words, *more)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "unix:/nowhere/{a,b}"], "stands for 2 addresses; use --serve for them"),
        (["--listen", "unix:/nowhere/a", "--max-migrations", "2"], "--max-migrations and --metrics are for --serve"),
    ],
)
def test_what_only_a_relay_that_stays_can_do_needs_serve(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in misuse(capsys, "relay", *words, "--connect", "tcp::1", "--from", "none", "--to", "qpl")


# ---- Who may connect --------------------------------------------------------------------------------------------

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (0o600, os.geteuid(), os.getegid())),
        (["--socket-mode", "0620"], (0o620, os.geteuid(), os.getegid())),
        pytest.param(["--socket-owner", "1234"], (0o600, 1234, os.getegid()), marks=AS_ROOT),
        pytest.param(["--socket-group", "4321", "--socket-mode", "660"], (0o660, os.geteuid(), 4321), marks=AS_ROOT),
    ],
)
def test_options_give_each_socket_a_mode_an_owner_and_a_group(
    folder: Path, options: list[str], expected: tuple[int, int, int]
) -> None:
    with serve(folder, *options, listen=f"unix:{folder}/{{a,b}}"):
        for name in ("a", "b"):
            status = (folder / name).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == expected


@pytest.mark.parametrize("option", ["mode=0660", "owner=0", "group=0"])
@pytest.mark.parametrize("listen", ["tcp::1", "systemd"])
def test_only_a_unix_socket_that_is_made_here_has_a_mode_an_owner_and_a_group(
    capsys: pytest.CaptureFixture[str], option: str, listen: str
) -> None:
    words = [f"--socket-{option}", "--listen", listen, "--connect", "tcp::2", "--from", "none", "--to", "qpl"]
    said = misuse(capsys, "relay", *words)
    assert "--socket-mode, --socket-owner and --socket-group are for --listen unix:PATH" in said


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("mode=0888", "invalid mode '0888': expected an octal number of up to three digits, as 0660"),
        ("owner=no-such-user", "unknown user 'no-such-user': expected a name that this system knows, or a number"),
        ("group=no-such-group", "unknown group 'no-such-group': expected a name that this system knows, or a number"),
    ],
)
def test_a_mode_an_owner_or_a_group_that_is_none_is_misuse(
    capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    words = ["--listen", "unix:/nowhere/a", "--connect", "tcp::2", "--from", "none", "--to", "qpl"]
    assert message in misuse(capsys, "relay", f"--socket-{option}", *words)
