"""Have the emulated IAA fail at random, and compare every byte.

    python tests/support/faulty.py --batches 10000 --seed 1

In a process that finds the emulated IAA (`emulated_iaa.environment`). Batches of random blocks go through every way in,
while page faults, analytics errors, other errors and full queues strike at rates that change. Whatever happens, what
comes out is right and no byte beside it is touched; where the path setting is "auto" there is no error, each block is
counted once, and what software did is what hardware did not; where it is "hardware" software does nothing but streams
without an index and data that the device refused, and an error is one that was struck. ``--lose`` lets the device stop
answering instead, after which the path is gone.

The program fails, too, where a kind of fault never came to its caller, or hardware did less than a tenth of the blocks.
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import random
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from blocks import LAST_BLOCK
from emulated_iaa import Device, Opcode

from numcodecs_qpl import QPL, QplError, _core, set_path, set_threads
from numcodecs_qpl._core import Memory
from numcodecs_qpl._core import blocks as core_blocks
from numcodecs_qpl._core.iaa import set_timeout
from numcodecs_qpl._core.types import Huffman, PathSetting
from numcodecs_qpl.containers import ContainerName


class Kind(NamedTuple):
    """A kind of fault: what the device is asked for, and libqpl's name of the status that it ends as."""

    action: str
    status: str
    per_million: tuple[int, ...]


OFTEN = (1_000, 20_000, 200_000, 700_000)
BUSY = "QPL_STS_QUEUES_ARE_BUSY_ERR"
KINDS = (
    Kind("read_fault", "QPL_STS_INTL_PAGE_FAULT", OFTEN),
    Kind("write_fault", "QPL_STS_INTL_W_PAGE_FAULT", OFTEN),
    Kind("error:13", "QPL_STS_INVALID_BLOCK_TYPE", OFTEN),
    Kind("error:17", "QPL_STS_BAD_DIST_ERR", OFTEN),
    Kind("error:30", "QPL_STS_INVALID_HUFFCODE_ERR", OFTEN),
    Kind("status:16", "QPL_STS_INTL_UNSUPPORTED_OPCODE", OFTEN),
    Kind("status:19", "QPL_STS_TRANSFER_SIZE_INVALID", OFTEN),
    Kind("status:32", "QPL_STS_INTL_INVALID_UR_CA_RESPONSE", OFTEN),  # a hardware error
    Kind("busy:20", BUSY, (1_000, 10_000, 50_000)),
    Kind("busy:1000", BUSY, (1_000, 10_000)),
)
REFUSED_DATA = {"QPL_STS_INVALID_BLOCK_TYPE", "QPL_STS_BAD_DIST_ERR", "QPL_STS_INVALID_HUFFCODE_ERR"}
"""Statuses of data that a device refuses, by the faults of above; software judges it on both paths."""

BAD_END = "QPL_STS_BAD_EOF_ERR"
TOO_LARGE = "QPL_STS_TRANSFER_SIZE_INVALID"
NO_PATH = "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE"
GONE = {"QPL_STS_INTL_HARDWARE_TIMEOUT", NO_PATH}

SPELL = 10
"""Batches from one change of the faults, the path and the threads to the next."""

PATIENCE = 60.0
TRANSFER = 2_000_000
"""A little less than a queue takes at once."""

POOL = 3 << 20
QUEUES = [(number, queue) for number in range(8) for queue in range(8)]
"""As many as the emulated IAA can have."""

GUARD = bytes(range(1, 65))


class WrongError(AssertionError):
    """A check of the run has failed."""


# ---- Data -------------------------------------------------------------------------------------------------------


class Data:
    """Noise, text, zeros and what repeats itself; and what was compressed of it, to be inflated.

    The first of that is made in software: the path is to be set afterwards.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pools = (
            rng.randbytes(POOL),
            bytes(rng.choices(b"abcd efgh\n", k=POOL)),
            bytes(POOL),
            (rng.randbytes(999) * (POOL // 999 + 1))[:POOL],
        )
        self._blocks: deque[tuple[bytes, bytes]] = deque(maxlen=100)
        self._encoded: deque[tuple[QPL, bytes, bytes]] = deque(maxlen=300)
        set_path("software")
        for _ in range(300):
            codec, src = self.for_codec()
            self.keep_encoded(codec, src, codec.encode(src))

    def size(self) -> int:
        """Bytes of a block: few as a rule."""
        if not self._rng.randrange(2000):
            return (2 << 20) + self._rng.randrange(1000)
        if not self._rng.randrange(200):
            return self._rng.randrange(300_000)
        return 1 + int(6000 * self._rng.random() ** 2)

    def count(self, size: int) -> int:
        """Number of blocks of that size."""
        return 1 + int(min(40, 400_000 // size) * self._rng.random() ** 2)

    def make(self, size: int) -> bytes:
        """Data of one kind, or of all of them by turns."""
        if self._rng.randrange(3):
            return self._piece(size)
        piece = max(1, size // 7)
        return b"".join(self._piece(min(piece, size - at)) for at in range(0, size, piece))

    def _piece(self, size: int) -> bytes:
        at = self._rng.randrange(POOL - size)
        return self._rng.choice(self._pools)[at : at + size]

    def keep(self, block: bytes, content: bytes) -> None:
        """Inflate this open block too, sometimes."""
        self._blocks.append((block, content))

    def open_block(self) -> tuple[bytes, bytes]:
        """An open block of zlib's, or one that was made here, and what it holds."""
        if self._blocks and self._rng.randrange(2):
            return self._rng.choice(self._blocks)
        content = self.make(self.size())
        compressor = self._compressor()
        return compressor.compress(content) + compressor.flush(zlib.Z_FULL_FLUSH), content

    def for_codec(self) -> tuple[QPL, bytes]:
        """A codec, and data for it."""
        container: ContainerName = self._rng.choice(("gzip", "gzip", "zlib", "deflate"))
        block_size = self._rng.choice((100, 1000, 4096, 65536, 1 << 22))
        codec = QPL(container, block_size, self._rng.choice(("dynamic", "fixed")))
        size = self.size() if self._rng.randrange(20) else 0
        return codec, self.make(min(size * self.count(size or 1), 40 * block_size))

    def keep_encoded(self, codec: QPL, src: bytes, encoded: bytes) -> None:
        """Decode this too, sometimes."""
        self._encoded.append((codec, src, encoded))

    def encoded(self) -> tuple[QPL, bytes, bytes]:
        """A codec that has read nothing yet, data, and what the codec made of it."""
        codec, src, encoded = self._rng.choice(self._encoded)
        return pickle.loads(pickle.dumps(codec)), src, encoded

    def stream_of(self, block: bytes) -> bytes:
        """A raw deflate stream of zlib's."""
        compressor = self._compressor()
        return bytes(compressor.compress(block) + compressor.flush())

    def _compressor(self) -> Any:
        # A window of 12 bits: a device does not follow a distance over 4096.
        return zlib.compressobj(self._rng.randrange(10), wbits=-12, strategy=self._rng.choice((0, 0, 2, 3, 4)))


class Output:
    """Memory of a given size with guards before and after it."""

    def __init__(self, size: int) -> None:
        self._all = bytearray(GUARD + bytes(size) + GUARD)
        self.view = memoryview(self._all)[len(GUARD) : len(GUARD) + size]

    def check(self) -> None:
        """Nothing may have been written beside it."""
        if not self._all.startswith(GUARD) or not self._all.endswith(GUARD):
            raise WrongError("bytes beside the output were changed")


def inflate(stream: bytes, what: str) -> bytes:
    """Return zlib's result for one whole raw stream."""
    reader = zlib.decompressobj(-15)
    block = reader.decompress(stream)
    if not reader.eof or reader.unused_data:
        raise WrongError(f"{what}: the stream of {len(stream)} bytes ends elsewhere")
    return block


def same(got: Any, expected: bytes, what: str) -> None:
    """The comparison that all this is about."""
    if bytes(got) != expected:
        raise WrongError(f"{what}: other data")


# ---- Batches ----------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """One call, and what has to come of it.

    Attributes
    ----------
    run : callable
        The call.
    check : callable
        Compares what it returned.
    compressed, decompressed : int
        Blocks to be done and counted.
    streams : int
        Streams without an index, which software inflates and counts on both paths.
    may_fail : set of str
        Statuses that blocks may have without a fault of the device.
    outputs : list of Output
        Where it may write.
    inputs : object
        Kept for as long as a device may read them.
    """

    what: str
    run: Callable[[], Any]
    check: Callable[[Any], None]
    compressed: int = 0
    decompressed: int = 0
    streams: int = 0
    may_fail: set[str] = field(default_factory=set)
    outputs: list[Output] = field(default_factory=list)
    inputs: object = None


def compress_blocks(rng: random.Random, data: Data, large: int = 0) -> Batch:
    """Blocks of any kind, or `large` ones that a device writes to with its only descriptor."""
    block_size = large or max(1, data.size())
    last = block_size if large else rng.randrange(block_size + 1)
    src = data.make(block_size * (data.count(block_size) - 1) + last)
    contents = [src[at : at + block_size] for at in range(0, len(src), block_size)]
    head = rng.choice((0, 4, 20))
    dynamic = not large and rng.choice((False, True))

    def run() -> Any:
        return core_blocks.compress_blocks(Memory(src, "src"), block_size, dynamic, "crc32", head, True, 0)

    def check(result: Any) -> None:
        written, crc = result
        at = head + 4 * len(contents)
        if crc != zlib.crc32(src):
            raise WrongError(f"compress_blocks: CRC-32 {crc:08x}")
        same(inflate(written[at:], "compress_blocks"), src, "compress_blocks")
        for number, content in enumerate(contents):
            size = int.from_bytes(written[head + 4 * number :][:4], "little")
            block = written[at : at + size]
            same(inflate(block + LAST_BLOCK, "compress_blocks"), content, "compress_blocks")
            data.keep(block, content)
            at += size
        if written[at:] != LAST_BLOCK:
            raise WrongError("compress_blocks: the index does not lead to the last block")

    may_fail = {TOO_LARGE} if block_size > TRANSFER else set()
    return Batch("compress_blocks", run, check, len(contents), 0, 0, may_fail, [], src)


def decompress_blocks(rng: random.Random, data: Data) -> Batch:
    blocks = [data.open_block() for _ in range(data.count(3000))]
    gap = rng.choice((0, 0, 7))
    src = b"".join(block + bytes(gap) for block, _ in blocks)
    lengths = [len(block) for block, _ in blocks]
    offsets = [sum(lengths[:number]) + gap * number for number in range(len(lengths))]
    contents = [content for _, content in blocks]
    # Now and then too little room, or too much.
    sizes = [
        len(content) if rng.randrange(200) else max(1, len(content) + rng.choice((-1, 1, -100, 100)))
        for content in contents
    ]
    right = sizes == [len(content) for content in contents]
    out = Output(sum(sizes))
    places = list(zip(offsets, lengths, sizes, strict=True))

    def run() -> Any:
        return core_blocks.decompress_blocks(Memory(src, "src"), places, Memory(out.view, "out", True), False, "crc32")

    def check(crcs: Any) -> None:
        whole = b"".join(contents)
        if crcs != ([zlib.crc32(whole)] if right else None):
            raise WrongError(f"decompress_blocks: {crcs}")
        if right:
            same(out.view, whole, "decompress_blocks")

    may_fail = {TOO_LARGE} if max(sizes) > TRANSFER else set()
    if not right:
        may_fail.add(BAD_END)
    return Batch("decompress_blocks", run, check, 0, len(sizes), 0, may_fail, [out], src)


def compress_pages(rng: random.Random, data: Data) -> Batch:
    page_size = rng.choice((2, 256, 1000, 4096, 4096, 4096, 65536))
    pages = b"".join(data.make(page_size) for _ in range(data.count(page_size)))
    count = len(pages) // page_size
    huffman: Huffman = rng.choice(("fixed", "dynamic"))
    lengths = np.empty(count, np.uint32)
    out = Output(len(pages))

    def run() -> Any:
        return _core.compress_pages_into(pages, lengths, out.view, page_size, huffman)

    def check(size: Any) -> None:
        at = 0
        for number, length in enumerate(lengths.tolist()):
            page = pages[number * page_size : (number + 1) * page_size]
            stream = bytes(out.view[at : at + length])
            same(stream if length == page_size else inflate(stream, "compress_pages"), page, "compress_pages")
            at += length
        if at != size:
            raise WrongError(f"compress_pages: a payload of {size} bytes has pages of {at}")

    return Batch("compress_pages", run, check, count, 0, 0, set(), [out], pages)


def decompress_pages(rng: random.Random, data: Data) -> Batch:
    page_size = rng.choice((256, 1000, 4096, 4096, 4096, 65536))
    pages = [data.make(page_size) for _ in range(data.count(page_size))]
    streams = [data.stream_of(page) for page in pages]
    streams = [stream if len(stream) < page_size else page for stream, page in zip(streams, pages, strict=True)]
    payload = b"".join(streams)
    lengths = [len(stream) for stream in streams]
    out = Output(len(pages) * page_size) if rng.randrange(2) else None

    def run() -> Any:
        return _core.decompress_pages(payload, lengths, page_size, out=out.view if out else None)

    def check(result: Any) -> None:
        same(result, b"".join(pages), "decompress_pages")

    counted = sum(length < page_size for length in lengths)
    return Batch("decompress_pages", run, check, 0, counted, 0, set(), [out] if out else [], payload)


def blocks_of(codec: QPL, src: bytes) -> int:
    """Return the number of blocks that a codec makes of some data."""
    return -(-len(src) // codec.block_size)


def encode(rng: random.Random, data: Data) -> Batch:
    codec, src = data.for_codec()

    def check(encoded: Any) -> None:
        reader = zlib.decompressobj({"gzip": 31, "zlib": 15, "deflate": -15}[codec.container])
        same(reader.decompress(encoded), src, f"encode: {codec}")
        if not reader.eof or reader.unused_data:
            raise WrongError(f"encode: {codec}: the stream ends elsewhere")
        data.keep_encoded(codec, src, encoded)

    may_fail = {TOO_LARGE} if min(len(src), codec.block_size) > TRANSFER else set()
    return Batch("encode", lambda: codec.encode(src), check, blocks_of(codec, src), 0, 0, may_fail, [], src)


def decode(rng: random.Random, data: Data) -> Batch:
    codec, src, encoded = data.encoded()
    count = blocks_of(codec, src) if codec.container == "gzip" else 0
    out = Output(len(src)) if rng.randrange(2) else None

    def check(result: Any) -> None:
        same(out.view if out else result, src, f"decode: {codec}")

    return Batch(
        "decode",
        lambda: codec.decode(encoded, out.view if out else None),
        check,
        decompressed=count,
        streams=int(count == 0),
        may_fail={TOO_LARGE} if count and min(len(src), codec.block_size) > TRANSFER else set(),
        outputs=[out] if out else [],
        inputs=encoded,
    )


MAKERS = (compress_blocks, decompress_blocks, compress_pages, decompress_pages, encode, decode)


# ---- What was done ----------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """Counts of `numcodecs_qpl.stats`: blocks of each path, compressed and decompressed, and fallbacks."""

    hardware: tuple[int, int]
    software: tuple[int, int]
    fallback: Counter[str]

    @classmethod
    def now(cls) -> Counts:
        seen = _core.stats()
        hardware, software = (
            (seen[path]["compressed"], seen[path]["decompressed"]) for path in ("hardware", "software")
        )
        return cls(hardware, software, Counter(seen["fallback"]))

    def since(self, before: Counts) -> Counts:
        pairs = [
            (new[0] - old[0], new[1] - old[1])
            for new, old in ((self.hardware, before.hardware), (self.software, before.software))
        ]
        return Counts(pairs[0], pairs[1], self.fallback - before.fallback)


@dataclass
class Report:
    """All of them together."""

    batches: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch, done: Counts, refused: list[str]) -> None:
        self.batches[batch.what] += 1
        self.blocks["hardware"] += sum(done.hardware)
        self.blocks["software"] += sum(done.software)
        self.fallbacks += done.fallback
        self.errors.update(refused)

    def print(self) -> None:
        for what, counter in vars(self).items():
            print(f"{what}: {sum(counter.values())}")
            for name, number in sorted(counter.items()):
                print(f"  {number:8} {name}")


def attempt(batch: Batch, struck: set[str]) -> tuple[Counts, list[str]]:
    """Run a batch while faults strike that give statuses of these names; what was done, and the error, if any."""
    before = Counts.now()
    auto = _core.get_path() == "auto"
    refused: list[str] = []
    try:
        result = batch.run()
    except QplError as error:
        refused = [str(error.name)]
        if auto:
            raise WrongError(f"{batch.what}: an error where the path is auto") from error
    else:
        batch.check(result)
    for out in batch.outputs:
        out.check()
    done = Counts.now().since(before)
    wanted = (batch.compressed, batch.decompressed + batch.streams)
    total = (done.hardware[0] + done.software[0], done.hardware[1] + done.software[1])
    state = f"{batch.what}: wanted {wanted}, done {done}, refused {refused}, struck {struck}"
    if not {*refused, *done.fallback} <= struck | batch.may_fail:
        raise WrongError(f"a status that nothing gave a reason for: {state}")
    if sum(done.fallback.values()) != sum(done.software) - (0 if refused else batch.streams):
        raise WrongError(f"software did not do what hardware did not: {state}")
    if not auto and (done.software[0] or not set(done.fallback) <= {*REFUSED_DATA, BAD_END}):
        raise WrongError(f"software was not to do this: {state}")
    counted = total == wanted
    if refused:
        counted = sum(total) < sum(wanted) or refused == [NO_PATH]
    if not counted:
        raise WrongError(f"blocks were not counted once each: {state}")
    return done, refused


# ---- Faults -----------------------------------------------------------------------------------------------------


def strike(rng: random.Random, device: Device) -> set[str]:
    """Have other faults from now on; the names of the statuses that they give."""
    device.clear_faults()
    set_path(rng.choice(("auto", "auto", "hardware")))
    set_threads(rng.choice((1, 1, 2)))
    kinds = rng.sample(KINDS, rng.choice((0, 1, 1, 2, 3)))
    for kind in kinds:
        operation = rng.choice(("any", "compress", "decompress"))
        rate = rng.choice(kind.per_million)
        device.random_fault(f"{operation}:{rate}:{rng.randrange(1, 10**9)}:{kind.action}")
    # Several in a row outlast all that is done about a page fault.
    for kind in kinds:
        device.fault(f"any:{rng.randrange(1, 100)}:{rng.randrange(1, 9)}:{kind.action}")
    return {kind.status for kind in kinds}


def batches(rng: random.Random, data: Data) -> Iterator[Batch]:
    while True:
        yield rng.choice(MAKERS)(rng, data)


def run(count: int, seed: int, device: Device) -> Report:
    """Run so many batches."""
    rng = random.Random(seed)
    report = Report()
    made = batches(rng, Data(rng))
    struck: set[str] = set()
    for number in range(count):
        if number % SPELL == 0:
            struck = strike(rng, device)
        # Where hardware is demanded a block waits for a full queue, and else three times at the most.
        full = {BUSY} if _core.get_path() == "auto" else set()
        batch = next(made)
        try:
            done, refused = attempt(batch, struck | full)
        except BaseException:
            print(f"batch {number}, path {_core.get_path()}, threads {_core.get_threads()}, struck {struck}")
            raise
        report.add(batch, done, refused)
    device.clear_faults()
    return report


def served(device: Device) -> int:
    """Descriptors that the device has completed; libqpl's own NOOP in each queue is none of them."""
    return sum(
        max(0, device.served(opcode, *place)) for opcode in (Opcode.COMPRESS, Opcode.DECOMPRESS) for place in QUEUES
    )


def check_all_was_met(report: Report, device: Device) -> None:
    """Check that the run was worth it: every kind of fault occurred, and many blocks succeeded."""
    for kind in KINDS:
        if not report.fallbacks[kind.status]:
            raise WrongError(f"no block fell back for {kind.status}")
        if kind.status != BUSY and not report.errors[kind.status]:
            raise WrongError(f"no error was {kind.status}")
    if 10 * report.blocks["hardware"] < sum(report.blocks.values()):
        raise WrongError("hardware did less than a tenth of the blocks")
    if served(device) < report.blocks["hardware"]:
        raise WrongError("the device did less than what was counted")


# ---- A device that stops answering ------------------------------------------------------------------------------


def lose(how: str, path: PathSetting, count: int, seed: int, device: Device) -> Report:
    """Run so many batches, in the midst of which the device stops answering.

    Every descriptor hangs, the device is lost and takes none, or it holds all back until they were given up, and does
    them then.
    """
    rng = random.Random(seed)
    report = Report()
    data = Data(rng)
    made = batches(rng, data)
    set_path(path)
    set_threads(2)
    auto = path == "auto"
    full = {BUSY} if auto else set()
    for _ in range(count // 2):
        batch = next(made)
        report.add(batch, *attempt(batch, full))
    set_timeout(0.3)
    if how == "hold":
        device.hold(True)
    else:
        device.fault(f"any:{rng.randrange(1, 20)}:{1 if how == 'lost' else 1000}:{how}")
    # Large blocks first: their memory is freed after use, and is not to be where a device may still write.
    large = compress_blocks(rng, data, 300_000)
    made = itertools.chain([large], made)
    caught: list[Batch] = []
    while _core.hardware_init_status() == 0:
        if len(caught) == 50:
            raise WrongError("a device that answers nothing is still used")
        caught.append(next(made))
        report.add(caught[-1], *attempt(caught[-1], {*full, *GONE, BUSY}))
    if how == "hold":
        held = [[bytes(out.view) for out in batch.outputs] for batch in caught]
        device.hold(False)
        deadline = time.monotonic() + PATIENCE
        while device.waiting() or device.working:
            if time.monotonic() > deadline:
                raise WrongError("the device does not end what it has")
            time.sleep(0.001)
        # What comes late comes to memory that nobody else has.
        if held != [[bytes(out.view) for out in batch.outputs] for batch in caught]:
            raise WrongError("the device has written to the caller's memory")
    before = served(device)
    for _ in range(count // 2):
        batch = next(made)
        if auto:
            blocks = Counts.now()
            batch.check(batch.run())
            report.add(batch, Counts.now().since(blocks), [])
        else:
            report.add(batch, *attempt(batch, GONE))
    if served(device) != before:
        raise WrongError("something was submitted to a device that has gone")
    return report


def main() -> None:
    """Command line of this program."""
    parser = argparse.ArgumentParser(description="Have the emulated IAA fail at random, and compare every byte.")
    parser.add_argument("--batches", type=int, default=10_000, help="how many to run (default 10000)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default 1)")
    parser.add_argument("--lose", choices=("hang", "lost", "hold"), help="have the device stop answering instead")
    parser.add_argument("--path", choices=("auto", "hardware"), default="auto", help="where blocks run then")
    options = parser.parse_args()
    device = Device()
    set_timeout(PATIENCE)
    if options.lose:
        report = lose(options.lose, options.path, options.batches, options.seed, device)
    else:
        report = run(options.batches, options.seed, device)
        check_all_was_met(report, device)
    print(f"{options.batches} batches on the emulated IAA, seed {options.seed}:")
    report.print()


if __name__ == "__main__":
    main()
