"""Data that earlier versions wrote: every later one must read it.

The files in ``fixtures`` are made once for a version by running this file, and never changed. ``draft`` holds chunks of
0.1.0's draft, which had levels and wrote several gzip members:

    python tests/codec/test_fixtures.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from numcodecs_qpl import QPL, __version__, _core, decompress_pages, get_threads, reset_stats, set_threads, stats

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = sorted(FIXTURES.glob("*/*/config.json"))
PAGES = sorted(FIXTURES.glob("*/pages-*.npz"))
INDEXED = sorted(FIXTURES.glob("0.1.0/gzip-*/config.json"))
SAME_BYTES = sorted(FIXTURES.glob("0.1.0/*-fixed-*/config.json"))

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "walk": np.cumsum(np.tile([1, 2, -1, 3, -4], 1000), dtype="<i4"),
    "noise": np.random.default_rng(0).integers(0, 256, 3000, dtype="u1"),
    "text": np.frombuffer(b"the same words again and again, and some other ones now and then. " * 120, "u1"),
    "zeros": np.zeros(70_000, "u1"),
    "nothing": np.zeros(0, "u1"),
}
CONFIGS: list[dict[str, Any]] = [
    {"container": container, "huffman": huffman, "block_size": block_size}
    for container in ("gzip", "zlib", "deflate")
    for huffman in ("dynamic", "fixed")
    for block_size in (4096, 65536)
]


def test_the_fixtures_are_all_there() -> None:
    assert len(CASES) >= 2 * len(CONFIGS)
    assert len(SAME_BYTES) == len(CONFIGS) // 2
    assert len(INDEXED) == len(CONFIGS) // 3
    assert PAGES


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.parent.parts[-2:]))
def test_what_an_earlier_version_wrote_is_read(case: Path) -> None:
    codec = numcodecs.get_codec(json.loads(case.read_text()))
    for file in case.parent.glob("*.bin"):
        data = ARRAYS[file.stem]
        assert codec.decode(file.read_bytes()) == data.tobytes()
        out = np.empty_like(data)
        codec.decode(file.read_bytes(), out)
        assert np.array_equal(out, data)


@pytest.mark.parametrize("case", INDEXED, ids=lambda case: "-".join(case.parent.parts[-2:]))
def test_the_index_that_an_earlier_version_wrote_is_used(case: Path) -> None:
    """Without it, a stream would be inflated in one piece, with the same result."""
    codec: Any = numcodecs.get_codec(json.loads(case.read_text()))
    before = get_threads()
    set_threads(2)
    try:
        for file in case.parent.glob("*.bin"):
            data = ARRAYS[file.stem].tobytes()
            reset_stats()
            assert codec.decode(file.read_bytes()) == data
            assert stats()["software"]["decompressed"] == max(1, -(-len(data) // codec.block_size))
    finally:
        set_threads(before)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_pages_that_an_earlier_version_wrote_are_read(file: Path) -> None:
    with np.load(file) as saved:
        assert decompress_pages(saved["payload"].tobytes(), saved["lengths"]) == saved["pages"].tobytes()


@pytest.mark.parametrize("case", SAME_BYTES, ids=lambda case: "-".join(case.parent.parts[-2:]))
def test_the_bytes_that_are_written_with_fixed_tables_have_not_changed(case: Path) -> None:
    """Not promised for ever, but to be noticed: a new ISA-L may compress otherwise."""
    codec = numcodecs.get_codec(json.loads(case.read_text()))
    for file in case.parent.glob("*.bin"):
        assert codec.encode(ARRAYS[file.stem]) == file.read_bytes(), _core.engine_versions()


def main() -> None:
    """Write the fixtures of this version."""
    folder = FIXTURES / __version__
    for config in CONFIGS:
        codec = QPL(**config)
        case = folder / "-".join(str(value) for value in config.values())
        case.mkdir(parents=True)
        (case / "config.json").write_text(json.dumps(codec.get_config()) + "\n")
        for name, data in ARRAYS.items():
            (case / f"{name}.bin").write_bytes(codec.encode(data))
    pages = np.concatenate(
        [ARRAYS["walk"].view("u1")[:8192], np.random.default_rng(1).integers(0, 256, 4096, dtype="u1")]
    )
    for huffman in ("fixed", "dynamic"):
        lengths, payload = _core.compress_pages(pages, huffman=huffman)
        np.savez(folder / f"pages-{huffman}", pages=pages, lengths=lengths, payload=np.frombuffer(payload, "u1"))


if __name__ == "__main__":
    main()
