"""Real QEMU guests for tests of live migration: one process each, driven through QMP from ordinary synchronous code.

A guest's RAM is a file that the test can read. It holds still, and so can be compared between the two ends, when

- the firmware is the one that only halts, running or not;
- the guest was started with `paused` and has not been told to continue;
- it is the source of a migration that has completed: QEMU leaves it stopped (status "postmigrate").

A destination of a dirtying guest has to be started with `paused`, or it goes on dirtying as soon as it has arrived. Ask
the destination's `wait_migration` too before comparing: the source is done once it has sent everything, which may be
before the destination has read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from qemu.qmp import QMPClient, QMPError
from qemus import INSTALLED, QEMU

MIB = 1 << 20
PAGE = 4096
DIRTY_FROM = 4 * MIB
DIRTY_TO = 12 * MIB
"""The range in which the dirtying firmware counts, in the word at 0x10 of each page."""
SEVERAL_ROUNDS = {"max_bandwidth": 16 * MIB, "downtime_limit": 1}
"""Parameters for `Guest.set_migration` with which a dirtying guest's migration does not converge by itself.

A round takes half a second. The guest dirties its range 100 times a second, so it keeps up on a busy machine too.
On two processors under a load of 12, QEMU 7.2 completed 2 of 9 migrations at 64 MiB/s, and none at 16 MiB/s.
"""
UNLIMITED = 1 << 40
ENDED = ("completed", "failed", "cancelled")
CANCELLED = ("cancelled", "failed")
"""Statuses of a source of QEMU 7.2 whose migration was cancelled.

It closes its connections before it sets the status, and its thread of the return path may take that for a failure.
"""
ANSWER_TIMEOUT = 60.0
"""Seconds that a QMP command may take."""
_CPUCLOCK_SCHED = 2

_T = TypeVar("_T")


class GuestError(RuntimeError):
    """QEMU did not start, ended, or refused a command; the message quotes what it wrote to stderr."""


def build_firmware(folder: Path, dirty: bool = False, scattered: int = 0) -> Path:
    """Assemble the firmware that halts at once, or that dirties 4 to 12 MiB 100 times a second.

    With `scattered`, it dirties pages at random in 1 to 256 MiB, with so many turns of the loop between two of them.
    """
    image = folder / f"firmware-{'scattered' if scattered else 'dirty' if dirty else 'idle'}.bin"
    defines = ["-DDIRTY"] if dirty else []
    if scattered:
        defines = ["-DSCATTERED", f"-DLOOPS={scattered}"]
    source = Path(__file__).with_name("firmware.asm")
    subprocess.run(["nasm", "-f", "bin", *defines, "-o", image, source], check=True)
    return image


class Guest:
    """One QEMU, under TCG, that lives as long as the context.

    The RAM file, `<name>.ram` in `folder`, goes when the context ends; `<name>.stderr` stays.

    Parameters
    ----------
    folder : Path
        Where RAM and stderr go. /dev/shm keeps large guests off the disk.
    memory_mib : int
        Size of the guest's RAM; the dirtying firmware needs 12.
    data : (Path, int), optional
        A file that is in the RAM from the start, and its address. For sources only.
    incoming : bool
        Wait for `listen` and a migration, instead of booting.
    paused : bool
        Do not run, neither at the start nor after a migration came in, until `cont`.
    uuid : str, optional
        QEMU's destination accepts the multifd channels of a source with the same uuid only.
    namespace : str, optional
        Network namespace to run in.
    machine : str
        The machine's type. Only one with a version, such as "pc-q35-7.2", is the same in different versions of QEMU.
    qemu : QEMU
        The QEMU to start.
    more : sequence of str
        Arguments to add to QEMU's command line.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        memory_mib: int = 16,
        firmware: Path,
        data: tuple[Path, int] | None = None,
        incoming: bool = False,
        paused: bool = False,
        uuid: str | None = None,
        namespace: str | None = None,
        machine: str = "q35",
        qemu: QEMU = INSTALLED,
        more: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.ram_path = folder / f"{name}.ram"
        self.stderr_path = folder / f"{name}.stderr"
        self._command = [
            *(["ip", "netns", "exec", namespace] if namespace else []),
            *[*qemu.command, "-no-user-config", "-nodefaults", "-name", name, "-accel", "tcg"],
            *["-display", "none", "-vga", "none", "-net", "none", "-bios", str(firmware), "-m", f"{memory_mib}M"],
            *["-machine", f"{machine},memory-backend=m", "-object"],
            f"memory-backend-file,id=m,size={memory_mib}M,share=on,mem-path={_value(self.ram_path)}",
            *(["-device", f"loader,file={_value(data[0])},addr={data[1]:#x},force-raw=on"] if data else []),
            *(["-incoming", "defer"] if incoming else []),
            *(["-S"] if paused else []),
            *(["-uuid", uuid] if uuid else []),
            *more,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._client = QMPClient(name)
        self._events: list[Any] = []

    def __enter__(self) -> Self:
        """Start QEMU and greet it."""
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs, self.stderr_path.open("wb") as stderr:
                command = [*self._command, "-chardev", f"socket,id=qmp,fd={theirs.fileno()}"]
                self._process = subprocess.Popen(
                    [*command, "-mon", "chardev=qmp,mode=control"],
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
                theirs.close()
                self._wait_for("the QMP greeting", lambda: self._client.connect(ours.dup()))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def pid(self) -> int:
        """QEMU's process."""
        if self._process is None:
            raise GuestError(f"{self.name} is not running")
        return self._process.pid

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Execute a command and return what it returns. Underscores in names of arguments stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._wait_for(command, lambda: self._client.execute(command, named))

    def set_migration(self, channels: int, method: str = "none", **parameters: Any) -> None:
        """Make the next migration one with multifd, or without it if there are 0 channels; both sides need it.

        Nothing limits the bandwidth unless `max_bandwidth` (bytes a second) is given. A dirtying guest that should have
        several rounds needs a limit: what is through within 100 ms, QEMU never looks at twice. With `SEVERAL_ROUNDS`
        it goes on for ever; `wait_rounds` and then `converge` end it.
        """
        self.set_capabilities("events", *(["multifd"] if channels else []))
        multifd = {"multifd_channels": channels, "multifd_compression": method} if channels else {}
        self.qmp("migrate-set-parameters", **{**multifd, "max_bandwidth": UNLIMITED, **parameters})

    def set_capabilities(self, *names: str, on: bool = True) -> None:
        """Turn capabilities of migrations, such as "return-path", on or off."""
        capabilities = [{"capability": name, "state": on} for name in names]
        self.qmp("migrate-set-capabilities", capabilities=capabilities)

    def listen(self, uri: str) -> None:
        """Wait for a migration at `uri`, as "unix:PATH" or "tcp:HOST:PORT", returning once it can be connected to."""
        self.qmp("migrate-incoming", uri=uri)

    def migrate(self, uri: str) -> None:
        """Start migrating to `uri`, in the background."""
        self.qmp("migrate", uri=uri)

    def wait_migration(self, timeout: float) -> dict[str, Any]:
        """Wait until the migration, outgoing or incoming, has completed, failed or been cancelled.

        Returns
        -------
        dict
            What query-migrate says in the end; its "status" is one of the three.
        """
        deadline = time.monotonic() + timeout
        while True:
            answer: dict[str, Any] = self.qmp("query-migrate")
            # Its times and the run state come a moment after a source's "completed", so it is asked again then.
            if answer.get("status") in ENDED and self.status() != "finish-migrate":
                final: dict[str, Any] = self.qmp("query-migrate")
                return final
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: still migrating after {timeout:g} s: {answer}")
            time.sleep(0.02)

    def wait_status(self, status: str, timeout: float) -> None:
        """Wait until the migration, outgoing or incoming, has come into a status such as "pre-switchover"."""
        deadline = time.monotonic() + timeout
        while (answer := self.qmp("query-migrate")).get("status") != status:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: not {status} within {timeout:g} s: {answer}")
            time.sleep(0.02)

    def wait_rounds(self, rounds: int, timeout: float) -> None:
        """Wait until a migration that goes out from here has begun its round of this number, counting from 1."""
        deadline = time.monotonic() + timeout
        while True:
            answer: dict[str, Any] = self.qmp("query-migrate")
            if answer.get("ram", {}).get("dirty-sync-count", 0) >= rounds:
                return
            if answer.get("status") in ENDED:
                raise GuestError(f"{self.name}: the migration ended before round {rounds}: {answer}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: no round {rounds} within {timeout:g} s: {answer}")
            time.sleep(0.02)

    def converge(self) -> None:
        """Let the migration that is going on stop the guest and send the rest, however long that takes."""
        self.qmp("migrate-set-parameters", downtime_limit=60_000, max_bandwidth=UNLIMITED)

    def status(self) -> str:
        """QEMU's run state: "running", "paused", "inmigrate", "postmigrate" and others."""
        status: str = self.qmp("query-status")["status"]
        return status

    def migration_times(self) -> dict[str, float]:
        """By status of the migration, as "active" and "completed": when QEMU came into it, in seconds since 1970.

        Of the destination, "completed" tells when the guest was there; the source is done with what it put in buffers.
        """
        self.status()  # Events before its answer have come with it.
        self._events += [event for event in self._client.events.clear() if event["event"] == "MIGRATION"]
        return {
            event["data"]["status"]: event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
            for event in self._events
        }

    def cont(self) -> None:
        """Let the guest run."""
        self.qmp("cont")

    def stop(self) -> None:
        """Pause the guest."""
        self.qmp("stop")

    def ram(self) -> npt.NDArray[np.uint8]:
        """The guest's RAM as it is now and becomes: a view of the file."""
        return np.memmap(self.ram_path, np.uint8, "r")

    def ram_sha256(self) -> str:
        """Hash of the RAM. Says something only while the RAM holds still, see the top of this module."""
        return hashlib.sha256(self.ram().data).hexdigest()

    def is_running_and_dirtying(self, seconds: float) -> bool:
        """Return True if the counters of the dirtying firmware change within `seconds`, and the guest runs."""

        def words() -> npt.NDArray[np.uint32]:
            pages = self.ram()[DIRTY_FROM:DIRTY_TO].view(np.uint32).reshape(-1, PAGE // 4)
            return pages[:, 0x10 // 4].copy()

        before = words()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(0.02, seconds))
            if not np.array_equal(before, words()):
                return self.status() == "running"
        return False

    def wait_dirtied(self, timeout: float) -> None:
        """Wait until the dirtying firmware has counted in all of its pages.

        A migration that starts before that finds pages of zeros. Its rounds are short, and it may complete by itself.
        """
        last = self.ram()[DIRTY_TO - PAGE + 0x10 : DIRTY_TO - PAGE + 0x14]
        deadline = time.monotonic() + timeout
        while not last.any():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: the firmware has not dirtied its memory within {timeout:g} s")
            time.sleep(0.01)

    def cpu_seconds(self) -> float:
        """CPU time that all of QEMU's threads have had so far."""
        return process_cpu_seconds(self.pid)

    def _wait_for(self, what: str, start: Callable[[], Awaitable[_T]]) -> _T:
        async def bounded() -> _T:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await start()

        loop = self._runner.get_loop()
        task = loop.create_task(bounded())
        try:
            return loop.run_until_complete(task)
        except (QMPError, OSError) as error:
            raise GuestError(f"{self.name}: {what}: {error or type(error).__name__}{self._ending()}") from error
        finally:
            # Interrupted, as by a signal's exception: what is left half done would get in the way of closing.
            if not task.done():
                task.cancel()
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    loop.run_until_complete(task)

    def _ending(self) -> str:
        """Return a description of a process that may just have ended."""
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.2)
        stderr = self.stderr_path.read_text(errors="replace").strip()
        return ("" if code is None else f"; QEMU ended with {code}") + (f"; it wrote:\n{stderr}" if stderr else "")

    def _close(self) -> None:
        try:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        finally:
            # The end of the connection is an error of the client, and is expected here.
            with contextlib.suppress(Exception):
                self._runner.run(self._client.disconnect())
            self._runner.close()
            self.ram_path.unlink(missing_ok=True)


def process_cpu_seconds(pid: int) -> float:
    """CPU time of another process, of all its threads: what clock_getcpuclockid(3) leads to, by the nanosecond."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def _value(path: Path) -> str:
    """A path in one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def make_data(path: Path, mebibytes: int, seed: int = 0) -> None:
    """Write what the RAM of a guest at work may look like; the same for the same size and seed.

    Runs of pages of one kind each: 15 % zeros, 10 % random, the rest text, float32 fields, records with pointers and
    repeated structures. QEMU's zlib (level 1) makes about 2.7:1 of the pages that are not zeros.
    """
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[np.random.Generator, int], npt.NDArray[Any]]] = []
    vocabulary = _vocabulary(rng)
    deck = [
        *[_zeros] * 3,
        *[_noise] * 2,
        *[lambda rng, size: _text(rng, size, vocabulary)] * 4,
        *[_field] * 4,
        *[_records] * 5,
        *[_repeats] * 2,
    ]
    left = mebibytes * MIB // PAGE
    # Long enough a run to look like something of its own, short enough for all kinds to come up a few times.
    typical = min(max(left // (2 * len(deck)), 4), 160)
    with path.open("wb") as file:
        while left:
            if not kinds:
                kinds = [deck[index] for index in rng.permutation(len(deck))]
            pages = min(left, int(rng.integers(typical // 2, typical * 3 // 2, endpoint=True)))
            file.write(kinds.pop()(rng, pages * PAGE).tobytes()[: pages * PAGE])
            left -= pages


def _zeros(_: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    return np.zeros(size, np.uint8)


def _noise(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Return bytes like compressed or encrypted data."""
    return rng.integers(0, 256, size, np.uint8)


def _vocabulary(rng: np.random.Generator) -> list[bytes]:
    """Words of 1 to 10 letters, some letters being commoner than others."""
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", np.uint8)
    lengths = rng.integers(1, 10, 4000, endpoint=True)
    return [letters[(26 * rng.random(length) ** 2).astype(int)].tobytes() for length in lengths.tolist()]


def _text(rng: np.random.Generator, size: int, vocabulary: list[bytes]) -> npt.NDArray[np.uint8]:
    """Words, few of them common and many rare, with full stops and line ends."""
    ranks = (len(vocabulary) * rng.random(size // 4) ** 3).astype(int)
    words = [vocabulary[rank] for rank in ranks.tolist()]
    words[11::13] = [word + b".\n" for word in words[11::13]]
    return np.frombuffer(b" ".join(words).ljust(size)[:size], np.uint8)


def _field(rng: np.random.Generator, size: int) -> npt.NDArray[np.float32]:
    """Measurements: a smooth curve and noise, to a sixteenth of a unit."""
    at = np.arange(size // 4, dtype=np.float32) / np.float32(rng.integers(200, 2000))
    curve = 300 + 30 * np.sin(at) + rng.standard_normal(size // 4, np.float32)
    field: npt.NDArray[np.float32] = np.round(curve * 16).astype(np.float32) / np.float32(16)
    return field


def _records(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint64]:
    """Records of 64 bytes: two pointers, a number, lengths and flags, a time, nothing in the rest."""
    count = size // 64
    heap = np.uint64(0x7F0000000000 + (int(rng.integers(1 << 24)) << 12))
    record = np.zeros((count, 8), np.uint64)
    record[:, 0] = heap + np.uint64(64) * rng.integers(0, count, count, np.uint64)
    record[:, 1] = heap + np.uint64(64) * np.arange(1, count + 1, dtype=np.uint64)
    record[:, 2] = rng.integers(0, 1 << 16, count, np.uint64)
    record[:, 3] = rng.integers(0, 40, count, np.uint64) << np.uint64(32) | rng.integers(0, 4, count, np.uint64)
    record[:, 4] = 1_700_000_000_000_000 + np.cumsum(rng.integers(0, 5000, count, np.uint64))
    return record


def _repeats(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """One structure of 512 bytes again and again, with a number of its own in each."""
    repeats = np.tile(rng.integers(0, 256, 512, np.uint8), (size // 512, 1))
    repeats[:, 16:20] = np.arange(size // 512, dtype=np.uint32)[:, None].view(np.uint8)
    return repeats
