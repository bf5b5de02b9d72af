"""Facts about libqpl 1.9.0 that ``iaa.pyx`` relies on, and libqpl's software path as the reference for our blocks.

If a newer libqpl fails here, the code that relies on the fact has to change. The hardware path runs on the emulated
IAA.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import emulated_iaa
import numpy as np
import pytest
from blocks import DATA, LAST_BLOCK, compress, raw_deflate
from engine import needs_libqpl
from reference import Job, Path

import numcodecs_qpl
from numcodecs_qpl import QPL, _core
from numcodecs_qpl._core.types import Huffman

pytestmark = needs_libqpl

SIZES = (1, 2, 100, 4096, 65536, 200_000)
PREAMBLE = """
import os, random, zlib
from blocks import DATA, RNG, WORDS, raw_deflate, wait_until
from emulated_iaa import Device, Opcode
from reference import Job, JobError, Path

device = Device()
job = Job(Path.HARDWARE)
"""


def run(script: str, *arguments: str, **settings: int | str | list[str]) -> str:
    return emulated_iaa.run(PREAMBLE + script, *arguments, **settings)


# ---- The hardware path ------------------------------------------------------------------------------------------


def test_the_stream_of_a_compress_job_is_one_final_deflate_block_and_the_rest_of_its_last_byte_is_zero() -> None:
    run("""
offsets = {False: set(), True: set()}
for seed in range(400):
    data = bytes(random.Random(seed).choices(b"abcd efgh", k=1000 + seed))
    for dynamic in offsets:
        done = job.compress(data, dynamic)
        assert done.status == 0 and done.output[0] & 7 == (5 if dynamic else 3)
        assert zlib.decompress(done.output, -15) == data
        offsets[dynamic].add(done.last_bits)
        if done.last_bits:
            assert done.output[-1] >> done.last_bits == 0
        # Without its first bit it is a block that zlib reads to its last byte, and that does not end the stream.
        reader = zlib.decompressobj(-15)
        opened = bytes([done.output[0] & 0xFE]) + done.output[1:]
        assert reader.decompress(opened) == data and not reader.eof and not reader.unused_data
assert offsets == {False: set(range(8)), True: set(range(8))}
""")


def test_where_the_device_gives_up_libqpl_writes_stored_blocks() -> None:
    run("""
for size in (1, 4096, 65535, 65536, 200_000):
    noise = RNG.bytes(size)
    for dynamic in (False, True):
        done = job.compress(noise, dynamic)
        assert done.status == 0 and zlib.decompress(done.output, -15) == noise
        if size > 1:
            assert not done.output[0] & 6
            assert len(done.output) == size + 5 * -(-size // 65535)
""")


def test_a_decompress_job_counts_its_whole_input_as_read_wherever_the_stream_ends() -> None:
    run("""
stream = job.compress(WORDS).output
for behind in (b"", b"x", bytes(100)):
    done = job.decompress(stream + behind, len(WORDS))
    assert (done.status, done.output, done.read) == (0, WORDS, len(stream) + len(behind))
""")


def test_a_result_that_does_not_fit_is_status_2_and_the_job_does_the_next_block_right() -> None:
    run("""
noise = RNG.bytes(4096)
stream = raw_deflate(WORDS[:4000], level=0)
for dynamic in (False, True):
    for _ in range(3):
        assert job.compress(noise, dynamic, room=4095).status == 2
        assert job.decompress(stream, 3999).status == 2
        assert zlib.decompress(job.compress(WORDS, dynamic).output, -15) == WORDS
        assert job.decompress(stream, 4000)[:3] == (0, len(stream), WORDS[:4000])
""")


def test_the_bytes_do_not_depend_on_what_a_job_did_before() -> None:
    run("""
for dynamic in (False, True):
    fresh = Job(Path.HARDWARE).compress(WORDS[:20_000], dynamic)
    for history in (*DATA.values(), WORDS[7:]):
        job.compress(history, not dynamic)
        job.decompress(fresh.output, 20_000)
        assert job.compress(WORDS[:20_000], dynamic) == fresh
""")


@pytest.mark.parametrize("size", [4096, 65536])
def test_a_job_whose_second_descriptor_found_the_queues_full_does_not_do_the_next_block(size: int) -> None:
    # The next block gets codes of the one before and status 0, or the job never ends.
    run(f"""
import reference
reference.PATIENCE = 0.5
other = bytes(255 - byte for byte in WORDS[:{size}])
device.fault("compress:1:1:busy:0")
assert job.compress(WORDS, True).status == 5
device.clear_faults()
device.set_busy(False)
wait_until(lambda: device.waiting() == 0)
done = job.compress(other, True)
try:
    right = done.status == 0 and zlib.decompress(done.output, -15) == other
except zlib.error:
    right = False
assert not right, "iaa.pyx need not make a new job any more"
assert zlib.decompress(Job(Path.HARDWARE).compress(other, True).output, -15) == other
os._exit(0)  # a job that did not end cannot be freed
""")


@pytest.mark.parametrize(("fault", "status"), [("read_fault", 303), ("write_fault", 431)])
def test_a_page_fault_is_tried_again_once_in_the_life_of_a_job(fault: str, status: int) -> None:
    run(f"""
device.fault("compress:1:1:{fault}")
assert job.compress(WORDS).status == 0 and device.served(Opcode.COMPRESS) == 2
device.clear_faults()
device.fault("compress:1:1:{fault}")
assert job.compress(WORDS).status == {status} and device.served(Opcode.COMPRESS) == 3
""")


def test_errors_of_the_data_are_200_to_299_and_those_of_the_device_are_not() -> None:
    run("""
stream = job.compress(WORDS).output
for code in (1, 2, 13, 17, 36, 99):
    device.fault(f"decompress:1:1:error:{code}")
    assert job.decompress(stream, len(WORDS)).status == 200 + code
    device.clear_faults()
for code in (16, 17, 19, 32, 48):
    device.fault(f"decompress:1:1:status:{code}")
    assert job.decompress(stream, len(WORDS)).status >= 300
    device.clear_faults()
rng = random.Random(1)
seen = set()
for _ in range(3000):
    damaged = bytearray(stream[:500])
    damaged[rng.randrange(500)] ^= 1 << rng.randrange(8)
    seen.add(job.decompress(bytes(damaged), 5000).status)
assert seen and all(status in (0, 2) or 200 <= status < 300 for status in seen), seen
""")


def test_input_or_room_above_what_a_queue_takes_is_status_319() -> None:
    run(
        """
small = raw_deflate(WORDS[:100])
for size, status in ((60_000, 0), (65_530, 0), (65_536, 0), (65_537, 319)):
    assert job.compress(bytes(size), room=4000).status == status, size
    assert job.compress(WORDS[:100], room=size).status == status, size
    assert job.decompress(small, size).status == status, size
    assert job.decompress(small + bytes(size - len(small)), 100).status == status, size
""",
        max_transfer=65536,
    )


def test_a_block_far_above_32_kib_is_right_without_verification() -> None:
    run("""
for dynamic in (False, True):
    assert zlib.decompress(job.compress(WORDS * 20, dynamic).output, -15) == WORDS * 20
""")


def test_the_hardware_path_answers_with_ok_or_one_of_its_four_reasons() -> None:
    assert _core.hardware_init_status() in (0, 500, 501, 502, 503)


def test_status_names_come_from_the_header() -> None:
    assert _core.status_name(0) == "QPL_STS_OK"
    assert _core.status_name(503) == "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE"
    assert _core.status_name(499) == "unknown status"


# ---- The software path as the reference -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def in_software() -> Iterator[None]:
    before = numcodecs_qpl.get_path()
    numcodecs_qpl.set_path("software")
    yield
    numcodecs_qpl.set_path(before)


@pytest.fixture(scope="module")
def reference() -> Job:
    return Job(Path.SOFTWARE)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_libqpl_reads_each_open_block_of_ours(reference: Job, name: str, dynamic: bool) -> None:
    for size in SIZES:
        data = DATA[name][:size]
        done = reference.decompress(compress(data, dynamic), size)
        assert (done.status, done.output, done.crc) == (0, data, zlib.crc32(data))


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
@pytest.mark.parametrize("name", DATA)
def test_libqpl_reads_our_streams_of_many_blocks(reference: Job, name: str, huffman: Huffman) -> None:
    for size, block_size in ((4096, 100), (65536, 4096), (200_000, 65536)):
        data = DATA[name][:size]
        stream = QPL("deflate", block_size, huffman).encode(data)
        # libqpl's software path may stop with status 0 before a stream of large stored blocks ends.
        done = reference.decompress(stream, size)
        assert done.status == 0
        assert done.output == data[: len(done.output)]
        assert len(done.output) == size or name == "noise"


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_libqpl_reads_our_pages(reference: Job, huffman: Huffman) -> None:
    pages = b"".join(data[:16384] for data in DATA.values())
    lengths, payload = _core.compress_pages(pages, 4096, huffman)
    at = 0
    for number, length in enumerate(lengths.tolist()):
        page, stream = pages[4096 * number :][:4096], payload[at : at + length]
        assert (stream if length == 4096 else reference.decompress(stream, 4096).output) == page
        at += length
    assert (lengths < 4096).sum() == 8


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_we_read_what_libqpl_writes(reference: Job, name: str, dynamic: bool) -> None:
    for size in SIZES:
        data = DATA[name][:size]
        done = reference.compress(data, dynamic)
        assert (done.status, done.crc) == (0, zlib.crc32(data))
        assert bytes(QPL("deflate").decode(done.output)) == data
        trailer = zlib.crc32(data).to_bytes(4, "little") + size.to_bytes(4, "little")
        member = bytes.fromhex("1f8b0800000000000000") + done.output + trailer
        assert bytes(QPL().decode(member)) == data == gzip.decompress(member)


@pytest.mark.parametrize("dynamic", [False, True])
def test_we_read_pages_that_libqpl_writes(reference: Job, dynamic: bool) -> None:
    pages = [DATA[name][4096 * i :][:4096] for name in DATA for i in range(8)]
    streams = [reference.compress(page, dynamic, room=4095) for page in pages]
    kept = [page if done.status == 2 else done.output for page, done in zip(pages, streams, strict=True)]
    lengths = np.array([len(stream) for stream in kept])
    assert _core.decompress_pages(b"".join(kept), lengths) == b"".join(pages)
    assert {done.status for done in streams} == {0, 2}


def test_both_follow_a_distance_of_4096_and_libqpl_refuses_a_farther_one(reference: Job) -> None:
    unit = DATA["noise"][:4096]
    assert reference.decompress(raw_deflate(unit * 2), 8192).output == unit * 2
    far = DATA["noise"][:4097]
    status = reference.decompress(raw_deflate(far * 2), 2 * len(far)).status
    assert (status, _core.status_name(status)) == (217, "QPL_STS_BAD_DIST_ERR")
    assert bytes(QPL("deflate").decode(raw_deflate(far * 2))) == far * 2


def test_ours_has_no_distance_above_4096(reference: Job) -> None:
    # Where libqpl reads a block, it has none. A repetition from farther away would make this one much smaller.
    unit = DATA["noise"][:4200]
    for dynamic in (False, True):
        stream = compress(unit * 8, dynamic)
        assert len(stream) > 7 * len(unit)
        assert stream.endswith(LAST_BLOCK)
        assert reference.decompress(stream, 8 * len(unit)).output == unit * 8
