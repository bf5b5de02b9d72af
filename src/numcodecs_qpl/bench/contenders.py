"""The measured codecs: QPL with each of its containers on each usable path, and other codecs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numcodecs
from numcodecs import blosc

from numcodecs_qpl import QPL, get_path, get_threads, set_path, set_threads
from numcodecs_qpl._core import path_in_force
from numcodecs_qpl.bench.sample import Chunk
from numcodecs_qpl.bench.verdict import SHUFFLED
from numcodecs_qpl.containers import CONTAINERS
from numcodecs_qpl.host.cpus import usable_cpus
from numcodecs_qpl.host.devices import EMULATED, devices, hardware_label

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import PathName
    from numcodecs_qpl.containers import ContainerName

MOST_THREADS = 8
"""Most threads that share a chunk: Blosc's default."""

OURS = "QPL"
"""Family of this package."""


@dataclass(frozen=True)
class Contender:
    """A codec, or shuffle and then a codec.

    Attributes
    ----------
    name : str
        Unique name in tables and plots.
    call : str
        Python expression for the codec.
    family : {"QPL", "deflate", "zstd", "LZ4"}
        Family of formats. QPL writes deflate but has its own family.
    encode, decode : callable
        The codec's functions: each takes a chunk and returns the result.
    path : {"hardware", "software"} or None
        Path setting for QPL.
    on : str
        Device that does the work: "IAA", "emulated IAA" or "CPU".
    container : {"gzip", "zlib", "deflate"} or None
        Container of QPL.
    threads : int
        Threads that share a chunk.
    gzip : bool
        True if any gzip reads the result.
    zarr3 : str or None
        Python expression for the codec in zarr format 3; None if zarr has no codec for it. For format 2 it is `call`.
    shuffle : str or None
        Python expression for the element size of the shuffle before the codec; None without shuffle.
    """

    name: str
    call: str
    family: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    path: PathName | None = None
    on: str = "CPU"
    container: ContainerName | None = None
    threads: int = 1
    gzip: bool = False
    zarr3: str | None = None
    shuffle: str | None = None

    def write(self, chunk: Chunk) -> Any:
        """Encode a chunk."""
        return self.encode(chunk if self.shuffle is None else numcodecs.Shuffle(chunk.itemsize).encode(chunk))

    def read(self, stored: Any, item_size: int) -> Any:
        """Decode a result of `write` for a chunk with items of that size."""
        found = self.decode(stored)
        return found if self.shuffle is None else numcodecs.Shuffle(item_size).decode(found)

    @property
    def chain(self) -> str:
        """Python expression for the codec, or for shuffle and the codec."""
        return self.call if self.shuffle is None else f"numcodecs.Shuffle(elementsize={self.shuffle}), {self.call}"

    @property
    def zarr_arguments(self) -> dict[int, str] | None:
        """Arguments of `zarr.create_array` for this codec, by zarr format; None if zarr does not have it."""
        if self.zarr3 is None:
            return None
        if self.shuffle is None:
            return {2: f"compressors={self.call}", 3: f"compressors={self.zarr3}"}
        shuffle = f"numcodecs.Shuffle(elementsize={self.shuffle})"
        return {
            2: f"filters=[{shuffle}], compressors={self.call}",
            3: f"compressors=[zarr.codecs.{shuffle}, {self.zarr3}]",
        }

    @property
    def ours(self) -> bool:
        """True for QPL."""
        return self.family == OURS

    @property
    def emulated(self) -> bool:
        """True if an emulated IAA, which is a software device, does the work."""
        return self.on == EMULATED

    @property
    def judged(self) -> bool:
        """True if the codec can be recommended: one thread, not emulated, and not bare deflate.

        Bare deflate has no checksum, so damage may be read as data.
        """
        return self.threads == 1 and not self.emulated and self.container != "deflate"

    def settle(self) -> None:
        """Apply the codec's settings to the process."""
        set_threads(self.threads)
        if self.path is not None:
            set_path(self.path)
        blosc.use_threads = self.threads > 1
        blosc.set_nthreads(self.threads)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore the process's settings at the end."""
    path, threads = get_path(), get_threads()
    blosc_uses, blosc_threads = blosc.use_threads, blosc.get_nthreads()
    try:
        yield
    finally:
        set_threads(threads)
        blosc.use_threads = blosc_uses
        blosc.set_nthreads(blosc_threads)
        set_path(path)  # last, because "hardware" is an error if the device has failed meanwhile


def contenders(largest_chunk: int, item_sizes: Collection[int]) -> list[Contender]:
    """Return all codecs that can be measured on this machine.

    Parameters
    ----------
    largest_chunk : int
        Size in bytes. Threads share a chunk only if it has more than one block.
    item_sizes : collection of int
        Sizes of the chunks' items in bytes. Only items of several bytes are shuffled.
    """
    threads = 1
    if largest_chunk > QPL().block_size:
        threads = min(MOST_THREADS, usable_cpus())
    paths = _paths()
    labels = {"hardware": hardware_label(devices()), "software": "software path" if len(paths) > 1 else ""}
    ours = [contender for path in paths for contender in _qpl(path, labels[path], threads)]
    everyone = [*ours, *_peers(threads)]
    if max(item_sizes) == 1:
        return everyone
    shuffle = str(*item_sizes) if len(item_sizes) == 1 else "dtype.itemsize"
    alone = [one for one in everyone if one.threads == 1]
    shuffled = [replace(one, name=f"{SHUFFLED}{one.name}", shuffle=shuffle) for one in alone if _is_shuffled(one)]
    return [*everyone, *_blosc(1, "noshuffle"), *shuffled]


def _is_shuffled(one: Contender) -> bool:
    """Return True if the codec is also measured with shuffle."""
    return one.container == "gzip" or one.name in ("gzip 1", "zstd 1")


def _paths() -> list[PathName]:
    in_force = path_in_force()
    # A path setting other than "auto" excludes the other path.
    return ["hardware", "software"] if (in_force, get_path()) == ("hardware", "auto") else [in_force]


def _qpl(path: PathName, label: str, threads: int) -> Iterator[Contender]:
    for container in CONTAINERS:
        # Only gzip has an index, which threads need to share the decoding.
        for count in sorted({1, threads}) if container == "gzip" else [1]:
            codec = QPL(container=container)
            name = "QPL" + (f" {container}" if container != "gzip" else "")
            yield Contender(
                ", ".join(filter(None, [name, label, f"{count} threads" if count > 1 else ""])),
                f"numcodecs_qpl.QPL(container={container!r})",
                OURS,
                codec.encode,
                codec.decode,
                path,
                label if path == "hardware" else "CPU",
                container,
                count,
                gzip=container == "gzip",
                zarr3=f"numcodecs_qpl.zarr.QPL(container={container!r})",
            )


def _peers(threads: int) -> Iterator[Contender]:
    for level in (1, 6):
        yield _numcodec(
            f"gzip {level}", "deflate", numcodecs.GZip(level), f"zarr.codecs.GzipCodec(level={level})", gzip=True
        )
    yield _numcodec("zlib 1", "deflate", numcodecs.Zlib(1), "zarr.codecs.numcodecs.Zlib(level=1)")
    if isal_is_installed():
        yield from _isal()
    for level in (1, 3, 9):
        yield _numcodec(f"zstd {level}", "zstd", numcodecs.Zstd(level), f"zarr.codecs.ZstdCodec(level={level})")
    yield _numcodec("lz4", "LZ4", numcodecs.LZ4(), "zarr.codecs.numcodecs.LZ4()")
    for count in sorted({1, threads}):
        yield from _blosc(count, "shuffle")


def _blosc(threads: int, shuffle: str) -> Iterator[Contender]:
    """Yield Blosc's codecs, with its own shuffle or without ("noshuffle")."""
    marks = [", no shuffle"] * (shuffle == "noshuffle") + [f", {threads} threads"] * (threads > 1)
    for name, family, cname, level in (("blosc lz4", "LZ4", "lz4", 5), ("blosc zstd 1", "zstd", "zstd", 1)):
        codec = numcodecs.Blosc(cname, level, getattr(numcodecs.Blosc, shuffle.upper()))
        settings = f"cname={cname!r}, clevel={level}, shuffle="
        yield Contender(
            "".join([name, *marks]),
            f"numcodecs.Blosc({settings}numcodecs.Blosc.{shuffle.upper()})",
            family,
            codec.encode,
            codec.decode,
            threads=threads,
            zarr3=f"zarr.codecs.BloscCodec({settings}{shuffle!r})",
        )


def isal_is_installed() -> bool:
    """Return True if PyPI's isal, an optional peer, can be measured."""
    return find_spec("isal") is not None


def _isal() -> Iterator[Contender]:
    from isal import igzip, isal_zlib

    for level in (0, 1, 2, 3):
        yield Contender(
            f"isal gzip {level}",
            f"isal.igzip.compress(chunk, {level}), isal.isal_zlib.decompress(chunk, wbits=31)",
            "deflate",
            partial(igzip.compress, compresslevel=level),
            partial(isal_zlib.decompress, wbits=isal_zlib.MAX_WBITS + 16),  # gzip of one member
            gzip=True,
        )


def _numcodec(name: str, family: str, codec: Any, zarr3: str, *, gzip: bool = False) -> Contender:
    return Contender(name, f"numcodecs.{codec!r}", family, codec.encode, codec.decode, gzip=gzip, zarr3=zarr3)
