"""Feed hostile input to every reader, in memory that ends at a page nobody may touch.

    python tests/support/hostile.py --inputs 20000 --seed 1

Each input lies so that the byte after it cannot be read, and each `out` so that the byte after it cannot be written: a
reader that goes one byte too far ends the program with a signal. It passes if every input gives either the right data
or one of the documented errors, within bounded memory. Under AddressSanitizer (``make sanitize``) the extension's own
memory is watched as well.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import mmap
import random
import resource
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from numcodecs_qpl import QPL, CorruptDataError, compress_pages, decompress_pages
from numcodecs_qpl.containers import ContainerName
from numcodecs_qpl.serve import GZip, Zlib

PAGE = mmap.PAGESIZE
MEMORY_LIMIT = 64 << 20
"""Bytes by which the process may grow: the largest true output is under 1 MiB."""

SERVED: dict[str, type[GZip | Zlib]] = {"gzip": GZip, "zlib": Zlib}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """Memory of any size up to a limit that ends exactly where a page without access begins."""

    def __init__(self, limit: int) -> None:
        self._size = -(-limit // PAGE) * PAGE
        self._map = mmap.mmap(-1, self._size + PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        if _libc.mprotect(start + self._size, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._start = start

    def view(self, size: int) -> memoryview:
        """The last `size` bytes before the page without access."""
        return memoryview((ctypes.c_ubyte * size).from_address(self._start + self._size - size)).cast("B")


def valid(rng: random.Random) -> tuple[QPL, bytes, bytes]:
    """A codec, data, and a stream of it: ours, or another producer's."""
    size = rng.choice((0, 1, 5, 100, 4096, 20_000, 70_000, 140_000))
    kind = rng.randrange(4)
    if kind == 0:
        data = rng.randbytes(size)
    elif kind == 1:
        data = bytes(rng.choices(b"abcd efgh", k=size))
    elif kind == 2:
        data = bytes(size)
    else:
        data = np.cumsum(np.frombuffer(rng.randbytes(size), np.int8) % 3, dtype=np.uint8).tobytes()
    container: ContainerName = rng.choice(("gzip", "zlib", "deflate"))
    codec = QPL(container, rng.choice((1000, 4096, 65536)), rng.choice(("dynamic", "fixed")))
    producer = rng.randrange(5)
    if container == "gzip" and producer == 4:
        parts = [data, *(rng.randbytes(rng.randrange(10)) for _ in range(4))]
        data = b"".join(parts)
        stream = spilling(parts)
    elif producer < 2:
        stream = codec.encode(data)
    elif container == "gzip" and producer == 2:
        stream = gzip.compress(data) + gzip.compress(data[: len(data) // 2])
        data += data[: len(data) // 2]
    else:
        wbits = {"gzip": 31, "zlib": 15, "deflate": -15}[container] - (0 if container == "gzip" else rng.choice((0, 3)))
        if container == "deflate":
            wbits = -rng.choice((12, 15))
        compressor = zlib.compressobj(rng.randrange(10), zlib.DEFLATED, wbits)
        stream = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH) + compressor.flush()
    return codec, data, stream


def spilling(parts: Iterable[bytes]) -> bytes:
    """Return gzip with an index, with one member for each part and stored blocks in each.

    libqpl 1.9.0 writes up to 8 bytes after the output of such streams.
    """
    members = []
    for part in parts:
        compressor = zlib.compressobj(0 if len(part) > 10_000 else 6, zlib.DEFLATED, -15)
        stream = compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) + compressor.flush()
        size = 20 + len(stream) + 8
        header = struct.pack("<3sBIBBH2sHI", b"\x1f\x8b\x08", 4, 0, 0, 255, 8, b"IG", 4, size)
        members.append(header + stream + struct.pack("<II", zlib.crc32(part), len(part)))
    return b"".join(members)


def damage(rng: random.Random, stream: bytes) -> bytes:
    """One to three changes of the kinds that accidents and attackers make."""
    damaged = bytearray(stream)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(damaged) + 1)
        near = min(at, rng.choice((40, len(damaged))))
        match rng.randrange(8):
            case 0:
                del damaged[at:]
            case 1 if damaged:
                damaged[at % len(damaged)] ^= 1 << rng.randrange(8)
            case 2 if damaged:
                damaged[near % len(damaged)] = rng.choice((0, 1, 2, 4, 8, 16, 0x7F, 0x80, 0xFF))
            case 3:
                damaged[at : at + rng.randrange(30)] = rng.randbytes(rng.randrange(30))
            case 4:
                damaged[near : near + 4] = struct.pack("<I", rng.choice((0, 1, 27, 28, 29, 2**16, 2**31, 2**32 - 1)))
            case 5:
                damaged[-4:] = struct.pack("<I", rng.choice((0, 1, 1000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)))
            case 6:
                damaged += rng.choice((b"\0", b"\0" * 100, damaged[:3], bytes(damaged), rng.randbytes(9)))
            case 7:
                damaged[:near] = b""
    return bytes(damaged)


def junk(rng: random.Random) -> bytes:
    """Bytes that begin like something, or like nothing."""
    start = rng.choice((b"", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x04", b"\x1f\x8b\x08\x1e", b"\x48\x0d", b"\x78\x9c"))
    return start + rng.randbytes(rng.choice((0, 1, 2, 7, 10, 14, 17, 40, 300, 5000)))


def readers(
    rng: random.Random, codec: QPL, size: int, out: memoryview
) -> Iterator[tuple[str, Callable[[memoryview], bytes]]]:
    """Each way in, with what it would have to return."""

    def into(src: memoryview) -> bytes:
        codec.decode(src, out)
        return bytes(out)

    yield f"{codec.container} to bytes", lambda src: bytes(codec.decode(src))
    if codec.container in SERVED:
        served = SERVED[codec.container]()
        yield f"served {codec.container} to bytes", lambda src: bytes(served.decode(src))
    yield f"{codec.container} into out of {len(out)} for {size}", into


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if the block makes the process's peak grow by more than MEMORY_LIMIT."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MEMORY_LIMIT:
        raise AssertionError(f"memory grew by {grown} bytes")


def try_streams(rng: random.Random, inputs: Guarded, outputs: Guarded, counts: Counter[str]) -> None:
    """One stream, whole and then damaged, through every reader."""
    codec, data, stream = valid(rng)
    for hostile in (stream, damage(rng, stream), damage(rng, stream), junk(rng)):
        src = inputs.view(len(hostile))
        src[:] = hostile
        src = src.toreadonly()
        room = len(data) if rng.randrange(4) else rng.choice((0, 1, 7, 100, len(data) + 1))
        out = outputs.view(room)
        for what, read in readers(rng, codec, len(data), out):
            counts["tried"] += 1
            try:
                got = read(src)
            except CorruptDataError as error:
                counts["refused"] += 1
                if hostile is stream and room == len(data):
                    raise AssertionError(f"{what}: {codec}: a whole stream was refused") from error
            except ValueError:
                counts["of another size than out"] += 1
                if "to bytes" in what or (room == len(data) and hostile is stream):
                    raise
            else:
                counts["read"] += 1
                # Bare deflate has no checksum: damage may give other data there.
                if codec.container != "deflate" and got != data and not _another_stream_of(hostile, codec, got):
                    raise AssertionError(f"{what}: {codec}: wrong data from {hostile[:60].hex()}")


def _another_stream_of(hostile: bytes, codec: QPL, got: bytes) -> bool:
    """Return True if Python's own module reads the same: a stream without its last member may be valid."""
    read = gzip.decompress if codec.container == "gzip" else zlib.decompress
    return read(hostile) == got


def try_pages(rng: random.Random, inputs: Guarded, outputs: Guarded, counts: Counter[str]) -> None:
    """A payload of pages, with lies in its lengths or its bytes."""
    page_size = rng.choice((256, 4096, 65536))
    pages = b"".join(
        rng.choice((bytes(page_size), rng.randbytes(page_size), b"ab" * (page_size // 2))) for _ in range(3)
    )
    lengths, payload = compress_pages(pages, page_size, rng.choice(("fixed", "dynamic")))
    hostile = damage(rng, payload) if rng.randrange(4) else payload
    claims = lengths.astype(np.int64)
    if rng.randrange(2):
        claims[rng.randrange(3)] += rng.choice((-1, 1, -claims[0], page_size))
    elif len(hostile) != len(payload):
        claims[-1] += len(hostile) - len(payload)
    src = inputs.view(len(hostile))
    src[:] = hostile
    out = outputs.view(len(pages))
    counts["tried"] += 1
    try:
        decompress_pages(src, claims, page_size, out=out)
    except CorruptDataError:
        counts["refused"] += 1
        if hostile == payload and (claims == lengths).all():
            raise
    else:
        counts["read"] += 1
        if hostile == payload and bytes(out) != pages:
            raise AssertionError("wrong pages")


def try_encode(rng: random.Random, inputs: Guarded, outputs: Guarded, counts: Counter[str]) -> None:
    """Data into blocks."""
    _, data, _ = valid(rng)
    src = inputs.view(len(data))
    src[:] = data
    block_size = rng.choice((1000, 4096, 65536, 200_000))
    container: ContainerName = rng.choice(("gzip", "zlib", "deflate"))
    counts["encoded"] += 1
    stream = QPL(container, block_size, rng.choice(("dynamic", "fixed"))).encode(src)
    wbits = {"gzip": 31, "zlib": 15, "deflate": -15}
    if zlib.decompress(stream, wbits[container]) != data:
        raise AssertionError("wrong data from the encoded stream")
    for name, codec in SERVED.items():
        level = rng.randrange(10)
        if zlib.decompress(codec(level).encode(src), wbits[name]) != data:
            raise AssertionError(f"wrong data from {name} at level {level}")


def run(count: int, seed: int) -> Counter[str]:
    """Try at least `count` inputs."""
    rng = random.Random(seed)
    inputs, outputs = Guarded(1 << 20), Guarded(1 << 20)
    counts: Counter[str] = Counter()
    with bounded_memory():
        while counts["tried"] < count:
            try_streams(rng, inputs, outputs, counts)
            try_pages(rng, inputs, outputs, counts)
            try_encode(rng, inputs, outputs, counts)
    return counts


def main() -> None:
    """Command line of this program."""
    parser = argparse.ArgumentParser(description="Feed hostile input to every reader.")
    parser.add_argument("--inputs", type=int, default=20_000, help="how many to try (default 20000)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default 1)")
    options = parser.parse_args()
    counts = run(options.inputs, options.seed)
    print(f"{counts.pop('tried')} hostile inputs tried, seed {options.seed}:", dict(counts))


if __name__ == "__main__":
    main()
