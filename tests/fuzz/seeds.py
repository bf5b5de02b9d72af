"""Write the corpus's seeds: one input of each kind.

    PYTHONPATH=tests/support:tests/fuzz python -P tests/fuzz/seeds.py

The other files of the corpus, with the hash of their content for a name, were found by ``tests/fuzz/run.py``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import damage
import model
import oracle
import targets

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 2047
"""Bytes of the largest file."""

LIES = {
    "size 0 is one more",
    "size 1 is a block less",
    "the border between 1 and 2 moved by 4",
    "one too many, 0",
    "block_size 0",
    "LEN 65535",
    "a second index, wrong",
    "as many as fit",
    "sizes 0 and 1 swapped",
    "no field",
}
"""Names of those wrong indexes that are seeds."""


def seeds(target: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each seed."""
    if target in oracle.READERS:
        for name, stream in damage.theirs(target).items():
            yield name, b"".join(stream.pieces)
        yield "model, fixed", model.encode(target, damage.TEXT, 64, "fixed")
        yield "model, one block", model.encode(target, damage.TEXT)
        yield "model, nothing", model.encode(target, b"")
        yield "model and padding", model.encode(target, damage.TEXT, 64) + bytes(9)
        yield "model and junk", model.encode(target, damage.TEXT, 64) + bytes(3) + b"x"
        yield "model, cut", model.encode(target, damage.TEXT, 64)[:-9]
    if target == "gzip":
        layout = model.Layout(model.encode("gzip", damage.TEXT, 64))
        yield from ((name, chunk) for name, chunk in model.lies(layout) if name in LIES)
        yield from ((name, chunk) for name, chunk in model.crafted() if " says " not in name)
    if target == "deflate":
        yield "zeros", model.raw_deflate(bytes(200_000))
        yield "far", model.raw_deflate(damage.NOISE + bytes(30_000) + damage.NOISE)
        # Streams that RFC 1951 does not define, and on which inflaters differ (see oracle.ILL_FORMED).
        yield (
            "repeat too far",
            bytes.fromhex("05c1070100000802b02a5453e4f44f603613b208b40aecb13881e35ed0cc6e4fc49d5437f5a69537e203"),
        )
        yield (
            "unused distance code",
            bytes.fromhex("0dc4471100300c03302aa1e6381efc11b41f9d80909d8c56191b16f113f7320d767be2dc4975536f5a7dc507"),
        )
        yield "length symbol 286", bytes.fromhex("33652ce32fdad68d82ff398de322c0ae209b5200e6")
        yield (
            "incomplete distances",
            bytes.fromhex("05c1070100000802b02a5453e4f44fa03613b208b40aecb13881e35ed0cc6e4fc49d5437f5a69537e203"),
        )
    if target == "pages":
        for size in targets.PAGE_SIZES:
            text = (damage.TEXT * 14)[: 3 * size] if size < 4096 else (b"ab" * 2048) * 3
            streams = [model.raw_deflate(part, window=12) for part in model.split(text, size)]
            streams = [part if len(part) < size else b"" for part in streams]
            kept = [part or raw for part, raw in zip(streams, model.split(text, size), strict=True)]
            yield f"pages of {size}", targets.pack_pages(size, list(map(len, kept)), b"".join(kept))
            padded = [part + bytes(2) if part else b"r" * size for part in streams]
            yield f"padded pages of {size}", targets.pack_pages(size, list(map(len, padded)), b"".join(padded))
        short, long = model.raw_deflate(bytes(4095)), model.raw_deflate(bytes(4097))
        yield "a short page", targets.pack_pages(4096, [len(short)], short)
        yield "a long page", targets.pack_pages(4096, [len(long)], long)
        yield "junk behind", targets.pack_pages(4096, [len(short) + 1], model.raw_deflate(bytes(4096)) + b"x")
        yield "length 0", targets.pack_pages(16, [0, 16], b"a" * 16)
        yield "no pages", targets.pack_pages(16, [], b"")
        yield "too many bytes", targets.pack_pages(16, [16], b"a" * 17)
    if target == "encode":
        contents = [b"", b"x", damage.TEXT, damage.NOISE, bytes(1000), b"\0\0\xff\xff" * 100, bytes(range(256)) * 7]
        for number in range(36):
            yield f"choice {number}", struct.pack("B", number + 36 * (number % 4)) + contents[number % len(contents)]


def main() -> None:
    """Write the files."""
    for target in targets.TARGETS:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds(target):
            if len(content) <= LARGEST:
                (folder / re.sub(r"\W+", "-", name).strip("-")).write_bytes(content)


if __name__ == "__main__":
    main()
