"""Sending a received guest: to a receiver, which must receive the same again, and to destinations that fail."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from commands import PATIENCE, wait_until
from handmade import PAGE, Migration, device_state, early_device, receive
from misuse import misuse
from received import change, flip, received, sent_again
from streams import recording

from numcodecs_qpl.cli import main
from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.errors import OutcomeUnknownError
from numcodecs_qpl.multifd.folder.checksum import ChunkedCRC32
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder
from numcodecs_qpl.multifd.sender import LOOK_FOR_THE_GUEST, Sender
from numcodecs_qpl.multifd.stream.returnpath import SHUT, message
from numcodecs_qpl.multifd.stream.savevm import Configuration, SavevmReader
from numcodecs_qpl.multifd.transport.address import Address

OPEN_RETURN_PATH = bytes([8, 0, 1, 0, 0])
SMALL = Migration("none").connections
SAME = ("machine", "configuration", "uuid", "devices", "device_state", "blocks")


def assert_equal(first: Path, second: Path) -> None:
    """The folders hold the same guest, file by file."""
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (first, second)]
    for manifest in manifests:
        for block in manifest["blocks"]:
            del block["pages_received"]  # the handmade source does not send all pages
        if not manifest["methods"]:
            del manifest["main_channel"]["flush_records"]  # without channels there are none
    for key in SAME:
        assert manifests[0][key] == manifests[1][key], key
    assert manifests[1]["main_channel"].items() <= manifests[0]["main_channel"].items()
    names = [sorted(str(path.relative_to(each)) for path in each.rglob("*")) for each in (first, second)]
    assert names[0] == names[1]
    for name in names[0]:
        if (first / name).is_file() and name != "manifest.json":
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "form", "channels", "method"),
    [
        ("qemu-7.2.22-none-dirty", "raw", 0, "none"),
        ("qemu-11.0.92-none-dirty", "zarr", 0, "none"),
        ("qemu-11.0.92-none-dirty", "raw", 4, "none"),
        ("qemu-7.2.22-none-dirty", "zarr", 4, "zlib"),
        ("qemu-11.0.92-none-dirty", "raw", 4, "zstd"),
        ("qemu-7.2.22-none-dirty", "zarr", 4, "qpl"),
    ],
)
def test_a_guest_that_is_sent_is_received_again(folder: Path, name: str, form: str, channels: int, method: str) -> None:
    guest = received(folder / "a", recording(name).connections, form)
    outcome = sent_again(guest, folder / "b", channels, method, form)
    assert outcome.manifest is not None
    assert outcome.manifest["methods"] == ([method] if channels else [])
    assert_equal(guest, outcome.out)


def handmade() -> list[bytes]:
    """A guest with everything that is rare: a uuid, subsections, early device state, device state over channels."""
    source = Migration("none")
    uuid = UUID("6d0ff2c0-5c4b-4a5e-9d0f-000000000001")
    configuration = Configuration("pc-q35", ["multifd"], 12, uuid).pack()
    for part in ("configuration", "machine length", "machine"):
        del source.main[part]
    source.main["version"] += configuration
    # With a return path, the receiver does not wait for device state that is late.
    del source.main["return path"]
    source.main["start"] = early_device() + source.main["start"]
    opening, *channels = source.connections
    states = (device_state(b"vfio", bytes(range(250)) * 8000), device_state(b"b", b"end"))
    return [opening, *(each[:8] + uuid.bytes + each[24:] + state for each, state in zip(channels, states, strict=True))]


def recorded(guest: Path, folder: Path, channels: int) -> list[bytes]:
    """Bytes that are sent on each connection; the main one, which is the first, is answered."""
    contents = [bytearray() for _ in range(channels + 1)]

    def read(sock: socket.socket, content: bytearray) -> None:
        with sock:
            while data := sock.recv(1 << 16):
                content += data
                if content is contents[0] and content.endswith(b"}"):
                    sock.sendall(message(SHUT, bytes(4)))

    with socket.socket(socket.AF_UNIX) as server, ReceivedFolder(guest) as source:
        server.bind(f"{folder}/s")
        server.listen(channels + 1)
        sender = Sender(source, Address("unix", path=f"{folder}/s"), channels=channels)
        sending = threading.Thread(target=sender.run)
        sending.start()
        reading = [threading.Thread(target=read, args=(server.accept()[0], content)) for content in contents]
        for thread in reading:
            thread.start()
        for thread in (sending, *reading):
            thread.join()
    return [bytes(content) for content in contents]


@pytest.mark.parametrize("channels", [2, 3])
def test_what_is_rare_is_sent_too(folder: Path, channels: int) -> None:
    guest = received(folder / "a", handmade())
    opening, *others = recorded(guest, folder, channels)
    assert opening.count(OPEN_RETURN_PATH) == 1
    (folder / "b").mkdir()
    outcome = receive(folder / "b", [opening.replace(OPEN_RETURN_PATH, b""), *others], channels=channels)
    assert outcome.error is None
    assert_equal(guest, outcome.out)
    assert outcome.manifest is not None
    assert outcome.manifest["configuration"]["target_page_bits"] == 12
    assert outcome.manifest["main_channel"]["early_bytes"] == len(early_device())


def test_device_state_of_channels_needs_channels(folder: Path) -> None:
    guest = received(folder / "a", handmade())
    with ReceivedFolder(guest) as source, pytest.raises(MultiFDError, match="set --channels"):
        Sender(source, Address("unix", path=f"{folder}/s"))


def test_a_guest_without_footers_is_sent_without_footers(folder: Path) -> None:
    source = Migration("none")
    for part in ("footer", "footer id", "footer 2", "footer 3"):
        del source.main[part]
    guest = received(folder / "a", source.connections)
    outcome = sent_again(guest, folder / "b", 2)
    assert outcome.manifest is not None
    assert outcome.manifest["main_channel"]["footers"] is False
    assert_equal(guest, outcome.out)


@pytest.mark.parametrize("size", [1, 9, 10, 11, 35, 40])
def test_the_checksum_of_chunks_is_that_of_all_the_data(size: int) -> None:
    data = bytes(10) + bytes(range(1, 26)) + bytes(5)
    checksum = ChunkedCRC32(size, 10)
    assert checksum.value() == zlib.crc32(bytes(size))
    for chunk in reversed(range(-(-size // 10))):
        piece = data[:size][10 * chunk : 10 * chunk + 10]
        checksum.put(chunk, b"another")
        if any(piece):
            checksum.put(chunk, piece)
        else:
            checksum.put(chunk, bytes(len(piece)))
    assert checksum.value() == zlib.crc32(data[:size])


@pytest.mark.parametrize("uuid", [None, UUID(int=5)])
@pytest.mark.parametrize("bits", [None, 12])
@pytest.mark.parametrize("capabilities", [None, ["a", "bc"]])
def test_a_configuration_that_is_packed_is_read_again(
    capabilities: list[str] | None, bits: int | None, uuid: UUID | None
) -> None:
    configuration = Configuration("pc-q35-9.9", capabilities, bits, uuid)
    stream = io.BufferedReader(io.BytesIO(configuration.pack()))
    assert stream.read(1) == b"\x07"
    assert SavevmReader(stream, PAGE).configuration() == configuration


# ---- Damage -----------------------------------------------------------------------------------------------------


def swap(guest: Path) -> None:
    """Exchange two chunks, each of which is whole."""
    (first, second, *_) = sorted((guest / "ram.zarr/m").glob("c.*"))
    first.rename(guest / "x")
    second.rename(first)
    (guest / "x").rename(second)


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no manifest": ("raw", lambda guest: (guest / "manifest.json").unlink(), "manifest.json is missing"),
    "half a manifest": ("raw", lambda guest: (guest / "manifest.json").write_text('{"machine": '), "is damaged, or of"),
    "a list": ("raw", lambda guest: (guest / "manifest.json").write_text("[]"), "is damaged, or of"),
    "an older manifest": ("raw", lambda guest: change(guest, main_channel={}), "is damaged, or of"),
    "no block": ("raw", lambda guest: change(guest, blocks=[]), "is damaged, or of"),
    "another format": ("raw", lambda guest: change(guest, format="tar"), "is damaged, or of"),
    "a flipped bit": ("raw", lambda guest: flip(guest / "m.bin", 5 * PAGE), "RAM block 'm' .* is damaged"),
    "a bit among zeros": ("raw", lambda guest: flip(guest / "m.bin", 15 << 20), "RAM block 'm' .* is damaged"),
    "a short file": ("raw", lambda guest: (guest / "m.bin").write_bytes(b"short"), "has 5 bytes; expected"),
    "no file": ("raw", lambda guest: (guest / "pc.bios.bin").unlink(), "pc.bios.bin is missing"),
    "device state": ("raw", lambda guest: flip(guest / "device-state.bin", 50), "device-state.bin is damaged"),
    "less device state": (
        "raw",
        lambda guest: (guest / "device-state.bin").write_bytes(b""),
        "device-state.bin is damaged",
    ),
    "no device state": ("raw", lambda guest: (guest / "device-state.bin").unlink(), "device-state.bin cannot be read"),
    "a flipped bit of a chunk": ("zarr", lambda guest: flip(guest / "ram.zarr/m/c.16.0", 900), "RAM block 'm'"),
    "a chunk of another array": (
        "zarr",
        lambda guest: (guest / "ram.zarr/pc.bios/c.0.0").rename(guest / "ram.zarr/m/c.16.0"),
        "RAM block 'm'",
    ),
    "no chunk": ("zarr", lambda guest: (guest / "ram.zarr/m/c.16.0").unlink(), "RAM block 'm' .* is damaged"),
    "two chunks": ("zarr", swap, "RAM block 'm' .* is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_an_error_before_anybody_connects(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    form, harm, expected = DAMAGE[damage]
    guest = received(folder / "a", recording("qemu-11.0.92-none").connections, form)
    harm(guest)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        server.setblocking(False)
        assert main(["send", str(guest), "--connect", f"unix:{folder}/s", "--timeout", "1"]) == 1
        with pytest.raises(BlockingIOError):
            server.accept()
    error = capsys.readouterr().err
    assert error.startswith("numcodecs-qpl: error: ")
    assert re.search(expected, error), error


# ---- Destinations that fail --------------------------------------------------------------------------------------


class Destination:
    """Accepts the main connection, reads until it has all of the device state, then answers."""

    def __init__(self, path: Path, answer: bytes, *, closes: bool) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._answer, self._closes = answer, closes
        self.done = threading.Event()
        self.read = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sock, _ = self._server.accept()
        with sock, contextlib.suppress(OSError):
            while not self.read.endswith(b"}"):
                self.read += sock.recv(1 << 16)
            sock.sendall(self._answer)
            if not self._closes:
                self.done.wait(PATIENCE)

    def close(self) -> None:
        self.done.set()
        self._thread.join()
        self._server.close()


@pytest.fixture
def destination(folder: Path) -> Iterator[Callable[..., Destination]]:
    with contextlib.ExitStack() as stack:

        def make(answer: bytes = b"", *, closes: bool = False) -> Destination:
            made = Destination(folder / "s", answer, closes=closes)
            stack.callback(made.close)
            return made

        yield make


def send(folder: Path, connections: Sequence[bytes] = SMALL, **options: Any) -> None:
    guest = received(folder / "a", list(connections))
    with ReceivedFolder(guest) as source:
        Sender(source, Address("unix", path=f"{folder}/s"), **options).run()


@pytest.mark.parametrize("answer", [b"", message(SHUT, b"\0\0\0\1")], ids=["nothing", "an error"])
def test_a_destination_that_does_not_confirm_is_an_error(
    folder: Path, destination: Callable[..., Destination], answer: bytes
) -> None:
    destination(answer, closes=True)
    with pytest.raises(MultiFDError, match=r"has not confirmed .* look at what the QEMU there wrote"):
        send(folder)


def test_a_destination_that_confirms_and_stays_is_a_success(
    folder: Path, destination: Callable[..., Destination]
) -> None:
    destination(message(SHUT, bytes(4)))
    send(folder)


def test_the_outcome_is_not_known_where_nothing_comes_after_everything_was_sent(
    folder: Path, destination: Callable[..., Destination]
) -> None:
    destination()
    with pytest.raises(OutcomeUnknownError) as raised:
        send(folder, timeout=0.5)
    assert LOOK_FOR_THE_GUEST in str(raised.value)


def test_a_destination_that_takes_nothing_is_an_error_within_the_timeout(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        with pytest.raises(MultiFDError, match=r"nothing passed for 0\.5 s") as raised:
            # More than the buffers of the sockets take.
            send(folder, recording("qemu-7.2.22-none-dirty").connections, timeout=0.5, channels=2)
    assert not isinstance(raised.value, OutcomeUnknownError)


def test_nobody_listens(folder: Path) -> None:
    with pytest.raises(MultiFDError, match=r"cannot connect .* start the far end first"):
        send(folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it(
    folder: Path, destination: Callable[..., Destination], number: signal.Signals, status: int
) -> None:
    guest = received(folder / "a", SMALL)
    there = destination()
    command = ["numcodecs-qpl", "send", str(guest), "--connect", f"unix:{folder}/s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: there.read.endswith(b"}"), "everything to be sent")
        asked = time.monotonic()
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
        assert time.monotonic() - asked < 5


# ---- The command -------------------------------------------------------------------------------------------------


def test_what_the_operator_must_know_is_printed(
    folder: Path, destination: Callable[..., Destination], capsys: pytest.CaptureFixture[str]
) -> None:
    guest = received(folder / "a", recording("qemu-11.0.92-none").connections)
    destination(message(SHUT, bytes(4)))
    assert main(["send", str(guest), "--connect", f"unix:{folder}/s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = " ".join(line.strip() for line in lines)
    manifest = json.loads((guest / "manifest.json").read_text())
    for text in (manifest["machine"], "m (16777216)", "globalstate", manifest["disks"], "multifd: off"):
        assert text in said
    assert all(len(line) < 80 for line in lines if line.startswith("  "))


def test_a_folder_that_does_not_exist_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", f"{folder}/gone", "--connect", f"unix:{folder}/s"]) == 1
    said = f"numcodecs-qpl: error: {folder}/gone does not exist; expected a folder that receive has written\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--method", "zlib"], "--method zlib is for multifd channels"),
        (["--channels", "2", "--huffman", "dynamic"], "--huffman is for --method qpl"),
        (["--channels", "256"], "invalid number '256': expected a whole number of channels from 1 to 255"),
        (["--tls-ca", "x"], "the address is not of that kind"),
    ],
)
def test_options_that_do_not_fit_are_misuse(
    capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    assert expected in misuse(capsys, "send", "guest", "--connect", "unix:s", *options)
