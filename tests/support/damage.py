"""Every kind of damage to every kind of stream, and a check of a reader's verdict against the oracle's.

    python tests/support/damage.py --path hardware --threads 4 gzip

The program checks the codec of this process in one container: tests start it where a path or a device has to be set.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import model
import oracle

from numcodecs_qpl import QPL, CorruptDataError, set_path, set_threads
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

RNG = random.Random(11)
TEXT = bytes(RNG.choices(b"abcd efgh", k=300))
NOISE = RNG.randbytes(150)
LARGE = bytes(RNG.choices(b"abcdefghijklmnop ", k=20_000)) + RNG.randbytes(70_000) + bytes(50_000)
LARGE += bytes(RNG.choices(b"0123", k=60_000))
"""Text, noise, zeros and digits in four blocks of 64 KiB: enough for several threads to have work."""

CANARY = b"\xa5" * 64


class Stream(NamedTuple):
    """A whole stream of one producer, before damage.

    Attributes
    ----------
    pieces : list of bytes
        The stream; gzip members each on their own.
    data : bytes
        What it inflates to.
    """

    pieces: list[bytes]
    data: bytes


class Codec(Protocol):
    """Interface of the codec under test."""

    def encode(self, buf: Any) -> bytes: ...
    def decode(self, buf: Any, out: Any = None) -> Any: ...


class Make(Protocol):
    """Something that makes a codec, as the class `QPL` does."""

    def __call__(self, *, container: ContainerName, block_size: int = ..., huffman: Huffman = ...) -> Codec: ...


def ours(container: ContainerName, make: Make = QPL) -> dict[str, Stream]:
    """Streams of the codec, by name: of several blocks, of one, of stored blocks, of nothing."""
    return {
        "ours, small blocks": Stream([make(container=container, block_size=64).encode(TEXT)], TEXT),
        "ours, small blocks, fixed": Stream(
            [make(container=container, block_size=64, huffman="fixed").encode(TEXT)], TEXT
        ),
        "ours, one block": Stream([make(container=container).encode(TEXT)], TEXT),
        "ours, noise": Stream([make(container=container, block_size=64).encode(NOISE)], NOISE),
        "ours, nothing": Stream([make(container=container).encode(b"")], b""),
    }


def theirs(container: str) -> dict[str, Stream]:
    """Streams of other producers, by name."""
    wbits = {"gzip": 31, "zlib": 15, "deflate": -15}[container]
    streams = {
        "the model's, small blocks": Stream([model.encode(container, TEXT, 64)], TEXT),
        "zlib level 6": Stream([zlib.compress(TEXT, 6, wbits)], TEXT),
        "zlib level 0": Stream([zlib.compress(NOISE, 0, wbits)], NOISE),
        "zlib, nothing": Stream([zlib.compress(b"", 6, wbits)], b""),
    }
    if container == "gzip":
        two = [gzip.compress(part, mtime=0) for part in (TEXT[:200], TEXT[200:])]
        mixed = [model.encode("gzip", TEXT[:100], 30), two[1], *model.pgzip_members(TEXT[:90], 50)]
        streams |= {
            "two members": Stream(two, TEXT),
            "two equal members": Stream([two[0]] * 2, TEXT[:200] * 2),
            "IG members": Stream(model.pgzip_members(TEXT, 100), TEXT),
            "BC members": Stream(model.bgzf_members(TEXT, 100), TEXT),
            "every header field": Stream([model.every_field(TEXT)], TEXT),
            "ours twice": Stream([model.encode("gzip", TEXT[:100], 30)] * 2, TEXT[:100] * 2),
            "ours, another's, IG": Stream(mixed, TEXT[:100] + TEXT[200:] + TEXT[:90]),
        }
    return streams


def cut(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """The stream without its end, at every byte."""
    for length in range(len(stream)):
        yield f"cut at {length}", stream[:length]


def flip(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """The stream with one bit flipped."""
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit % 8} of byte {bit // 8}", bytes(flipped)


def lose(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """The stream without one of its bytes, and with one twice."""
    for at in range(len(stream)):
        yield f"byte {at} lost", stream[:at] + stream[at + 1 :]
        yield f"byte {at} twice", stream[:at] + stream[at:][:1] + stream[at:]


def fillings() -> Iterator[tuple[str, bytes]]:
    """Bytes to put after a stream, or between two members."""
    for count in range(1, 10):
        yield f"{count} zeros", bytes(count)
        yield f"{count} ones", b"\xff" * count
        yield f"{count} bytes", b"\x03\x00more x".ljust(count, b"y")[:count]
        yield f"{count - 1} zeros and a byte", bytes(count - 1) + b"\1"
        yield f"a byte and {count - 1} zeros", b"\1" + bytes(count - 1)
    for count in (255, 256, 4096):
        yield f"{count} zeros", bytes(count)
        yield f"{count} zeros and a byte", bytes(count) + b"x"


def append(stream: Stream, others: dict[str, Stream]) -> Iterator[tuple[str, bytes]]:
    """The stream with something before, after, or between its members."""
    pieces, whole = stream.pieces, b"".join(stream.pieces)
    for border in range(len(pieces) + 1):
        for name, filling in fillings():
            yield f"{name} before member {border}", b"".join([*pieces[:border], filling, *pieces[border:]])
    for name, other in others.items():
        yield f"then {name}", whole + b"".join(other.pieces)
        yield f"then zeros, then {name}", whole + bytes(3) + b"".join(other.pieces)
    for count in range(1, 10):
        for end in (2, 4, 8):
            yield f"{count} bytes and the last {end} again", whole + b"j" * count + whole[-end:]
            yield f"{count} zeros and the last {end} again", whole + bytes(count) + whole[-end:]
    for end in range(1, 10):
        yield f"the last {end} again", whole + whole[-end:]


def lose_blocks(container: ContainerName) -> Iterator[tuple[str, bytes]]:
    """Chunks of small blocks whose blocks are lost, repeated or swapped, without and with an index that agrees."""
    pieces = model.blocks(TEXT, 64)
    ends = {"zlib": struct.pack(">I", zlib.adler32(TEXT)), "deflate": b""}
    orders = {
        "lost": [[*pieces[:i], *pieces[i + 1 :]] for i in range(len(pieces))],
        "twice": [[*pieces[: i + 1], *pieces[i:]] for i in range(len(pieces))],
        "swapped": [[*pieces[:i], pieces[i + 1], pieces[i], *pieces[i + 2 :]] for i in range(len(pieces) - 1)],
        "empty before": [[*pieces[:i], b"\0" + model.ALIGNED, *pieces[i:]] for i in range(len(pieces) + 1)],
        "final": [[*pieces[:i], model.raw_deflate(TEXT[64 * i :])] for i in range(len(pieces))],
    }
    for how, several in orders.items():
        for i, changed in enumerate(several):
            for close in (model.END, b"\x01\0\0\xff\xff", b""):
                stream = b"".join(changed) + close
                name = f"block {i} {how}, closed by {close.hex()}"
                if container == "zlib":
                    yield name, b"\x48\x0d" + stream + ends["zlib"]
                elif container == "deflate":
                    yield name, stream
                else:
                    for what, sizes in (("true", map(len, changed)), ("old", map(len, pieces))):
                        yield f"{name}, {what} index", model.member(stream, TEXT, model.index(64, list(sizes)))


def cases(container: ContainerName, streams: dict[str, Stream]) -> Iterator[tuple[str, bytes, bytes]]:
    """Each damage to each stream: its name, the damaged stream, and the data before the damage."""
    for producer, stream in streams.items():
        whole = b"".join(stream.pieces)
        yield f"{producer}: whole", whole, stream.data
        for damage in (cut(whole), flip(whole), lose(whole), append(stream, streams)):
            for name, damaged in damage:
                yield f"{producer}: {name}", damaged, stream.data
    for name, damaged in lose_blocks(container):
        yield f"the model's: {name}", damaged, TEXT


def index_cases(chunk: bytes, data: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Our gzip chunk with each wrong index, alone and with more behind; and the index before others' streams."""
    layout = model.Layout(chunk)
    for name, wrong in model.lies(layout):
        yield name, wrong, data
        yield f"{name}, cut", wrong[:-9], data
        yield f"{name}, then zeros", wrong + bytes(50), data
        yield f"{name}, then the chunk", wrong + chunk, data
        yield f"{name}, then junk", wrong + b"junk", data
        yield f"{name}, after the chunk", chunk + wrong, data
        damaged = bytearray(wrong)
        damaged[-len(layout.trailer) - 6] ^= 0x10
        yield f"{name}, and a damaged last block", bytes(damaged), data
    sizes = [len(piece) for piece in layout.pieces]
    strange = {f"level {level}": model.raw_deflate(data, level) for level in (0, 6)}
    strange["ours with a final block of zlib's"] = b"".join(layout.pieces[:-1]) + model.raw_deflate(
        data[layout.block_size * (len(sizes) - 1) :]
    )
    strange["ours without an end"] = b"".join(layout.pieces)
    strange["ours closed by a stored block"] = b"".join(layout.pieces) + b"\1\0\0\xff\xff"
    for name, stream in strange.items():
        around = (len(stream) - 2) // max(1, len(sizes))
        for what, claim in (("the index of ours", sizes), ("an index of parts", [around] * len(sizes))):
            yield f"{what} before {name}", model.member(stream, data, model.index(layout.block_size, claim)), data
        yield f"one size before {name}", model.member(stream, data, model.index(len(data), [len(stream)])), data
        yield f"one size - 2 before {name}", model.member(stream, data, model.index(len(data), [len(stream) - 2])), data


def large_cases(container: ContainerName, chunk: bytes, seed: int = 1) -> Iterator[tuple[str, bytes, bytes]]:
    """Samples of damage to a chunk of several large blocks, on which threads share the work."""
    rng = random.Random(seed)
    yield "whole", chunk, LARGE
    yield "then zeros", chunk + bytes(9), LARGE
    yield "then junk", chunk + bytes(9) + b"x", LARGE
    for at in sorted({1, len(chunk) - 1, len(chunk) - 4, len(chunk) - 8, *rng.sample(range(len(chunk)), 25)}):
        yield f"cut at {at}", chunk[:at], LARGE
    bits = [*rng.sample(range(8 * len(chunk)), 60), *range(0, 8 * 40, 3), *range(8 * len(chunk) - 120, 8 * len(chunk))]
    for bit in bits:
        flipped = bytearray(chunk)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit % 8} of byte {bit // 8}", bytes(flipped), LARGE
    if container == "gzip":
        for name, wrong in model.lies(model.Layout(chunk)):
            yield name, wrong, LARGE


class Verdict(NamedTuple):
    """The oracle's verdict: the bytes, or why there are none."""

    data: bytes | None
    fault: oracle.RefusedError | None


def verdict(container: ContainerName, damaged: bytes) -> Verdict:
    """The oracle's verdict on an input."""
    try:
        return Verdict(oracle.READERS[container](damaged), None)
    except oracle.RefusedError as fault:
        return Verdict(None, fault)


class WrongVerdictError(AssertionError):
    """The codec's verdict is not the oracle's."""


class Checker:
    """Holds a codec against the oracle.

    Parameters
    ----------
    container : str
        Which reader it is.
    make : callable
        The codec's class.

    Attributes
    ----------
    counts : Counter
        Inputs accepted, refused, and accepted though ill-formed (see `oracle.ILL_FORMED`).
    """

    def __init__(self, container: ContainerName, make: Make = QPL) -> None:
        self.container = container
        self.make = make
        self.counts: Counter[str] = Counter()

    def _decode(self, damaged: bytes, size: int | None) -> bytes | CorruptDataError | ValueError:
        """Decode by a new codec, into memory of `size` bytes if given; return the bytes or the error."""
        codec = self.make(container=self.container)
        if size is None:
            try:
                return bytes(codec.decode(damaged))
            except CorruptDataError as error:
                return error
        memory = bytearray(size) + CANARY
        out = memoryview(memory)[:size]
        try:
            codec.decode(damaged, out)
            return bytes(out)
        except ValueError as error:  # also for an out of another size
            return error
        finally:
            if memory[size:] != CANARY:
                raise WrongVerdictError(f"bytes behind out were written: {memory[size:].hex()}")

    def check(self, name: str, damaged: bytes, data: bytes, *, strict: bool = False) -> None:
        """Decode into new memory and into `out` of several sizes, and compare each verdict with the oracle's.

        Parameters
        ----------
        name : str
            What was done to the data, for the error.
        damaged : bytes
            The input.
        data : bytes
            What it inflated to before the damage.
        strict : bool
            Do not accept ill-formed streams (see `oracle.ILL_FORMED`).

        Raises
        ------
        WrongVerdictError
            If a verdict differs.
        """
        right, fault = verdict(self.container, damaged)
        got = self._decode(damaged, None)
        if fault and fault.ill_formed and isinstance(got, bytes) and not strict:
            self.counts["ill-formed"] += 1
            # Inflaters differ, and the rest of the checks holds: one verdict for all ways, and no wrong byte.
            if got != data and not self._check_sums(damaged, got):
                raise WrongVerdictError(f"{name}: {_short(got)} accepted with another checksum, and {fault}")
            right = got
        elif right is None:
            self.counts["refused"] += 1
            if isinstance(got, bytes):
                raise WrongVerdictError(f"{name}: accepted as {len(got)} bytes, but {fault}")
            if fault and fault.follows and not re.search(rf"\bbyte {fault.follows}\b", str(got)):
                raise WrongVerdictError(f"{name}: byte {fault.follows} must not follow, the error says {got}")
        else:
            self.counts["accepted"] += 1
            if got != right:
                raise WrongVerdictError(f"{name}: {_short(got)} instead of {_short(right)}")
        sizes = {len(data)} if right is None else {len(data), len(right), len(right) + 1, max(0, len(right) - 1)}
        for size in sizes:
            got = self._decode(damaged, size)
            if right is not None and len(right) == size:
                if got != right:
                    raise WrongVerdictError(f"{name}: into out {_short(got)} instead of {_short(right)}")
            elif isinstance(got, bytes):
                raise WrongVerdictError(f"{name}: into out of {size} bytes accepted, but {fault or len(right or b'')}")

    def _check_sums(self, damaged: bytes, got: bytes) -> bool:
        """Return True if the checksum of `got` is in the input, or the container has none."""
        if self.container == "deflate":
            return True
        if self.container == "zlib":
            return zlib.adler32(got).to_bytes(4, "big") in damaged
        return struct.pack("<II", zlib.crc32(got), len(got)) in damaged


def _short(got: bytes | Exception) -> str:
    if isinstance(got, bytes):
        return f"{len(got)} bytes, {got[:20]!r}…"
    return f"{type(got).__name__}: {got}"


def all_cases(container: ContainerName, make: Make = QPL) -> Iterator[tuple[str, bytes, bytes]]:
    """Everything to check in a container."""
    streams = ours(container, make)
    yield from cases(container, streams | theirs(container))
    if container == "gzip":
        for producer in ("ours, small blocks", "ours, one block"):
            (chunk,), data = streams[producer]
            for name, damaged, right in index_cases(chunk, data):
                yield f"index: {name}", damaged, right
        for name, chunk in model.crafted():
            yield f"crafted: {name}", chunk, TEXT
    yield from large_cases(container, make(container=container).encode(LARGE))


def run(container: ContainerName, threads: int, make: Make = QPL, most: int = 20) -> Counter[str]:
    """Check all cases; raise `WrongVerdictError` that lists those that differ, `most` at most."""
    set_threads(threads)
    checker = Checker(container, make)
    wrong = []
    for name, damaged, data in all_cases(container, make):
        try:
            checker.check(name, damaged, data, strict=name.startswith(("index: ", "crafted: ")))
        except WrongVerdictError as error:
            wrong.append(str(error))
            if len(wrong) == most:
                break
    if wrong:
        raise WrongVerdictError("\n".join(wrong))
    return checker.counts


def main() -> None:
    """Command line of this program."""
    parser = argparse.ArgumentParser(description="Check the codec's verdicts on damaged streams.")
    parser.add_argument("containers", nargs="+", choices=list(oracle.READERS))
    parser.add_argument("--path", default="software", help="the setting of set_path")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_path(options.path)
    for container in options.containers:
        print(f"{container}, {options.threads} threads:", dict(run(container, options.threads)))


if __name__ == "__main__":
    main()
