"""docs/capabilities.md: each cell of its table is tried on the newest QEMU, with a guest that halts.

QEMUS in the environment, such as QEMUS=7.2,10.0,newest, tries other columns.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import PATIENCE, Command, free_port
from guest import Guest, GuestError
from programs import need
from qemus import QEMU, qemu
from way import Way, received_sha256, set_up

need("qemu-system-x86_64", "nasm")

PAGE = Path(__file__).parents[2] / "docs/capabilities.md"
WAYS = ("relays", "receive")
UUID = {"uuid": "6d0ff2c0-5c4b-4a5e-9d0f-000000000001"}


@dataclass(frozen=True)
class Setting:
    """Method to turn on a row's setting.

    Attributes
    ----------
    both, source : tuple of str
        Capabilities that both QEMUs turn on, and those of the source alone.
    parameters : mapping
        Parameters of the source.
    guest : mapping
        Further parameters of both guests.
    multifd : bool
        False turns it off.
    tcp : bool
        The source connects over TCP, not to a unix socket.
    pauses : bool
        The source has to be told to continue.
    """

    both: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    guest: Mapping[str, Any] = field(default_factory=dict)
    multifd: bool = True
    tcp: bool = False
    pauses: bool = False


ANONYMOUS = ("-object", "memory-backend-ram,id=n,size=16M", "-machine", "memory-backend=n")
SETTINGS = {
    "return-path": Setting(("return-path",)),
    "switchover-ack": Setting(("return-path", "switchover-ack")),
    "postcopy-ram": Setting(("postcopy-ram", "return-path")),
    "postcopy-preempt": Setting(("postcopy-ram", "return-path", "postcopy-preempt")),
    "dirty-bitmaps": Setting(("dirty-bitmaps",)),
    "x-ignore-shared": Setting(("x-ignore-shared",)),
    "validate-uuid": Setting(("validate-uuid",), guest=UUID),
    "zero-page-detection none": Setting(parameters={"zero_page_detection": "none"}),
    "zero-page-detection legacy": Setting(parameters={"zero_page_detection": "legacy"}),
    "zero-page-detection multifd": Setting(parameters={"zero_page_detection": "multifd"}),
    "direct-io": Setting(parameters={"direct_io": True}),
    "mapped-ram": Setting(("mapped-ram",)),
    "tls-creds": Setting(
        parameters={"tls_creds": "t"}, guest={"more": ("-object", "tls-creds-anon,id=t,endpoint=client")}
    ),
    "release-ram": Setting(("release-ram",)),
    "auto-converge": Setting(("auto-converge",)),
    "xbzrle": Setting(("xbzrle",)),
    "compress": Setting(("compress",)),
    "background-snapshot": Setting(source=("background-snapshot",), guest={"more": ANONYMOUS}),
    "dirty-limit": Setting(source=("dirty-limit",)),
    "x-colo": Setting(("return-path", "x-colo")),
    "events": Setting(("events",)),
    "multifd off": Setting(multifd=False),
    "zero-copy-send": Setting(source=("zero-copy-send",), tcp=True),
    "pause-before-switchover": Setting(source=("pause-before-switchover",), pauses=True),
    "late-block-activate": Setting(source=("late-block-activate",)),
    "rdma-pin-all": Setting(("rdma-pin-all",)),
}


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Return the table's rows: setting, version of QEMU, and what happens through relays and into ``receive``."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[0].startswith("`"):
            for version in cells[1].split(", "):
                yield cells[0].replace("`", ""), version, cells[2], cells[3]


TOGETHER = (
    "zero-page-detection multifd",  # the default of the QEMUs that know it
    "direct-io",
    "release-ram",
    "auto-converge",
    "events",
    "pause-before-switchover",
    "late-block-activate",
    "rdma-pin-all",
)
"""Settings that change nothing in the stream. Those of them that pass, by the page, share one migration."""

ROWS = list(rows())
NEWEST = max((row[1] for row in ROWS), key=lambda version: [int(part) for part in version.split(".")])
TRIED = [name if name != "newest" else NEWEST for name in os.environ.get("QEMUS", "newest").split(",")]


def test_each_setting_has_a_row() -> None:
    assert list(dict.fromkeys(name for name, *_ in ROWS)) == list(SETTINGS)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder whose files are shared memory, which postcopy needs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


class Migration(NamedTuple):
    """A migration to try, and what the page says will happen."""

    names: tuple[str, ...]
    version: str
    way: str
    cell: str

    @property
    def setting(self) -> Setting:
        """All settings of these names."""
        settings = [SETTINGS[name] for name in self.names]
        return Setting(
            both=tuple(name for each in settings for name in each.both),
            source=tuple(name for each in settings for name in each.source),
            parameters={name: value for each in settings for name, value in each.parameters.items()},
            guest={name: value for each in settings for name, value in each.guest.items()},
            multifd=all(each.multifd for each in settings),
            tcp=any(each.tcp for each in settings),
            pauses=any(each.pauses for each in settings),
        )


def migrations() -> Iterator[Migration]:
    """Return the migrations to try: all cells of the table, those of TOGETHER in one."""
    for version, (column, way) in itertools.product(TRIED, enumerate(WAYS)):
        cells = {name: outcomes[column] for name, tried, *outcomes in ROWS if tried == version}
        together = tuple(name for name in TOGETHER if cells.get(name) == "passes")
        yield Migration(together, version, way, "passes")
        for name, cell in cells.items():
            if name not in together:
                yield Migration((name,), version, way, cell)


@pytest.mark.parametrize(
    "migration", list(migrations()), ids=lambda one: f"{' + '.join(one.names)}-{one.version}-{one.way}"
)
def test_a_setting_does_what_the_page_says(memory: Path, firmware: dict[bool, Path], migration: Migration) -> None:
    found = re.fullmatch(r"(passes|refused|QEMU refuses)(?:: `(.+)`)?", migration.cell)
    assert found, migration.cell
    through = through_relays if migration.way == "relays" else into_receive
    which = qemu("newest" if migration.version == NEWEST else migration.version)
    outcome, message = through(memory, firmware[False], migration.setting, which)
    assert outcome == found[1], message
    assert (found[2] or "") in message
    assert bool(found[2]) == bool(message)


def through_relays(folder: Path, firmware: Path, setting: Setting, which: QEMU) -> tuple[str, str]:
    way = Way(
        folder,
        firmware,
        channels=2 * setting.multifd,
        qemu=which,
        guest=setting.guest,
        capabilities=setting.both,
        listen=f"tcp:127.0.0.1:{free_port()}" if setting.tcp else "",
    )
    try:
        with way:
            if not migrates(way.source, setting, way.uri):
                # Either relay may be the first to see it; the other then reports that its connection has ended.
                return "refused", said_by(way.first, setting) + said_by(way.second, setting)
            assert way.destination.wait_migration(PATIENCE)["status"] == "completed"
            if "x-ignore-shared" not in setting.both:
                assert way.source.ram_sha256() == way.destination.ram_sha256()
            way.destination.cont()
            assert way.destination.status() == "running"
            (status, line, said), (other, _, _) = way.first.finish_relay(), way.second.finish_relay()
            assert (status, line["ended"], other) == (0, "complete", 0)
            return "passes", said
    except GuestError as error:
        return "QEMU refuses", str(error.__cause__)


def into_receive(folder: Path, firmware: Path, setting: Setting, which: QEMU) -> tuple[str, str]:
    uri = f"tcp:127.0.0.1:{free_port()}" if setting.tcp else f"unix:{folder}/a"
    arguments = ("--listen", uri, "--channels", "2", "--output", f"{folder}/out", "--timeout", "5")
    try:
        with Guest(folder, "source", firmware=firmware, qemu=which, **setting.guest) as source:
            source.set_capabilities(*setting.both)
            set_up(source, 2 * setting.multifd)
            with Command("receive", *arguments) as end:
                completed = migrates(source, setting, uri)
                said = said_by(end, setting)
            if not completed or said:
                return "refused", said
            assert received_sha256(folder / "out", "raw") == source.ram_sha256()
            return "passes", ""
    except GuestError as error:
        return "QEMU refuses", str(error.__cause__)


def migrates(source: Guest, setting: Setting, uri: str) -> bool:
    """Migrate with the setting; return True if the source says that it has completed."""
    source.set_capabilities(*setting.source)
    source.qmp("migrate-set-parameters", **setting.parameters)
    source.migrate(uri)
    if setting.pauses:
        source.wait_status("pre-switchover", PATIENCE)
        source.qmp("migrate-continue", state="pre-switchover")
    return bool(source.wait_migration(PATIENCE)["status"] == "completed")


def said_by(end: Command, setting: Setting) -> str:
    """Return what a relay or receiver wrote to stderr, if it ends by itself: one that refused TLS goes on listening."""
    if "tls_creds" in setting.parameters:
        end.signal(signal.SIGTERM)
    return end.finish().stderr
