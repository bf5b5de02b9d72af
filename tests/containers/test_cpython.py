"""CPython's own tests of gzip and zlib, as they are installed with this Python, run on the codec.

Thin functions on the codec replace ``zlib.decompress``, ``gzip.decompress`` and the reader of ``gzip.GzipFile``. A case
must call the codec at least once. The other cases are listed, each with its reason.
"""

from __future__ import annotations

import fnmatch
import gzip
import importlib
import io
import os
import sys
import unittest
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from numcodecs_qpl import QPL, CorruptDataError
from numcodecs_qpl.containers import ContainerName

MODULES = ("test_gzip", "test_zlib")
APPLICABLE = {
    "test_gzip.TestGzip": """
        append bad_gzip_file buffered_reader compress decompress decompress_missing_trailer decompress_truncated_trailer
        exclusive_write many_append non_seekable_file peek read read1 read_large read_with_extra readline readlines
        seek_read seek_whence textio_readlines write_array write_bytearray write_incompatible_type write_memoryview
        write_read_with_pathlike_file zero_padded_file
    """,
    "test_gzip.TestOpen": """
        binary_modes encoding encoding_error_handler fileobj implicit_binary_modes newline pathlike_file text_modes
    """,
    "test_zlib.CompressObjectTestCase": """
        compresscopy decompimax decompinc decompincflush decompress_incomplete_stream decompressmaxlen
        decompressmaxlenflush flushes
    """,
    "test_zlib.CompressTestCase": """
        custom_bufsize incomplete_stream keywords large_bufsize speech speech128
    """,
}
"""By class: the cases that decode, without the ``test_`` before their names."""

NOT_APPLICABLE = {
    "test_gzip.TestCommandLine.*": "runs Python's program in another process",
    "test_gzip.TestGzip.test_*mtime": "expects MTIME, which the codec ignores",
    "test_gzip.TestGzip.test_decompress_limited": "counts what a reader of files reads ahead",
    "test_gzip.TestGzip.test_issue112346": "counts what a writer of files writes",
    "test_gzip.TestGzip.test_prepend_error": "looks into GzipFile's own reader",
    "test_gzip.TestGzip.test_read_truncated": "expects the start of a truncated stream; the codec returns none",
    "test_gzip.*": "decodes nothing",
    "test_zlib.*.test_64bit_compress": "takes 4 GiB of memory",
    "test_zlib.*.test_big_*": "takes 1 GiB of memory",
    "test_zlib.Checksum*": "is about checksums",
    "test_zlib.CompressObjectTestCase.test_wbits": "expects an error for a smaller window; the codec reads them all",
    "test_zlib.CompressObjectTestCase.*": "decompresses by an object, in pieces, or not at all",
    "test_zlib.ExceptionTestCase.*": "is about the arguments of zlib's functions",
    "test_zlib.VersionTestCase.*": "is about zlib's version",
    "test_zlib.ZlibDecompressorTest.*": "decompresses by an object, in pieces",
}
"""By pattern, the first of which holds: why the other cases say nothing about the codec."""


class Calls:
    """Number of calls of the codec's `decode`."""

    count = 0


def decode(data: Any, container: ContainerName) -> bytes:
    Calls.count += 1
    return bytes(QPL(container=container).decode(data))


def zlib_decompress(data: Any, /, wbits: int = zlib.MAX_WBITS, bufsize: int = zlib.DEF_BUF_SIZE) -> bytes:
    """`zlib.decompress` on the codec."""
    container: ContainerName = "deflate" if wbits < 0 else "gzip" if wbits > 15 else "zlib"
    try:
        return decode(data, container)
    except CorruptDataError as error:
        if "truncated" in str(error):
            raise zlib.error("Error -5 while decompressing data: incomplete or truncated stream") from error
        raise zlib.error(f"Error -3 while decompressing data: {error}") from error


def gzip_decompress(data: Any) -> bytes:
    """`gzip.decompress` on the codec."""
    try:
        return decode(data, "gzip")
    except CorruptDataError as error:
        if "truncated" in str(error):
            raise EOFError("Compressed file ended before the end-of-stream marker was reached") from error
        raise gzip.BadGzipFile(f"Not a gzipped file: {error}") from error


class GzipReader(io.RawIOBase):
    """Reader for `gzip.GzipFile` that decodes the whole file at the first read."""

    _last_mtime = None

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self._decoded: io.BytesIO | None = None

    def _whole(self) -> io.BytesIO:
        if self._decoded is None:
            pieces = iter(lambda: self._file.read(1 << 16), b"")
            data = b"".join(pieces)
            # The codec refuses an empty file. GzipFile reads it as a file without members.
            self._decoded = io.BytesIO(gzip_decompress(data) if data else b"")
        return self._decoded

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._whole().readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._whole().seek(offset, whence)

    def tell(self) -> int:
        return self._decoded.tell() if self._decoded else 0


@pytest.fixture
def on_the_codec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the cases write files
    monkeypatch.setattr(zlib, "decompress", zlib_decompress)
    monkeypatch.setattr(gzip, "decompress", gzip_decompress)
    monkeypatch.setattr(gzip, "_GzipReader", GzipReader)
    monkeypatch.setattr(Calls, "count", 0)


def cases_of(suite: Any) -> Iterator[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        yield suite
    else:
        for part in suite:
            yield from cases_of(part)


def installed() -> dict[str, unittest.TestCase]:
    """CPython's cases by name; none where this Python came without its tests."""
    found = {}
    for name in MODULES:
        try:
            module = importlib.import_module(f"test.{name}")
        except ImportError:
            return {}
        for case in cases_of(unittest.defaultTestLoader.loadTestsFromModule(module)):
            found[case.id().removeprefix("test.")] = case
    return found


INSTALLED = installed()
CASES = [f"{group}.test_{name}" for group, names in APPLICABLE.items() for name in names.split()]


def need_cases() -> None:
    """Skip where this Python came without its tests, as Debian's does; in CI that is a failure."""
    if INSTALLED:
        return
    reason = "this Python has no modules test.test_gzip and test.test_zlib: Debian has them in libpython3.11-testsuite"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("on_the_codec")
def test_a_case_of_cpython_holds_for_the_codec(name: str) -> None:
    need_cases()
    if name not in INSTALLED and sys.version_info[:2] != (3, 11):
        pytest.skip(f"this Python has no {name}")
    result = unittest.TestResult()
    INSTALLED[name].run(result)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, "\n".join(problems)
    assert result.skipped == []
    assert Calls.count, "the case never came to the codec"


def test_each_other_case_of_cpython_has_a_reason_against_it() -> None:
    need_cases()
    others = [name for name in INSTALLED if name not in CASES]
    reasons = {
        name: next((NOT_APPLICABLE[p] for p in NOT_APPLICABLE if fnmatch.fnmatch(name, p)), "") for name in others
    }
    for name, reason in reasons.items():
        print(f"{name}: {reason}")
    assert [name for name, reason in reasons.items() if not reason] == []
    assert len(INSTALLED) > 100
