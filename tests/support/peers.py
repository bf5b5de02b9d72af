"""Other implementations of gzip, zlib and deflate: from Python's library, PyPI, Debian and npm."""

from __future__ import annotations

import base64
import functools
import importlib
import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from programs import give_up, missing

Container = Literal["gzip", "zlib", "deflate"]
Huffman = Literal["dynamic", "fixed"]

CONTAINERS: Final[tuple[Container, ...]] = ("gzip", "zlib", "deflate")
HUFFMANS: Final[tuple[Huffman, ...]] = ("dynamic", "fixed")
WBITS: Final = {"gzip": 31, "zlib": 15, "deflate": -15}
"""The wbits with which zlib reads each container."""

PATIENCE = 120
"""Seconds that a program may take."""
NODE_SOURCES = Path(__file__).parents[1] / "interoperability/node"
NODE_FOLDER = Path(__file__).parents[2] / "build/node"

Read = Callable[[Any, bytes, int], Any]
"""From the peer's module, a stream and its content's size."""
Write = Callable[[Any, bytes, Any], Any]
"""From the peer's module, content and a level."""


def module(name: str) -> Any:
    """Import a peer; skip the test where its package is missing, and fail in CI."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        give_up(f"{error.name} is missing: pip install '.[peers]'")


class Peer(ABC):
    """An implementation that is not ours.

    Attributes
    ----------
    name : str
        With the library that it runs on, where that is not in the name.
    reads : collection of str
        Containers that it reads.
    writes : dict of str to sequence
        Containers that it writes, each with the levels to try.
    """

    name: str
    reads: Sequence[Container]
    writes: Mapping[Container, Sequence[Any]]

    @abstractmethod
    def read(self, container: Container, streams: Sequence[tuple[bytes, int]]) -> list[bytes]:
        """Decompress streams; each comes with the size of its content."""

    @abstractmethod
    def write(self, container: Container, level: Any, contents: Sequence[bytes]) -> list[bytes]:
        """Compress contents, each to a stream of its own."""


class Library(Peer):
    """A peer that is a Python module."""

    def __init__(
        self,
        name: str,
        module: str,
        reads: Mapping[Container, Read],
        writes: Mapping[Container, tuple[Sequence[Any], Write]],
    ) -> None:
        self.name = name
        self.reads = tuple(reads)
        self.writes = {container: levels for container, (levels, _) in writes.items()}
        self._module = module
        self._read = reads
        self._write = {container: write for container, (_, write) in writes.items()}

    def read(self, container: Container, streams: Sequence[tuple[bytes, int]]) -> list[bytes]:
        library = module(self._module)
        return [bytes(self._read[container](library, encoded, size)) for encoded, size in streams]

    def write(self, container: Container, level: Any, contents: Sequence[bytes]) -> list[bytes]:
        library = module(self._module)
        return [bytes(self._write[container](library, data, level)) for data in contents]


@dataclass(frozen=True)
class Program(Peer):
    """A peer that is a program which reads stdin and writes stdout; a level is one or more arguments."""

    name: str
    read_arguments: Mapping[Container, str]
    write_arguments: Mapping[Container, tuple[Sequence[str], str]]

    @property
    def reads(self) -> Sequence[Container]:  # type: ignore[override]
        return tuple(self.read_arguments)

    @property
    def writes(self) -> Mapping[Container, Sequence[str]]:  # type: ignore[override]
        return {container: levels for container, (levels, _) in self.write_arguments.items()}

    def read(self, container: Container, streams: Sequence[tuple[bytes, int]]) -> list[bytes]:
        return [self._run(self.read_arguments[container], encoded) for encoded, _ in streams]

    def write(self, container: Container, level: str, contents: Sequence[bytes]) -> list[bytes]:
        return [self._run(f"{self.write_arguments[container][1]} {level}", data) for data in contents]

    def _run(self, arguments: str, data: bytes) -> bytes:
        if reason := missing(self.name):
            give_up(reason)
        return run([self.name, *arguments.split()], data)


@dataclass(frozen=True)
class NodeCodec(Peer):
    """A codec of ``streams.mjs``."""

    name: str
    codec: str
    levels: Sequence[int]
    reads: Sequence[Container] = ("gzip", "zlib", "deflate")
    writes: Mapping[Container, Sequence[Any]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "writes", dict.fromkeys(self.reads, self.levels))

    def read(self, container: Container, streams: Sequence[tuple[bytes, int]]) -> list[bytes]:
        return self._run("read", container, "", [encoded for encoded, _ in streams])

    def write(self, container: Container, level: int, contents: Sequence[bytes]) -> list[bytes]:
        return self._run("write", container, str(level), contents)

    def _run(self, direction: str, container: Container, level: str, contents: Sequence[bytes]) -> list[bytes]:
        texts = json.dumps([base64.b64encode(data).decode() for data in contents]).encode()
        printed = node("streams.mjs", self.codec, direction, container, level, stdin=texts)
        return [base64.b64decode(text) for text in json.loads(printed)]


def run(command: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a program and return its stdout; a failure shows its stderr."""
    ended = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE)
    assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr.decode(errors='replace')}"
    return ended.stdout


def node(script: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run one of the scripts in ``interoperability/node`` with npm's packages beside it."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            give_up(f"{program} is missing: pip install '.[peers]'")
    if reason := _install_node_packages():
        give_up(reason)
    return run(["node", str(NODE_FOLDER / script), *arguments], stdin)


@functools.cache
def _install_node_packages() -> str:
    """Copy the scripts to the build folder and install the lock file's packages; return the reason if that fails."""
    NODE_FOLDER.mkdir(parents=True, exist_ok=True)
    for source in NODE_SOURCES.iterdir():
        shutil.copyfile(source, NODE_FOLDER / source.name)
    lock = (NODE_SOURCES / "package-lock.json").read_bytes()
    installed = NODE_FOLDER / "node_modules/installed"
    if not installed.exists() or installed.read_bytes() != lock:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=NODE_FOLDER)
        if ended.returncode:
            return f"{' '.join(command)} failed in {NODE_FOLDER}: {' '.join(ended.stderr.split()[:20])}"
        installed.write_bytes(lock)
    return ""


STREAM_PEERS: Sequence[Peer] = (
    Library(
        "gzip (CPython)",
        "gzip",
        {"gzip": lambda gzip, encoded, _: gzip.decompress(encoded)},
        {"gzip": ((0, 6), lambda gzip, data, level: gzip.compress(data, level))},
    ),
    # tests/containers/test_foreign.py has all levels of zlib.
    Library(
        "zlib (CPython)",
        "zlib",
        {
            "gzip": lambda zlib, encoded, _: zlib.decompress(encoded, WBITS["gzip"]),
            "zlib": lambda zlib, encoded, _: zlib.decompress(encoded),
            "deflate": lambda zlib, encoded, _: zlib.decompress(encoded, -12),
        },
        {
            "gzip": ((0, 1, 6), lambda zlib, data, level: zlib.compress(data, level, WBITS["gzip"])),
            "zlib": ((0, 1, 6), lambda zlib, data, level: zlib.compress(data, level)),
            "deflate": ((0, 1, 6), lambda zlib, data, level: zlib.compress(data, level, WBITS["deflate"])),
        },
    ),
    Library(
        "numcodecs",
        "numcodecs",
        {
            "gzip": lambda numcodecs, encoded, _: numcodecs.GZip().decode(encoded),
            "zlib": lambda numcodecs, encoded, _: numcodecs.Zlib().decode(encoded),
        },
        {
            "gzip": ((1, 5, 9), lambda numcodecs, data, level: numcodecs.GZip(level).encode(data)),
            "zlib": ((1, 5, 9), lambda numcodecs, data, level: numcodecs.Zlib(level).encode(data)),
        },
    ),
    # Without `out`, deflate_decode falls back to zlib.
    Library(
        "imagecodecs (libdeflate)",
        "imagecodecs",
        {
            "gzip": lambda imagecodecs, encoded, _: imagecodecs.gzip_decode(encoded),
            "zlib": lambda imagecodecs, encoded, size: imagecodecs.deflate_decode(encoded, out=size),
            "deflate": lambda imagecodecs, encoded, size: imagecodecs.deflate_decode(encoded, raw=True, out=size),
        },
        {
            "gzip": ((0, 1, 6, 12), lambda imagecodecs, data, level: imagecodecs.gzip_encode(data, level)),
            "zlib": ((0, 1, 6, 12), lambda imagecodecs, data, level: imagecodecs.deflate_encode(data, level)),
            "deflate": (
                (0, 1, 6, 12),
                lambda imagecodecs, data, level: imagecodecs.deflate_encode(data, level, raw=True),
            ),
        },
    ),
    Library(
        "imagecodecs (zlib)",
        "imagecodecs",
        {"zlib": lambda imagecodecs, encoded, _: imagecodecs.zlib_decode(encoded)},
        {"zlib": ((1, 6, 9), lambda imagecodecs, data, level: imagecodecs.zlib_encode(data, level))},
    ),
    Library(
        "imagecodecs (zlib-ng)",
        "imagecodecs",
        {"zlib": lambda imagecodecs, encoded, _: imagecodecs.zlibng_decode(encoded)},
        {"zlib": ((1, 6, 9), lambda imagecodecs, data, level: imagecodecs.zlibng_encode(data, level))},
    ),
    Library(
        "deflate (libdeflate)",
        "deflate",
        {
            "gzip": lambda deflate, encoded, _: deflate.gzip_decompress(encoded),
            "zlib": lambda deflate, encoded, size: deflate.zlib_decompress(encoded, size),
            "deflate": lambda deflate, encoded, size: deflate.deflate_decompress(encoded, size),
        },
        {
            "gzip": ((0, 1, 6, 12), lambda deflate, data, level: deflate.gzip_compress(data, level)),
            "zlib": ((0, 1, 6, 12), lambda deflate, data, level: deflate.zlib_compress(data, level)),
            "deflate": ((0, 1, 6, 12), lambda deflate, data, level: deflate.deflate_compress(data, level)),
        },
    ),
    Library(
        "isal.igzip",
        "isal.igzip",
        {"gzip": lambda igzip, encoded, _: igzip.decompress(encoded)},
        {"gzip": (range(4), lambda igzip, data, level: igzip.compress(data, level))},
    ),
    Library(
        "isal.isal_zlib",
        "isal.isal_zlib",
        {
            "zlib": lambda isal_zlib, encoded, _: isal_zlib.decompress(encoded),
            "deflate": lambda isal_zlib, encoded, _: isal_zlib.decompress(encoded, -15),
        },
        {
            "zlib": (range(4), lambda isal_zlib, data, level: isal_zlib.compress(data, level)),
            "deflate": (range(4), lambda isal_zlib, data, level: isal_zlib.compress(data, level, -15)),
        },
    ),
    # pgzip reads no header of ours: test_pgzip_refuses_every_extra_field_but_its_own.
    Library(
        "pgzip",
        "pgzip",
        {},
        {"gzip": ((1, 6, 9), lambda pgzip, data, level: pgzip.compress(data, level, thread=2, blocksize=30_000))},
    ),
    Program("gzip", {"gzip": "-dc"}, {"gzip": (("-1", "-6", "-9", "-6 --rsyncable"), "-c")}),
    Program(
        "pigz",
        {"gzip": "-dc", "zlib": "-dcz"},
        {
            "gzip": (("-0", "-1", "-6", "-9", "-6 --independent --processes 2"), "-c"),
            "zlib": (("-1", "-6", "-9", "-6 --independent --processes 2"), "-cz"),
        },
    ),
    Program("igzip", {"gzip": "-dc"}, {"gzip": (("-0", "-1", "-2", "-3", "-1 -T 2"), "-c")}),
    Program("bgzip", {"gzip": "-dc"}, {"gzip": (("-l 0", "-l 1", "-l 6", "-l 9", "-l 6 -@ 2"), "-c")}),
    NodeCodec("fflate", "fflate", (0, 6)),
    NodeCodec("DecompressionStream (Node)", "web", (6,)),
)
