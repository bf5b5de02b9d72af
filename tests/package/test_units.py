"""The units in packaging/systemd, and a relay that stays under systemd: its sockets, and what it tells systemd."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trustme
from commands import PATIENCE, Command, free_port, wait_until
from misuse import misuse
from pages import ROOT
from programs import give_up, missing
from relays import Served
from sources import MAIN, UUIDS, Source, assert_that_it_arrived, connected, receiving
from tls_files import issue

UNITS = ROOT / "packaging" / "systemd"
OUT, IN, COMMON = "numcodecs-qpl-relay-out@.service", "numcodecs-qpl-relay-in.service", "common.conf"
PROGRAM = "/opt/numcodecs-qpl/bin/numcodecs-qpl"
INSTANCE = "127.0.0.1"
MAX_EXPOSURE = 20
"""Tenths, as systemd-analyze counts them: a service without any restriction has 96."""


# ---- The units as systemd reads them ----------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, an instance of each template, and the program that this environment has."""
    if reason := missing("systemd-analyze"):
        give_up(reason)
    program = shutil.which("numcodecs-qpl")
    assert program is not None
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for unit in [path for path in folder.iterdir() if path.is_file()]:
        text = unit.read_text().replace(PROGRAM, program)
        (folder / unit.name.replace("@", f"@{INSTANCE}")).write_text(text)
    return folder


def analyze(verb: str, units: Path, pattern: str, *options: str) -> subprocess.CompletedProcess[str]:
    names = sorted(path.name for path in units.glob(pattern) if path.is_file() and "@." not in path.name)
    assert len(names) >= 2
    words = ["systemd-analyze", verb, *options, *(f"./{name}" for name in names)]
    return subprocess.run(words, cwd=units, capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_in_the_units(units: Path) -> None:
    done = analyze("verify", units, "*.s*")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_systemd_finds_a_fault_in_what_the_services_have_in_common(units: Path) -> None:
    with (units / "numcodecs-qpl-relay-.service.d" / COMMON).open("a") as common:
        common.write("NoSuchSetting=1\n")
    assert "Unknown key 'NoSuchSetting'" in analyze("verify", units, "*.service").stderr


def test_the_services_are_restricted(units: Path) -> None:
    done = analyze("security", units, "*.service", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager")
    assert done.returncode == 0, done.stdout + done.stderr


# ---- Their commands ---------------------------------------------------------------------------------------------


def settings(unit: str) -> list[tuple[str, str]]:
    """Return the settings of a unit in their order."""
    text = next(UNITS.rglob(unit)).read_text().replace("\\\n", "")
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


def command(unit: str, **variables: str) -> list[str]:
    """Return the arguments of a unit's program, with these variables in place of those of the unit."""
    environment = dict(
        assignment.split("=", 1)
        for name, value in [*settings(COMMON), *settings(unit)]
        if name == "Environment"
        for assignment in value.split()
    )
    assert set(variables) <= set(environment)
    environment |= variables
    (line,) = (value for name, value in settings(unit) if name == "ExecStart")
    program, *words = line.split()
    assert program == PROGRAM
    words = [re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word) for word in words]
    return [part for word in words for part in (environment[word[1:]].split() if word.startswith("$") else [word])]


ACTIVATE = """
import fcntl, os, socket, sys
names, places, *words = sys.argv[1:]
socks = []
for place in places.split():
    sock = socket.socket(socket.AF_INET if place.isdecimal() else socket.AF_UNIX)
    sock.bind(("127.0.0.1", int(place)) if place.isdecimal() else place)
    sock.listen()
    socks.append(fcntl.fcntl(sock, fcntl.F_DUPFD, 20))
for number, fd in enumerate(socks, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(socks)), LISTEN_FDNAMES=names)
os.execvp(words[0], words)
"""


def activated(places: Mapping[str, str]) -> list[str]:
    """Return what starts a command as systemd does: with sockets at these paths and ports, by their names."""
    return [sys.executable, "-c", ACTIVATE, ":".join(places), " ".join(places.values())]


def test_a_migration_goes_through_the_commands_of_the_units(folder: Path) -> None:
    issue(folder, trustme.CA(), "relay")
    port, uuid = str(free_port()), UUIDS[0]
    there = command(IN, CERTIFICATES=str(folder), CONNECT=f"unix:{folder}/{{uuid}}")
    here = command(OUT, CERTIFICATES=str(folder), CONNECT=f"tls:{INSTANCE}:{port}", OPTIONS="--max-migrations 2")
    with (
        Command(*there, prefix=activated({"in": port}), listens=[f"tcp:127.0.0.1:{port}"], stderr=folder / "2.log"),
        Command(
            *here, prefix=activated({"out": f"{folder}/out"}), listens=[f"unix:{folder}/out"], stderr=folder / "1.log"
        ),
        receiving(folder, uuid) as end,
    ):
        Source(folder / "out", "qemu-11.0.92-none", uuid).join()
        assert_that_it_arrived(end, folder, uuid, "qemu-11.0.92-none")


def test_the_destination_of_an_instance_is_its_name() -> None:
    words = command(OUT)
    assert words[words.index("--connect") + 1] == "tls:%i:4444"
    assert ("ListenStream", "4444") in settings(IN.replace("service", "socket"))


def test_the_command_that_stops_a_unit_waits_until_its_migrations_have_ended(folder: Path) -> None:
    (line,) = (value for name, value in settings(COMMON) if name == "ExecStop")
    with service(folder) as middle, running(folder) as source:
        middle.wait_for("began")
        environment = {**os.environ, "MAINPID": str(middle.pid)}
        stop = subprocess.Popen(shlex.split(line.removeprefix("-")), env=environment)
        try:
            middle.wait_for("taking no new migration; 1 still runs")
            with pytest.raises(subprocess.TimeoutExpired):
                stop.wait(0.5)
            source.close()
            assert middle.finish().returncode == 0
            assert stop.wait(PATIENCE) == 0
        finally:
            stop.kill()
            stop.wait()


# ---- Sockets from systemd ---------------------------------------------------------------------------------------


def service(folder: Path, *more: str, names: Sequence[str] = ("a",), **environment: str) -> Served:
    """A relay with sockets in `folder` that have these names, as systemd starts it."""
    return Served(
        "systemd",
        f"unix:{folder}/{{name}}.there",
        "none",
        "none",
        *more,
        log=folder / "log",
        prefix=activated({name: f"{folder}/{name}" for name in names}),
        listens=[f"unix:{folder}/{name}" for name in names],
        environment={**os.environ, **environment},
    )


@contextlib.contextmanager
def running(folder: Path) -> Iterator[socket.socket]:
    """A migration that runs until the main connection, which is yielded, is closed."""
    with socket.socket(socket.AF_UNIX) as destination:
        destination.bind(f"{folder}/a.there")
        destination.listen()
        with connected(MAIN, path=folder / "a") as (source,):
            yield source


def test_migrations_go_where_the_names_of_the_sockets_tell(folder: Path) -> None:
    names = [f"{uuid}" for uuid in UUIDS[:2]]
    with contextlib.ExitStack() as stack:
        middle = stack.enter_context(service(folder, names=names))
        for name in names:
            (folder / f"{name}.there").symlink_to(folder / "out" / name)
        (folder / "out").mkdir()
        ends = [stack.enter_context(receiving(folder / "out", uuid)) for uuid in UUIDS[:2]]
        for uuid, name in zip(UUIDS, names, strict=False):
            Source(folder / name, "qemu-11.0.92-none", uuid).join()
        for end, uuid in zip(ends, UUIDS, strict=False):
            assert_that_it_arrived(end, folder / "out", uuid, "qemu-11.0.92-none")
        log = middle.drain()
        for name in names:
            assert f"unix:{folder}/{name} for unix:{folder}/{name}.there" in log
        for name in names:
            assert (folder / name).is_socket()


def test_systemd_starts_the_relay_at_the_first_connection(folder: Path) -> None:
    if reason := missing("systemd-socket-activate"):
        give_up(reason)
    prefix = ["systemd-socket-activate", f"--listen={folder}/in", "--fdname=in"]
    program = shutil.which("numcodecs-qpl")
    assert program is not None
    words = ("--connect", f"unix:{folder}/{{uuid}}", "--from", "none", "--to", "none")
    relay = [program, "relay", "--serve", "--listen", "systemd", *words]
    with (folder / "log").open("w") as log, subprocess.Popen([*prefix, *relay], stderr=log) as process:
        try:
            wait_until(
                lambda: (folder / "in").is_socket() and "Listening" in (folder / "log").read_text(), "it to listen"
            )
            for uuid in UUIDS[:2]:
                with receiving(folder, uuid) as end:
                    Source(folder / "in", "qemu-11.0.92-none", uuid).join()
                    assert_that_it_arrived(end, folder, uuid, "qemu-11.0.92-none")
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert (folder / "in").is_socket()


@pytest.mark.parametrize("listen", ["systemd", "systemd-tls"])
def test_without_sockets_from_systemd_it_is_misuse(capsys: pytest.CaptureFixture[str], listen: str) -> None:
    words = ["--serve", "--listen", listen, "--connect", "tcp::1", "--from", "none", "--to", "none"]
    said = misuse(capsys, "relay", *words)
    assert f"--listen {listen} needs sockets from systemd (LISTEN_FDS), and none was passed" in said


# ---- What systemd is told ---------------------------------------------------------------------------------------


@pytest.fixture
def manager(folder: Path) -> Iterator[socket.socket]:
    """Return the addresses that systemd listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{folder}/notify")
        sock.settimeout(PATIENCE)
        yield sock


def test_systemd_is_told_what_the_service_does(folder: Path, manager: socket.socket) -> None:
    def told() -> str:
        return manager.recv(1000).decode()

    with service(folder, NOTIFY_SOCKET=f"{folder}/notify") as middle:
        assert told() == "READY=1"
        assert told() == "STATUS=migrations that run: 0"
        with running(folder):
            assert told() == "STATUS=migrations that run: 1"
            middle.signal(signal.SIGHUP)
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told())
            assert told() == "READY=1"
            assert middle.status()["draining"] is False
            middle.signal(signal.SIGTERM)
            assert told() == "STOPPING=1"
            assert middle.status()["draining"] is True
        assert told() in ("STATUS=migrations that run: 0", "STOPPING=1")
        assert middle.finish().returncode == 0
