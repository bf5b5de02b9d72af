"""What the binding relies on in libqpl: where a newer one fails here, the code that relies on it has to change."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from engine import needs_libqpl

from numcodecs_qpl import QplError, _core

pytestmark = needs_libqpl

RNG = np.random.default_rng(1)
WORDS = bytes(RNG.choice(np.frombuffer(b"abcd efgh", np.uint8), 100_000))
NOISE = RNG.bytes(100_000)


def compress(data: bytes, *, level: int = 1, dynamic: bool = True) -> tuple[bytes, int]:
    """One block, and the CRC-32 that libqpl says its input has."""
    writer = _core.BytesWriter(_core.compress_bound(len(data)))
    _, lengths, crcs = _core.compress_blocks(data, writer, max(1, len(data)), level=level, dynamic=dynamic)
    return writer.finish(int(lengths[0])), int(crcs[0])


def decompress(stream: bytes, room: int) -> tuple[int, int, bytes, int]:
    """Status, bytes read, what was written, and its CRC-32 by libqpl."""
    out = bytearray(room + _core.OUTPUT_SLACK)
    status, read, written, crc = _core.decompress_blocks(
        stream, np.zeros(1, np.int64), np.array([len(stream)]), out, np.array([room])
    )
    return status[0], read[0], bytes(out[: written[0]]), crc[0]


def raw_deflate(data: bytes, *, wbits: int = -15, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, wbits)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("data", [WORDS, NOISE, b"x"], ids=["words", "noise", "one byte"])
def test_the_crc_after_a_job_is_that_of_the_uncompressed_data(level: int, dynamic: bool, data: bytes) -> None:
    stream, crc = compress(data, level=level, dynamic=dynamic)
    assert crc == zlib.crc32(data)
    assert zlib.decompress(stream, -15) == data
    assert decompress(stream, len(data)) == (0, len(stream), data, zlib.crc32(data))


def test_a_truncated_stream_is_ok_with_short_output_in_software() -> None:
    stream, _ = compress(WORDS)
    status, _, written, _ = decompress(stream[: len(stream) // 2], len(WORDS))
    assert status == 0
    assert 0 < len(written) < len(WORDS)
    assert WORDS.startswith(written)


def test_a_stream_is_ok_when_the_room_is_exactly_its_size_and_one_byte_less_is_status_2() -> None:
    stream, _ = compress(WORDS)
    assert decompress(stream, len(WORDS))[0] == 0
    status, _, written, _ = decompress(stream, len(WORDS) - 1)
    assert _core.status_name(status) == "QPL_STS_MORE_OUTPUT_NEEDED"
    assert written == WORDS[:-1]


@pytest.mark.parametrize("extra", [0, 1, 7, 8, 9, 100])
def test_the_input_used_is_at_most_8_bytes_too_high_and_never_more_than_there_is(extra: int) -> None:
    stream, _ = compress(WORDS)
    _, read, written, _ = decompress(stream + b"\xff" * extra, len(WORDS))
    assert written == WORDS
    assert len(stream) <= read <= len(stream) + min(8, extra)


def test_a_distance_of_4096_is_followed_and_a_farther_one_is_status_217() -> None:
    unit = RNG.bytes(4096)
    assert decompress(raw_deflate(unit * 2), 8192)[2] == unit * 2
    far = RNG.bytes(4097)
    status, *_ = decompress(raw_deflate(far * 2), 2 * len(far))
    assert (status, _core.status_name(status)) == (217, "QPL_STS_BAD_DIST_ERR")


def test_a_stored_block_spoils_bytes_after_the_room_but_no_more_than_the_slack() -> None:
    data = RNG.bytes(140_000)
    compressor = zlib.compressobj(0, zlib.DEFLATED, -15)
    stream = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH) + compressor.flush()

    def spoiled(after: int) -> int:
        """How many of `after` bytes behind the room are written to."""
        out = bytearray(data) + b"\xaa" * 100
        status, *_ = _core.decompress_blocks(
            stream,
            np.zeros(1, np.int64),
            np.array([len(stream)]),
            memoryview(out)[: len(data) + after],
            np.array([len(data)]),
        )
        assert status[0] == 0
        assert out.startswith(data)
        return len(out[len(data) :].rstrip(b"\xaa"))

    assert 0 < spoiled(after=_core.OUTPUT_SLACK) <= _core.OUTPUT_SLACK
    assert spoiled(after=_core.OUTPUT_SLACK - 1) == 0


def test_a_stream_that_needs_more_room_goes_on_where_it_stopped() -> None:
    stream, _ = compress(WORDS)
    for guess in (1, 100, 4096, len(WORDS) - 1, len(WORDS), 10 * len(WORDS)):
        assert _core.decompress_stream(stream, guess, 20 * len(WORDS)) == WORDS


@pytest.mark.parametrize("level", [0, 2, 4, 9])
def test_there_are_no_levels_but_1_and_3(level: int) -> None:
    with pytest.raises(QplError, match=r"status 87, QPL_STS_UNSUPPORTED_COMPRESSION_LEVEL"):
        compress(WORDS, level=level)


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("dynamic", [True, False])
def test_noise_of_every_awkward_size_fits_into_the_bound(level: int, dynamic: bool) -> None:
    noise = RNG.bytes(3 * 65535 + 300)
    sizes = [*range(1, 40), *(k * 65535 + d for k in (1, 2, 3) for d in range(-180, 181, 3))]
    for size in sizes:
        stream, _ = compress(noise[:size], level=level, dynamic=dynamic)
        assert len(stream) <= _core.compress_bound(size)
        assert zlib.decompress(stream, -15) == noise[:size]


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_bytes_do_not_depend_on_what_a_job_did_before(level: int, dynamic: bool) -> None:
    fresh = (
        "import sys, zlib; sys.path[:0] = sys.argv[1:]; import test_libqpl as t;"
        f"print(zlib.crc32(t.compress(t.WORDS[:20000], level={level}, dynamic={dynamic})[0]))"
    )
    folder = __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", fresh, folder], capture_output=True, text=True, check=True)
    for history in (WORDS[7:], NOISE, WORDS[50_000:]):
        compress(history, dynamic=False)
        decompress(compress(history, level=3)[0], len(history))
        compress(history[:3000], dynamic=False)
        assert zlib.crc32(compress(WORDS[:20_000], level=level, dynamic=dynamic)[0]) == int(done.stdout)


def test_a_verified_stream_is_not_asked_for_as_verification_fails_falsely() -> None:
    # Blocks far above 32 KiB come out without status 229: the binding leaves verification off.
    assert zlib.decompress(compress(WORDS * 10)[0], -15) == WORDS * 10


def test_the_hardware_path_answers_with_ok_or_one_of_its_four_reasons() -> None:
    assert _core.hardware_init_status() in (0, 500, 501, 502, 503)


def test_status_names_come_from_the_header() -> None:
    assert _core.status_name(0) == "QPL_STS_OK"
    assert _core.status_name(503) == "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE"
    assert _core.status_name(499) == "unknown status"
