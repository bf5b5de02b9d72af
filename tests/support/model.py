"""The format of ``docs/format.md`` in plain Python, and gzip as other programs write it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

END = b"\x03\0"
"""The final deflate block, which is empty."""

ALIGNED = b"\0\0\xff\xff"
"""End of each block: the LEN and NLEN of an empty stored block."""

BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty member that ends a BGZF file."""


def split(data: bytes, size: int) -> list[bytes]:
    """Cut `data` into pieces of `size` bytes; the last one may be shorter, and no data has no piece."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def raw_deflate(data: bytes, level: int = 6, window: int = 15, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """One raw deflate stream of zlib."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -window, 8, strategy)
    return compressor.compress(data) + compressor.flush()


def block(data: bytes, huffman: str = "dynamic") -> bytes:
    """One block: a window of 4 KiB, no BFINAL, an empty stored block at its end."""
    strategy = zlib.Z_FIXED if huffman == "fixed" else zlib.Z_DEFAULT_STRATEGY
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12, 8, strategy)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


def blocks(data: bytes, block_size: int, huffman: str = "dynamic") -> list[bytes]:
    """All blocks of a chunk."""
    return [block(piece, huffman) for piece in split(data, block_size)]


def subfield(name: bytes, content: bytes, length: int | None = None) -> bytes:
    """A subfield of FEXTRA; `length` is what its LEN says instead of the truth."""
    return name + struct.pack("<H", len(content) if length is None else length) + content


def index(block_size: int, sizes: Sequence[int], length: int | None = None) -> bytes:
    """The subfield "QB"."""
    return subfield(b"QB", struct.pack(f"<{1 + len(sizes)}I", block_size, *sizes), length)


def member(
    stream: bytes,
    data: bytes,
    extra: bytes | None = None,
    *,
    name: bytes | None = None,
    comment: bytes | None = None,
    crc16: bool = False,
) -> bytes:
    """A gzip member of any header fields around a raw stream; `data` gives the CRC-32 and ISIZE of the trailer."""
    flags = 2 * crc16 | 4 * (extra is not None) | 8 * (name is not None) | 16 * (comment is not None)
    header = struct.pack("<4sIBB", bytes((0x1F, 0x8B, 8, flags)), 0, 0, 255)
    if extra is not None:
        header += struct.pack("<H", len(extra)) + extra
    header += b"".join(text + b"\0" for text in (name, comment) if text is not None)
    if crc16:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    return header + stream + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def every_field(data: bytes) -> bytes:
    """A gzip member with every header field that there is."""
    extra = subfield(b"XY", b"abc")
    return member(raw_deflate(data), data, extra, name=b"a name", comment=b"", crc16=True)


def encode(container: str, data: bytes, block_size: int = 65536, huffman: str = "dynamic") -> bytes:
    """A chunk as the codec writes it, with zlib's choice of matches."""
    pieces = blocks(data, block_size, huffman)
    stream = b"".join(pieces) + END
    if container == "zlib":
        return b"\x48\x0d" + stream + struct.pack(">I", zlib.adler32(data))
    if container == "deflate":
        return stream
    return member(stream, data, index(block_size, [len(piece) for piece in pieces]) if pieces else None)


def pgzip_members(data: bytes, size: int) -> list[bytes]:
    """Members with the subfield "IG", which holds the member's size: pgzip's, and those of this package's drafts."""
    members = []
    for piece in split(data, size):
        stream = raw_deflate(piece, window=12)
        members.append(member(stream, piece, subfield(b"IG", struct.pack("<I", 20 + len(stream) + 8))))
    return members


def bgzf_members(data: bytes, size: int) -> list[bytes]:
    """Members with the subfield "BC", which holds the member's size - 1, and the empty one at the end."""
    members = []
    for piece in split(data, size):
        stream = raw_deflate(piece)
        members.append(member(stream, piece, subfield(b"BC", struct.pack("<H", 18 + len(stream) + 8 - 1))))
    return [*members, BGZF_END]


class Layout:
    """Parts of our gzip chunk, read as ``docs/format.md`` says; AssertionError if it differs.

    Attributes
    ----------
    block_size : int
        Uncompressed bytes of a block.
    pieces : list of bytes
        The compressed blocks.
    trailer : bytes
        CRC-32 and ISIZE.
    """

    def __init__(self, chunk: bytes) -> None:
        self.block_size = 0
        self.pieces: list[bytes] = []
        at = 10
        if chunk[3]:
            assert chunk[:10] == bytes.fromhex("1f8b08040000000000ff")
            xlen, name, length, self.block_size = struct.unpack_from("<H2sHI", chunk, 10)
            assert (name, xlen - 4, length % 4) == (b"QB", length, 0)
            at = 12 + xlen
            for size in struct.unpack_from(f"<{length // 4 - 1}I", chunk, 20):
                self.pieces.append(chunk[at : at + size])
                at += size
        else:
            assert chunk[:10] == bytes.fromhex("1f8b08000000000000ff")
        assert chunk[at : at + 2] == END
        self.trailer = chunk[at + 2 :]
        assert len(self.trailer) == 8

    def chunk(self, extra: bytes | None) -> bytes:
        """The chunk with another FEXTRA field."""
        header = struct.pack("<4sIBB", bytes((0x1F, 0x8B, 8, 0 if extra is None else 4)), 0, 0, 255)
        if extra is not None:
            header += struct.pack("<H", len(extra)) + extra
        return header + b"".join(self.pieces) + END + self.trailer


def check_blocks(stream: bytes, data: bytes, block_size: int) -> list[bytes]:
    """Split a raw stream into its blocks; assert that each inflates alone, with a window of 4 KiB, to its part."""
    found, at = [], 0
    for piece in split(data, block_size):
        end = _after_stored(stream, at, len(piece)) or _after_aligned(stream, at, len(piece))
        # A stored block may end as ALIGNED does; the empty block comes after it.
        while stream[end : end + 5] == b"\0" + ALIGNED:
            end += 5
        inflater = zlib.decompressobj(-12)
        assert inflater.decompress(stream[at:end]) == piece
        assert not inflater.eof, "BFINAL in a block"
        found.append(stream[at:end])
        at = end
    assert stream[at:] == END
    return found


def _after_stored(stream: bytes, at: int, size: int) -> int:
    """Offset after stored blocks of `size` bytes; 0 if there are no such blocks at `at`."""
    while size > 0 and not stream[at] & 7:
        length = int.from_bytes(stream[at + 1 : at + 3], "little")
        at, size = at + 5 + length, size - length
    return 0 if size else at


def _after_aligned(stream: bytes, at: int, size: int) -> int:
    """Offset after the ALIGNED with which a block of `size` bytes ends."""
    inflater = zlib.decompressobj(-12)
    inflated = 0
    while inflated < size:
        end = stream.find(ALIGNED, at) + 4
        assert end > 3, "a block without an aligned end"
        inflated += len(inflater.decompress(stream[at:end]))
        at = end
    return at


def lies(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Our chunk with each kind of wrong index: the FEXTRA field alone differs, so that the data is the same."""
    size = layout.block_size
    sizes = [len(piece) for piece in layout.pieces]

    def with_sizes(changed: Sequence[int], block_size: int = size) -> bytes:
        return layout.chunk(index(block_size, [value & 0xFFFFFFFF for value in changed]))

    for i, true in enumerate(sizes):
        for what, value in {
            "one less": true - 1,
            "one more": true + 1,
            "a block less": true - size,
            "a block more": true + size,
            "0": 0,
            "4": 4,
            "2**31": 2**31,
            "2**32 - 1": 2**32 - 1,
            "the rest": sum(sizes[i:]),
            "the rest and the final block": sum(sizes[i:]) + 2,
            "all": len(layout.chunk(None)),
        }.items():
            yield f"size {i} is {what}", with_sizes([*sizes[:i], value, *sizes[i + 1 :]])
        if i:
            yield f"sizes {i - 1} and {i} swapped", with_sizes([*sizes[: i - 1], true, sizes[i - 1], *sizes[i + 1 :]])
            # The sum is right and each of the two is wrong: blocks that overlap.
            for shift in (1, -1, 4, -4):
                moved = [*sizes[: i - 1], sizes[i - 1] + shift, true - shift, *sizes[i + 1 :]]
                yield f"the border between {i - 1} and {i} moved by {shift}", with_sizes(moved)
            yield f"blocks {i - 1} and {i} as one", with_sizes([*sizes[: i - 1], sizes[i - 1] + true, *sizes[i + 1 :]])
        yield f"block {i} as an empty one and itself", with_sizes([*sizes[:i], 0, *sizes[i:]])
        yield f"block {i} missing", with_sizes([*sizes[:i], *sizes[i + 1 :]])
        yield f"block {i} twice", with_sizes([*sizes[:i], true, *sizes[i:]])
    yield "all backwards", with_sizes(sizes[::-1])
    yield "no sizes", with_sizes([])
    yield "one too many, of the final block", with_sizes([*sizes, 2])
    yield "one too many, 0", with_sizes([*sizes, 0])
    yield "many too many", with_sizes([*sizes, *[5] * 1000])
    yield "as many as fit", with_sizes([1] * 16380)
    yield "a sum that wraps at 32 bits", with_sizes([*sizes[:-1], sizes[-1] + 2**31, 2**31])
    for block_size in (0, 1, size - 1, size + 1, size // 2, size * 2, sum(sizes), 2**31 - 1, 2**31, 2**32 - 1):
        yield f"block_size {block_size}", with_sizes(sizes, block_size)
    true_index = index(size, sizes)
    for length in (0, 1, 3, 4, len(true_index) - 8, len(true_index) - 5, len(true_index) - 3, len(true_index), 65535):
        yield f"LEN {length}", layout.chunk(index(size, sizes, length))
    yield "LEN odd", layout.chunk(subfield(b"QB", true_index[4:] + b"\1"))
    yield "an empty subfield", layout.chunk(subfield(b"QB", b""))
    yield "an empty field", layout.chunk(b"")
    yield "no field", layout.chunk(None)
    yield "a field of junk", layout.chunk(b"\xff" * 7)
    yield "half a subfield", layout.chunk(b"QB\x08")
    yield "another case", layout.chunk(b"qb" + true_index[2:])
    wrong = index(size, [value + 1 for value in sizes])
    yield "another subfield before", layout.chunk(subfield(b"XY", b"abc") + true_index)
    yield "another subfield after", layout.chunk(true_index + subfield(b"XY", b"abc"))
    yield "junk after", layout.chunk(true_index + b"\xff")
    yield "a second index, wrong", layout.chunk(true_index + wrong)
    yield "a wrong index first", layout.chunk(wrong + true_index)
    yield "the index twice", layout.chunk(true_index * 2)
    yield "IG after", layout.chunk(true_index + subfield(b"IG", struct.pack("<I", 99)))
    yield "IG instead", layout.chunk(subfield(b"IG", struct.pack("<I", 99)))
    yield "BC instead", layout.chunk(subfield(b"BC", struct.pack("<H", 99)))


def fixed_literals(data: bytes) -> bytes:
    """One fixed deflate block of literals without an end-of-block code; zeros fill the last byte."""
    bits = "010"  # BFINAL 0, BTYPE 1 with its lower bit first
    for byte in data:
        bits += f"{0x30 + byte:08b}" if byte < 144 else f"{0x190 + byte - 144:09b}"
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def crafted() -> Iterator[tuple[str, bytes]]:
    """Gzip members in which a reader of blocks may see something else than a reader of the whole stream."""
    words = b"some words and some more words, and the same words once again. "  # 63 bytes
    data = (words + b"-") * 5

    def chunk(pieces: Sequence[bytes], data: bytes = data, block_size: int = 64) -> bytes:
        return member(b"".join(pieces) + END, data, index(block_size, [len(piece) for piece in pieces]))

    whole = zlib.compressobj(6, zlib.DEFLATED, -12)
    dependent = [whole.compress(piece) + whole.flush(zlib.Z_SYNC_FLUSH) for piece in split(data, 64)]
    yield "blocks that refer to blocks before them", chunk(dependent)
    uneven = [data[:80], data[80:128], data[128:192], data[192:256], data[256:]]
    yield "a block longer than block_size and a shorter one", chunk([block(piece) for piece in uneven])
    uneven = [data[:48], data[48:128], *uneven[2:]]
    yield "a block shorter than block_size and a longer one", chunk([block(piece) for piece in uneven])
    yield "a last block longer than block_size", chunk([block(data[:64]), block(data[64:])])
    yield "a last block of nothing", chunk([*blocks(data, 64), block(b"")])
    yield "blocks of nothing", chunk([block(b""), *blocks(data, 64), block(b"")])
    good = blocks(data, 64)
    # Each block alone has 64 bytes; in the whole stream the first one goes on, into the second.
    stored = data[:60] + ALIGNED
    longer = struct.pack("<BHH", 0, 100, 100 ^ 0xFFFF) + stored
    yield "a stored block that goes on in the next one", chunk([longer, *good[1:]], stored + data[64:])
    literals = data[:59] + b"\xf0" * 5
    yield (
        "a fixed block that goes on in the next one",
        chunk([fixed_literals(literals), *good[1:]], literals + data[64:]),
    )
    final = bytearray(good[0])
    final[0] |= 1
    yield "BFINAL in the first block", chunk([bytes(final), *good[1:]])
    final = bytearray(good[-1])
    final[0] |= 1
    yield "BFINAL in the last block", chunk([*good[:-1], bytes(final)])
    yield "junk between blocks, as a part of one", chunk([good[0] + b"\xff", *good[1:]])
    yield "zeros between blocks, as a part of one", chunk([good[0] + bytes(8), *good[1:]])
    yield "zeros before the end", member(b"".join(good) + bytes(8) + END, data, index(64, list(map(len, good))))
    yield "a stream after the end", member(b"".join(good) + END + END, data, index(64, list(map(len, good))))
    far = words[:10] + bytes(range(256)) * 20 + words[:10]
    pieces = [raw_deflate(far), block(b"x")]
    yield "a final block of zlib's before another", chunk(pieces, far + b"x", len(far))
    # Members of the same content, whose size says that they are one.
    for name, length in ((b"IG", 4), (b"BC", 2)):
        stream = raw_deflate(data)
        size = 16 + length + len(stream) + 8
        for claim in (
            0,
            1,
            16,
            16 + length,
            size - 9,
            size - 8,
            size - 1,
            size + 1,
            size * 2,
            size * 3,
            2 ** (8 * length) - 1,
        ):
            content = (claim - (name == b"BC")).to_bytes(8, "little", signed=True)[:length]
            one = member(stream, data, subfield(name, content))
            yield f"{name!r} says {claim} instead of {size}, once", one
            yield f"{name!r} says {claim} instead of {size}, twice", one * 2
            yield f"{name!r} says {claim} instead of {size}, twice and zeros", one * 2 + bytes(5)
