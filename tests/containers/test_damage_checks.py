"""Tests of the checks in ``tests/support/damage.py``: of the oracle, and with readers that have one fault each."""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import Any

import damage
import model
import oracle
import pytest
from process import with_threads

from numcodecs_qpl import CorruptDataError
from numcodecs_qpl.containers import ContainerName


class Model:
    """A codec in plain Python that uses the index as the real one may, with a fault if one is asked for."""

    fault = ""

    def __init__(self, *, container: ContainerName = "gzip", block_size: int = 65536, huffman: str = "dynamic") -> None:
        self.container, self.block_size, self.huffman = container, block_size, huffman

    def encode(self, buf: Any) -> bytes:
        return model.encode(self.container, bytes(buf), self.block_size, self.huffman)

    def decode(self, buf: Any, out: Any = None) -> Any:
        data = self._read(bytes(buf), None if out is None else len(out))
        if out is None:
            return data
        if len(out) != len(data):
            if self.fault == "out may be larger" and len(data) < len(out):
                out[: len(data)] = data
                return out
            raise ValueError(f"out has {len(out)} bytes, but the data inflates to {len(data)}")
        out[:] = data
        return out

    def _read(self, data: bytes, room: int | None) -> bytes:
        if self.container == "gzip":
            found = self._by_index(data)
            if found is not None:
                return found
        try:
            return oracle.READERS[self.container](self._before(data, room))
        except oracle.RefusedError as error:
            place = "" if error.follows is None else f" at byte {error.follows}"
            raise CorruptDataError(f"{error}{place}") from error

    def _before(self, data: bytes, room: int | None) -> bytes:
        """The part of the data that the fault leaves."""
        if self.fault == "zeros are refused" and data[-1:] == b"\0" and self.container == "deflate":
            return data + b"x"
        if self.fault == "up to 7 bytes may follow" and room is not None:
            for end in range(1, 8):
                if len(data) > end and damage.verdict(self.container, data[:-end]).data is not None:
                    return data[:-end]
        if self.fault == "a cut end is overlooked with out" and room and self.container == "deflate":
            inflater = zlib.decompressobj(-15)
            try:
                if len(inflater.decompress(data)) == room and not inflater.eof:
                    return model.encode("deflate", zlib.decompressobj(-15).decompress(data))
            except zlib.error:
                pass
        return data

    def _by_index(self, data: bytes) -> bytes | None:
        try:
            layout_end = oracle.gzip_header(data, 0)
            xlen, name, length, block_size = struct.unpack_from("<H2sHI", data, 10)
        except (oracle.RefusedError, struct.error):
            return None
        if data[3] != 4 or name != b"QB" or length % 4 or not 4 <= length <= xlen - 4:
            return None
        at, pieces = layout_end, []
        sizes = struct.unpack_from(f"<{length // 4 - 1}I", data, 20)
        for number, size in enumerate(sizes):
            piece = data[at : at + size]
            inflater = zlib.decompressobj(-15)
            try:
                inflated = inflater.decompress(piece)
                if self.fault != "where a block ends is not checked":
                    # Where a block ended as it must, an empty final one makes it a whole stream.
                    closed = inflater.decompress(model.END)
                    if closed or not inflater.eof or inflater.unused_data or len(piece) != size:
                        return None
            except zlib.error:
                return None
            last = number == len(sizes) - 1
            if len(inflated) != block_size and not (last and len(inflated) < block_size):
                return None
            pieces.append(inflated)
            at += size
        whole = b"".join(pieces)
        trailer = struct.pack("<II", zlib.crc32(whole), len(whole))
        if self.fault != "the final block is not looked at" and data[at : at + 2] != model.END:
            return None
        if self.fault == "the index is trusted" and pieces:
            return whole
        if data[at + 2 : at + 10] != trailer:
            return None
        if oracle.skip_padding(data, at + 10) < len(data) and self.fault != "what follows is not looked at":
            return None
        return whole


FAULTS = {
    "the index is trusted": "gzip",
    "where a block ends is not checked": "gzip",
    "the final block is not looked at": "gzip",
    "what follows is not looked at": "gzip",
    "out may be larger": "zlib",
    "up to 7 bytes may follow": "zlib",
    "zeros are refused": "deflate",
    "a cut end is overlooked with out": "deflate",
}
"""By fault of `Model`: a container in which it shows."""


@pytest.fixture(autouse=True)
def threads() -> Any:
    with with_threads():
        yield


@pytest.mark.parametrize("container", oracle.READERS)
def test_a_right_reader_passes_all_checks(container: ContainerName) -> None:
    counts = damage.run(container, 1, Model)
    assert counts["accepted"] > 100
    assert counts["refused"] > 1000
    assert counts["ill-formed"] == 0


@pytest.mark.parametrize(("fault", "container"), FAULTS.items(), ids=FAULTS)
def test_a_reader_with_a_fault_is_caught(fault: str, container: ContainerName) -> None:
    class Faulty(Model):
        pass

    Faulty.fault = fault
    with pytest.raises(damage.WrongVerdictError):
        damage.run(container, 1, Faulty, most=1)


def test_the_oracle_and_zlib_agree_on_gzip_members() -> None:
    """zlib reads one member and checks its header: the oracle's walk over the header is the same."""
    tried = 0
    for name, damaged, _ in damage.cases("gzip", damage.theirs("gzip")):
        inflater = zlib.decompressobj(31)
        try:
            first = inflater.decompress(damaged)
        except zlib.error:
            first = None
        right = damage.verdict("gzip", damaged)
        if right.data is not None and not inflater.unused_data:
            assert first == right.data, name
        elif right.data is None and inflater.eof:
            assert inflater.unused_data, name
        tried += 1
    assert tried > 10_000


def test_the_oracle_accepts_no_less_than_gzip_does() -> None:
    """Python's gzip accepts reserved flags and a wrong CRC-16 as well, and zeros alone."""
    for name, damaged, _ in damage.cases("gzip", damage.theirs("gzip")):
        right = damage.verdict("gzip", damaged)
        if right.data is not None:
            assert gzip.decompress(damaged) == right.data, name


def test_no_bit_of_the_index_changes_the_verdict_of_the_oracle() -> None:
    chunk = model.encode("gzip", damage.TEXT, 64)
    for bit in range(8 * 12, 8 * (12 + 4 + 4 + 4 * 5)):
        flipped = bytearray(chunk)
        flipped[bit // 8] ^= 1 << bit % 8
        assert damage.verdict("gzip", bytes(flipped)).data == damage.TEXT


@pytest.mark.parametrize("container", oracle.READERS)
@pytest.mark.parametrize("block_size", [1, 63, 64, 65, 300, 65536])
def test_blocks_of_the_model_inflate_alone(container: ContainerName, block_size: int) -> None:
    for data in (damage.TEXT, damage.NOISE, b"\0\0\xff\xff" * 40, b""):
        for huffman in ("fixed", "dynamic"):
            chunk = model.encode(container, data, block_size, huffman)
            assert oracle.READERS[container](chunk) == data
            if container == "deflate":
                assert b"".join(model.check_blocks(chunk, data, block_size)) + model.END == chunk
