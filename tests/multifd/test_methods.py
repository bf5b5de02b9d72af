"""The methods of multifd: their register, their seven hooks, and what each of them puts into a payload."""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import zstandard
from streams import NAMES, recording

from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.multifd import (
    MigrationParameters,
    MultiFDCompression,
    MultiFDError,
    MultiFDMethods,
    MultiFDPages,
    QplData,
    RAMBlock,
    RecvParams,
    SendParams,
    get_ops,
    register_ops,
)
from numcodecs_qpl.multifd.hooks import check_method
from numcodecs_qpl.multifd.methods.none import NoneMethods
from numcodecs_qpl.multifd.stream import wire

PAGE = 4096
PAGES = 200
GUARD = 3 * PAGE
ZSTD_WINDOW = 1 << 27
METHODS = ["none", "zlib", "zstd", "qpl"]
FLAGS = {"none": 0, "zlib": 2, "zstd": 4, "qpl": 8}
KINDS = [("none", "fixed"), ("zlib", "fixed"), ("zstd", "fixed"), ("qpl", "fixed"), ("qpl", "dynamic")]
HOOKS = [
    "send_setup",
    "send_cleanup",
    "send_prepare",
    "recv_setup",
    "recv_cleanup",
    "recv_pages",
    "get_iov_count",
]
RNG = np.random.default_rng(1)
NOISE = RNG.bytes(PAGE)
TEXT = b"".join(b"%05d the quick brown fox jumps over the lazy dog; " % line for line in range(90))[:PAGE]


def some_memory() -> bytes:
    """Text, noise, runs and zeros by turns, no two pages of a kind the same."""
    kinds: list[Callable[[int], bytes]] = [
        lambda page: (TEXT[page:] + TEXT)[:PAGE],
        lambda _: RNG.bytes(PAGE),
        lambda page: bytes([page]) * PAGE,
        lambda _: bytes(PAGE),
    ]
    return b"".join(kinds[page % 4](page) for page in range(PAGES))


class Target:
    """A RAM block with memory before and after it that nobody may touch."""

    def __init__(self, pages: int = PAGES, page_size: int = PAGE) -> None:
        size = pages * page_size
        self.memory = bytearray(b"\xa5" * (GUARD + size + GUARD))
        self.block = RAMBlock("r", size, page_size, memoryview(self.memory)[GUARD : GUARD + size])

    def page(self, offset: int) -> bytes:
        return self.block.view[offset : offset + self.block.page_size].tobytes()

    def without(self, offsets: Iterable[int]) -> bytes:
        """All memory but the pages at `offsets`."""
        size = self.block.page_size
        kept = np.frombuffer(self.memory, np.uint8).copy()
        for offset in offsets:
            kept[GUARD + offset : GUARD + offset + size] = 0xA5
        return kept.tobytes()

    def untouched(self, offsets: Iterable[int]) -> bool:
        """Return True if nothing was written outside of the pages at `offsets`."""
        return self.without(offsets) == b"\xa5" * len(self.memory)


class Link:
    """The two ends of a channel with nothing between them."""

    def __init__(self, method: str, huffman: Huffman = "fixed", page_size: int = PAGE) -> None:
        self.ops = get_ops(method)
        self.flag = FLAGS[method]
        self.count = wire.pages_in_packet(page_size)
        self.send = SendParams(0, page_size, self.count, MigrationParameters(huffman=huffman))
        self.recv = RecvParams(0, self._read, page_size, self.count)
        self._payload = b""
        self.ops.send_setup(self.send)
        self.ops.recv_setup(self.recv)

    def _read(self, views: Sequence[memoryview]) -> None:
        for view in views:
            assert len(view) <= len(self._payload), "it reads beyond its payload"
            view[:] = self._payload[: len(view)]
            self._payload = self._payload[len(view) :]

    def prepare(self, block: RAMBlock | None, normal: Sequence[int] = (), zero: Sequence[int] = ()) -> bytes:
        """The payload, once it was seen that it keeps what the hook has promised."""
        self.send.flags = wire.FLAG_SYNC
        self.send.iov = [b"of the packet before"]
        self.send.next_packet_size = 99
        self.send.pages = MultiFDPages(block, np.array(normal, np.uint64), np.array(zero, np.uint64))
        self.ops.send_prepare(self.send)
        payload = b"".join(self.send.iov)
        assert self.send.flags == wire.FLAG_SYNC | self.flag
        assert self.send.next_packet_size == len(payload)
        assert len(self.send.iov) <= self.ops.get_iov_count(self.count)
        if normal:
            least, most = wire.payload_limits(self.flag, len(normal), self.send.page_size)
            assert least <= len(payload) <= most
        return payload

    def receive(self, block: RAMBlock | None, payload: bytes, normal: Sequence[int], flags: int = -1) -> None:
        self._payload = payload
        self.recv.flags = self.flag if flags < 0 else flags
        self.recv.next_packet_size = len(payload)
        self.recv.pages = MultiFDPages(block, np.array(normal, np.uint64))
        self.ops.recv_pages(self.recv)
        assert not self._payload, "it leaves some of its payload"


def block_of(memory: bytes, page_size: int = PAGE) -> RAMBlock:
    return RAMBlock("r", len(memory), page_size, memory)


def numbers(*pages: int) -> list[int]:
    return [page * PAGE for page in pages]


def qpl_streams(payload: bytes, count: int) -> list[bytes]:
    """The pages of a qpl payload, as they are in it."""
    at = 4 * count
    streams = []
    for length in struct.unpack_from(f">{count}I", payload):
        streams.append(payload[at : at + length])
        at += length
    assert at == len(payload)
    return streams


def qpl_payload(*streams: bytes, lengths: Sequence[int] = ()) -> bytes:
    return struct.pack(f">{len(streams)}I", *(lengths or map(len, streams))) + b"".join(streams)


def deflate(data: bytes, window: int = -12) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, window)
    return packer.compress(data) + packer.flush()


# ---- The register -----------------------------------------------------------------------------------------------


def test_every_method_is_registered_on_import() -> None:
    assert [method.value for method in MultiFDCompression] == METHODS
    assert len({id(get_ops(name)) for name in METHODS}) == 4


@pytest.mark.parametrize("method", MultiFDCompression)
def test_a_second_registration_is_an_error_that_lists_the_names(method: MultiFDCompression) -> None:
    before = get_ops(method.value)
    with pytest.raises(ValueError, match=f"'{method.value}' is registered already.* none, zlib, zstd, qpl$"):
        register_ops(method, NoneMethods())
    assert get_ops(method.value) is before


@pytest.mark.parametrize("name", ["uadk", "QPL", ""])
def test_an_unknown_name_is_an_error_that_lists_the_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown multifd method '{name}': expected one of none, zlib, zstd, qpl$"):
        get_ops(name)


def test_the_hooks_are_the_seven_of_the_seed() -> None:
    assert MultiFDMethods.__abstractmethods__ == set(HOOKS)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("hook", HOOKS)
def test_every_method_has_every_hook_with_words_of_its_own(name: str, hook: str) -> None:
    made = getattr(get_ops(name), hook)
    assert callable(made)
    assert made.__doc__ != getattr(MultiFDMethods, hook).__doc__
    assert len(made.__doc__) > 10


# ---- What holds for all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("agreed", METHODS)
@pytest.mark.parametrize("came", METHODS)
@pytest.mark.parametrize("sync", [0, wire.FLAG_SYNC])
def test_a_packet_of_another_method_than_agreed_is_an_error(agreed: str, came: str, sync: int) -> None:
    params = RecvParams(0, lambda _: None, flags=FLAGS[came] | sync)
    if agreed == came:
        check_method(params, FLAGS[agreed])
        return
    with pytest.raises(MultiFDError, match=f"of method '{came}'; expected '{agreed}'") as caught:
        check_method(params, FLAGS[agreed])
    assert caught.value.field == "flags"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("normal", [[], [0]])
def test_every_method_looks_at_the_flag_before_it_reads(method: str, normal: list[int]) -> None:
    target = Target()
    with pytest.raises(MultiFDError, match=f"expected '{method}'") as caught:
        Link(method).receive(target.block, b"", normal, flags=wire.FLAG_UADK)
    assert caught.value.field == "flags"
    assert target.untouched([])


PACKETS: list[tuple[list[int], list[int]]] = [
    (numbers(0, 1, 2, 3), []),
    (numbers(1, 5, 9), numbers(2)),
    ([], numbers(3, 7)),
    (numbers(8), []),
    (numbers(20, 12, 13, 14, 11), numbers(15, 19)),
    (numbers(*range(30, 158)), []),
    (numbers(*range(199, 71, -1)), []),
    ([], []),
    (numbers(0), []),
]


@pytest.mark.parametrize(("method", "huffman"), KINDS)
def test_pages_arrive_packet_after_packet(method: str, huffman: Huffman) -> None:
    memory = some_memory()
    source, target, link = block_of(memory), Target(), Link(method, huffman)
    sent: set[int] = set()
    for normal, zero in PACKETS:
        link.receive(target.block, link.prepare(source, normal, zero), normal)
        sent.update(normal)
        for offset in normal:
            assert target.page(offset) == memory[offset : offset + PAGE]
        assert target.untouched(sent)


@pytest.mark.parametrize(("method", "huffman"), KINDS)
@pytest.mark.parametrize("page_size", [1024, 16384, 65536])
def test_pages_of_other_sizes_arrive_too(method: str, huffman: Huffman, page_size: int) -> None:
    far = RNG.bytes(5000) * 40
    memory = far[: 2 * page_size] + RNG.bytes(page_size) + bytes(page_size)
    target, link = Target(4, page_size), Link(method, huffman, page_size)
    offsets = [page * page_size for page in (3, 0, 1, 2)]
    link.receive(target.block, link.prepare(block_of(memory, page_size), offsets), offsets)
    assert target.block.view == memory


@pytest.mark.parametrize(("method", "huffman"), KINDS)
@pytest.mark.parametrize("zero", [[], [0], numbers(*range(128))])
@pytest.mark.parametrize("has_block", [True, False])
def test_without_normal_pages_there_is_no_payload_but_still_the_flag(
    method: str, huffman: Huffman, zero: list[int], has_block: bool
) -> None:
    target, link = Target(), Link(method, huffman)
    assert link.prepare(target.block if has_block else None, [], zero) == b""
    assert link.send.iov == []
    link.receive(target.block if has_block else None, b"", [])
    assert target.untouched([])


@pytest.mark.parametrize(("method", "huffman"), KINDS)
def test_what_cannot_be_compressed_arrives_too(method: str, huffman: Huffman) -> None:
    memory = RNG.bytes(128 * PAGE)
    target, link, offsets = Target(128), Link(method, huffman), numbers(*range(128))
    payload = link.prepare(block_of(memory), offsets)
    assert len(payload) >= len(memory)
    link.receive(target.block, payload, offsets)
    assert target.block.view == memory


@pytest.mark.parametrize(("method", "huffman"), KINDS[1:])
def test_what_can_be_compressed_gets_smaller(method: str, huffman: Huffman) -> None:
    assert len(Link(method, huffman).prepare(block_of(TEXT * 16), numbers(*range(16)))) < 16 * PAGE / 2


@pytest.mark.parametrize(("method", "huffman"), KINDS)
def test_guest_memory_is_only_read_by_sending(method: str, huffman: Huffman) -> None:
    memory = bytearray(some_memory())
    before = bytes(memory)
    source = RAMBlock("r", len(memory), PAGE, memory)
    Link(method, huffman).prepare(source, numbers(4, 0, 1))
    assert memory == before


@pytest.mark.parametrize("method", METHODS)
def test_cleanup_leaves_no_state(method: str) -> None:
    link = Link(method)
    assert (link.send.data is None) == (link.recv.data is None) == (method == "none")
    link.ops.send_cleanup(link.send)
    link.ops.recv_cleanup(link.recv)
    assert link.send.data is link.recv.data is None


@pytest.mark.parametrize("method", METHODS)
def test_an_end_within_a_payload_passes_through_and_touches_no_other_page(method: str) -> None:
    link, target = Link(method), Target()

    def breaks(views: Sequence[memoryview]) -> None:
        views[0][:1] = b"x"
        raise MultiFDError("ended")

    link.recv.read_into = breaks
    with pytest.raises(MultiFDError, match="ended"):
        link.receive(target.block, bytes(100), numbers(3, 5))
    assert target.untouched(numbers(3, 5))


def decode(name: str) -> dict[str, RAMBlock]:
    """The RAM blocks of a recording, from its packets alone."""
    method = name.split("-")[2]
    found = []
    for content in recording(name).channels:
        link, at = Link(method), 64
        while at < len(content):
            packet = wire.unpack(content[at : at + 1344], PAGE)
            at += 1344 + packet.payload_size
            found.append((packet.packet_num, link, packet, content[at - packet.payload_size : at]))
    blocks: dict[str, RAMBlock] = {}
    for _, link, packet, payload in sorted(found, key=lambda one: one[0]):
        if packet.normal_pages or packet.zero_pages:
            block = blocks.setdefault(packet.ramblock, RAMBlock("", 16 << 20, PAGE, bytearray(16 << 20)))
            link.receive(block, payload, packet.normal.tolist(), packet.flags)
            block.put_zeros(packet.zero)
    return blocks


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("qemu-11")])
def test_what_qemu_11_wrote_decodes_to_its_memory(name: str) -> None:
    digests = {hashlib.sha256(block.view).hexdigest() for block in decode(name).values()}
    assert recording(name).meta["ram_sha256"] in digests


# ---- qpl --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_count", [1, 8, 128, 512])
def test_qpl_has_one_buffer_more_than_pages(page_count: int) -> None:
    assert get_ops("qpl").get_iov_count(page_count) == page_count + 1


def test_qpl_keeps_memory_for_one_packet_a_channel() -> None:
    one, other = Link("qpl"), Link("qpl")
    assert isinstance(one.send.data, QplData)
    assert one.send.data.zbuf.shape == (128 * PAGE,)
    assert one.send.data.pages.shape == (128, PAGE)
    assert not np.shares_memory(one.send.data.zbuf, other.send.data.zbuf)


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
@pytest.mark.parametrize("pages", [(0, 1, 2, 3), (9, 4, 5, 1), (2,)])
def test_a_qpl_payload_is_lengths_and_raw_deflate_streams(huffman: Huffman, pages: tuple[int, ...]) -> None:
    memory = some_memory()
    payload = Link("qpl", huffman).prepare(block_of(memory), numbers(*pages))
    streams = qpl_streams(payload, len(pages))
    assert len(payload) == 4 * len(pages) + sum(map(len, streams))
    for page, stream in zip(pages, streams, strict=True):
        expected = memory[page * PAGE : (page + 1) * PAGE]
        if len(stream) == PAGE:
            assert stream == expected
            continue
        inflater = zlib.decompressobj(-15)
        assert inflater.decompress(stream) == expected
        assert inflater.eof
        assert not inflater.unused_data


def inflate_within_4096(stream: bytes) -> bytes:
    """Inflate byte by byte: zlib also takes matches beyond its window where they lie within one call's output."""
    inflater = zlib.decompressobj(-12)
    plain = bytearray()
    while more := inflater.decompress(stream, 1):
        plain += more
        stream = inflater.unconsumed_tail
    return bytes(plain)


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_no_match_of_qpl_is_farther_than_4096_bytes(huffman: Huffman) -> None:
    memory = (RNG.bytes(3000) * 2 + RNG.bytes(5000) * 3)[:16384]
    with pytest.raises(zlib.error, match="too far back"):
        inflate_within_4096(deflate(memory, -15))
    (stream,) = qpl_streams(Link("qpl", huffman, 16384).prepare(block_of(memory, 16384), [0]), 1)
    assert len(stream) < 16384
    assert inflate_within_4096(stream) == memory


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_qpl_sends_a_page_that_cannot_be_compressed_as_it_is(huffman: Huffman) -> None:
    payload = Link("qpl", huffman).prepare(block_of(TEXT + NOISE + TEXT), numbers(0, 1, 2))
    first, second, third = qpl_streams(payload, 3)
    assert second == NOISE
    assert len(first) < PAGE > len(third)


def test_dynamic_tables_make_text_smaller() -> None:
    fixed, dynamic = (len(Link("qpl", huffman).prepare(block_of(TEXT), [0])) for huffman in ("fixed", "dynamic"))
    assert dynamic < fixed


@pytest.mark.parametrize("window", [-9, -12, -15])
def test_qpl_reads_what_zlib_writes(window: int) -> None:
    target = Target()
    Link("qpl").receive(target.block, qpl_payload(NOISE, deflate(TEXT, window)), numbers(7, 3))
    assert (target.page(7 * PAGE), target.page(3 * PAGE)) == (NOISE, TEXT)


GOOD = deflate(TEXT)
BAD_QPL: dict[str, bytes] = {
    "length 0": qpl_payload(GOOD, b"", lengths=[len(GOOD), 0]),
    "length beyond a page": qpl_payload(GOOD, bytes(PAGE + 1)),
    "length of 4 GiB": qpl_payload(GOOD, GOOD, lengths=[len(GOOD), 2**32 - 1]),
    "lengths of 4 GiB and little": qpl_payload(GOOD, GOOD, lengths=[2**32 - 1, 2 * len(GOOD) + 1]),
    "sum too small": qpl_payload(GOOD, GOOD, lengths=[len(GOOD), len(GOOD) - 1]),
    "sum too large": qpl_payload(GOOD, GOOD, lengths=[len(GOOD), len(GOOD) + 1]),
    "lengths for each other": qpl_payload(GOOD, NOISE, lengths=[PAGE, len(GOOD)]),
    "byte short of a page": qpl_payload(GOOD, deflate(TEXT[:-1])),
    "byte more than a page": qpl_payload(GOOD, deflate(TEXT + b"!")),
    "a thousand pages": qpl_payload(GOOD, deflate(bytes(1000 * PAGE))[: PAGE - 1]),
    "nothing": qpl_payload(GOOD, deflate(b"")),
    "cut": qpl_payload(GOOD, GOOD[:-5]),  # the last byte may hold no more than the end's mark, which libqpl can miss
    "cut in half": qpl_payload(GOOD, GOOD[: len(GOOD) // 2]),
    "one byte": qpl_payload(GOOD, GOOD[:1]),
    "garbage": qpl_payload(GOOD, b"\xff" * 100),
    "zlib's head": qpl_payload(GOOD, zlib.compress(TEXT)),
    "first page": qpl_payload(b"\xff" * 100, GOOD),
}


@pytest.mark.parametrize("bad", BAD_QPL)
@pytest.mark.parametrize("pages", [(4, 5), (6, 2)], ids=["neighbours", "apart"])
def test_a_bad_qpl_payload_is_an_error_and_touches_no_other_page(bad: str, pages: tuple[int, int]) -> None:
    target, link = Target(), Link("qpl")
    with pytest.raises(MultiFDError) as caught:
        link.receive(target.block, BAD_QPL[bad], numbers(*pages))
    assert caught.value.field == "payload"
    assert target.untouched(numbers(*pages))
    link.receive(target.block, qpl_payload(GOOD, NOISE), numbers(*pages))
    assert (target.page(pages[0] * PAGE), target.page(pages[1] * PAGE)) == (TEXT, NOISE)


# ---- zlib and zstd ----------------------------------------------------------------------------------------------

STREAMS = ["zlib", "zstd"]


@pytest.mark.parametrize("method", STREAMS)
def test_a_stream_is_carried_over_packets(method: str) -> None:
    link, target, fresh = Link(method), Target(), Link(method)
    source = block_of(NOISE * 2)
    first, second = link.prepare(source, [0]), link.prepare(source, [PAGE])
    assert len(second) < 100 < len(first)
    with pytest.raises(MultiFDError) as caught:
        fresh.receive(target.block, second, [PAGE])
    assert caught.value.field == "payload"
    assert target.untouched([PAGE])
    link.receive(target.block, first, [0])
    link.receive(target.block, second, [PAGE])
    assert target.page(PAGE) == NOISE


@pytest.mark.parametrize("method", STREAMS)
def test_a_stream_is_readable_after_each_packet_and_never_ends(method: str) -> None:
    link, source = Link(method), block_of(some_memory())
    reader = zlib.decompressobj() if method == "zlib" else zstandard.ZstdDecompressor().decompressobj()
    for normal, _ in PACKETS:
        plain = reader.decompress(link.prepare(source, normal))
        assert plain == b"".join(source.view[offset : offset + PAGE] for offset in normal)
        assert not reader.eof


@pytest.mark.parametrize("method", STREAMS)
def test_the_level_is_the_migrations(method: str) -> None:
    memory = b"".join(RNG.choice([b"some", b"words ", b"and", b" others"], 16 * PAGE).tolist())[: 16 * PAGE]
    sizes = []
    for level in (1, 9):
        params = SendParams(0, parameters=MigrationParameters(multifd_zlib_level=level, multifd_zstd_level=level))
        get_ops(method).send_setup(params)
        params.pages = MultiFDPages(block_of(memory), np.array(numbers(*range(16)), np.uint64))
        get_ops(method).send_prepare(params)
        sizes.append(params.next_packet_size)
    assert sizes[1] < sizes[0]


def zlib_stream(data: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    packer = zlib.compressobj()
    return packer.compress(data) + packer.flush(mode)


def zstd_stream(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


WRITERS: dict[str, Callable[[bytes], bytes]] = {"zlib": zlib_stream, "zstd": zstd_stream}
BAD_STREAM: dict[str, Callable[[Callable[[bytes], bytes]], bytes]] = {
    "byte short of its pages": lambda write: write((TEXT * 2)[:-1]),
    "byte more than its pages": lambda write: write(TEXT * 2 + b"!"),
    "more than any packet": lambda write: write(bytes(300 * PAGE)),
    "cut": lambda write: write(TEXT * 2)[:-20],
    "one byte": lambda write: write(TEXT * 2)[:1],
    "garbage": lambda _: NOISE,
    "zeros": lambda _: bytes(100),
    "damaged": lambda write: write(NOISE + TEXT)[:-300] + b"\xff" * 300,
}


@pytest.mark.parametrize("method", STREAMS)
@pytest.mark.parametrize("bad", BAD_STREAM)
def test_a_bad_stream_is_an_error_and_touches_no_other_page(method: str, bad: str) -> None:
    target = Target()
    with pytest.raises(MultiFDError) as caught:
        Link(method).receive(target.block, BAD_STREAM[bad](WRITERS[method]), numbers(6, 2))
    assert caught.value.field == "payload"
    assert target.untouched(numbers(6, 2))


def test_a_zlib_stream_that_ends_is_an_error() -> None:
    with pytest.raises(MultiFDError, match="end") as caught:
        Link("zlib").receive(Target().block, zlib_stream(TEXT, zlib.Z_FINISH), [0])
    assert caught.value.field == "payload"


def zstd_frame(window: int) -> bytes:
    """A frame of one raw block, that is not its last, with a page; its window is a power of two or an eighth more."""
    exponent = window.bit_length() - 1
    eighths = (window - (1 << exponent)) >> (exponent - 3)
    head = 0xFD2FB528.to_bytes(4, "little") + bytes([0, (exponent - 10) << 3 | eighths])
    return head + (PAGE << 3).to_bytes(3, "little") + NOISE


def test_a_zstd_window_at_the_limit_is_accepted() -> None:
    target = Target()
    Link("zstd").receive(target.block, zstd_frame(ZSTD_WINDOW), [0])
    assert target.page(0) == NOISE


@pytest.mark.parametrize("window", [ZSTD_WINDOW // 8 * 9, 1 << 41])
def test_a_zstd_window_above_the_limit_is_an_error(window: int) -> None:
    target = Target()
    with pytest.raises(MultiFDError, match=r"zstd: .*memory") as caught:
        Link("zstd").receive(target.block, zstd_frame(window), [0])
    assert caught.value.field == "payload"
    assert target.untouched([])


@pytest.mark.parametrize("hook", ["send_setup", "recv_setup"])
def test_without_zstandard_setting_up_says_what_to_install(monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    params: Any = SendParams(0) if hook == "send_setup" else RecvParams(0, lambda _: None)
    with pytest.raises(MultiFDError, match=r"pip install zstandard$"):
        getattr(get_ops("zstd"), hook)(params)
