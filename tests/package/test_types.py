"""The annotations of the installed package, as mypy sees them in another program."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from programs import give_up

PREAMBLE = """\
from typing import Literal, assert_type

import array
import numpy as np
import numpy.typing as npt
import numcodecs_qpl
import numcodecs_qpl.zarr
from numcodecs_qpl import QPL, compress_pages, decompress_pages, stats

ROW: npt.NDArray[np.float64] = np.zeros(10)
LENGTHS = np.zeros(1, np.uint32)
"""

RIGHT = """\
QPL(container="zlib", block_size=4096, huffman="fixed")
numcodecs_qpl.zarr.QPL(container="zlib", huffman="fixed")
QPL().encode(ROW); QPL().encode(array.array("d")); QPL().encode(memoryview(b"")[::1])
assert_type(QPL().encode(b""), bytes)
assert_type(QPL().decode(b""), bytes)
assert_type(QPL().decode(b"", None), bytes)
assert_type(QPL().decode(b"", ROW), npt.NDArray[np.float64])
assert_type(QPL().decode(b"", out=bytearray(3)), bytearray)
assert_type(QPL().container, Literal["gzip", "zlib", "deflate"])
assert_type(QPL.from_config({}), QPL)
assert_type(numcodecs_qpl.serve.GZip().decode(b""), bytes)
assert_type(numcodecs_qpl.serve.Zlib().decode(b"", ROW), npt.NDArray[np.float64])
assert_type(compress_pages(ROW, 4096, "dynamic"), tuple[npt.NDArray[np.uint32], bytes])
assert_type(decompress_pages(b"", [1, 2]), bytes)
assert_type(decompress_pages(b"", LENGTHS, 4096, ROW), npt.NDArray[np.float64])
assert_type(decompress_pages(b"", LENGTHS, out=bytearray(3)), bytearray)
assert_type(stats()["software"]["compressed"], int)
assert_type(stats()["fallback"]["QPL_STS_QUEUES_ARE_BUSY_ERR"], int)
assert_type(stats()["queues"]["full"], int)
assert_type(numcodecs_qpl.get_path(), Literal["auto", "hardware", "software"])
numcodecs_qpl.set_path(numcodecs_qpl.get_path())
numcodecs_qpl.set_numa("node"); numcodecs_qpl.set_numa(0); numcodecs_qpl.set_numa(numcodecs_qpl.get_numa())
numcodecs_qpl.enable("gzip", compress="software"); numcodecs_qpl.disable(*numcodecs_qpl.enabled())
"""

WRONG = {
    'QPL(container="gz")': "arg-type",
    'QPL(huffman="static")': "arg-type",
    'QPL(block_size="64K")': "arg-type",
    "QPL(level=1)": "call-arg",
    'QPL().encode("text")': "arg-type",
    "QPL().decode(b'', 10)": "call-overload",
    "QPL().container = 'zlib'": "misc",
    'numcodecs_qpl.zarr.QPL(container="gz")': "arg-type",
    "numcodecs_qpl.zarr.QPL().container = 'zlib'": "misc",
    'numcodecs_qpl.set_path("hardwear")': "arg-type",
    'numcodecs_qpl.set_numa("sockets")': "arg-type",
    'numcodecs_qpl.set_threads("2")': "arg-type",
    'numcodecs_qpl.enable("zstd")': "arg-type",
    'numcodecs_qpl.enable(compress="hardware")': "arg-type",
    'numcodecs_qpl.disable("zstd")': "arg-type",
    'compress_pages(b"", huffman="static")': "arg-type",
    'stats()["typo"]': "typeddict-item",
    'stats()["software"]["inflated"]': "typeddict-item",
    'stats()["queues"]["empty"]': "typeddict-item",
}
"""Statements, and the code of mypy's error."""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Codes of the errors in each line of the program: right lines, then wrong ones."""
    if find_spec("mypy") is None:
        give_up("mypy is missing: pip install mypy")
    folder = tmp_path_factory.mktemp("types")
    (folder / "program.py").write_text(PREAMBLE + RIGHT + "\n".join(WRONG))
    command = [sys.executable, "-P", "-m", "mypy", "--strict", "--config-file=", "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    found: dict[int, list[str]] = {}
    for number, code in re.findall(r"^program\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.M):
        found.setdefault(int(number), []).append(code)
    assert len(found) == done.stdout.count("program.py:") - done.stdout.count(": note: "), done.stdout
    return found


def test_mypy_has_nothing_against_right_calls(errors: dict[int, list[str]]) -> None:
    lines = (PREAMBLE + RIGHT).splitlines()
    assert {lines[number - 1]: codes for number, codes in errors.items() if number <= len(lines)} == {}


@pytest.mark.parametrize("statement", WRONG)
def test_mypy_finds_a_wrong_call(errors: dict[int, list[str]], statement: str) -> None:
    before = len((PREAMBLE + RIGHT).splitlines())
    assert errors.get(before + 1 + list(WRONG).index(statement)) == [WRONG[statement]]


def test_the_annotations_allow_what_the_package_accepts() -> None:
    from typing import get_args

    from numcodecs_qpl import _core, serve
    from numcodecs_qpl._core import types
    from numcodecs_qpl.containers import CONTAINERS, ContainerName

    assert get_args(ContainerName) == tuple(CONTAINERS)
    assert set(get_args(types.Huffman)) == set(_core.HUFFMAN)
    assert get_args(types.PathSetting) == _core.PATH_SETTINGS
    assert get_args(serve.CodecId) == tuple(serve._NAMES)
    assert get_args(serve.CompressSetting) == serve.COMPRESS_SETTINGS
    assert types.Stats.__annotations__.keys() == _core.stats().keys()
