"""The codec ids ``gzip`` and ``zlib`` of numcodecs and zarr, served by this package.

This package inflates chunks of other programs, and writes chunks at the level in their metadata.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

import numcodecs.gzip
import numcodecs.registry
import numcodecs.zlib
from numcodecs.abc import Codec

from numcodecs_qpl._core import MAX_LEVEL, Memory, path_in_force
from numcodecs_qpl._core.arguments import as_choice, as_index
from numcodecs_qpl.codec import DEFAULT_BLOCK_SIZE
from numcodecs_qpl.containers import Reader, gzip, zlib

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import BufferLike, Out
    from numcodecs_qpl.containers import Leveled

CodecId = Literal["gzip", "zlib"]
CompressSetting = Literal["auto", "software"]

COMPRESS_SETTINGS: tuple[CompressSetting, ...] = ("auto", "software")

_DEFAULT_LEVEL = 6
"""The level that zlib uses for -1."""


class _Served(Codec):  # type: ignore[misc]
    """Common part of `GZip` and `Zlib`, which are also subclasses of numcodecs' classes."""

    def __init__(self, level: int = 1) -> None:
        super().__init__(level)
        warn_of_zarrs()

    def expect(self, size: int) -> None:
        """Set the expected inflated size of the next chunk, in bytes. A wrong number costs time only."""
        _reader(self).size_hint = size

    def __reduce__(self) -> tuple[Any, ...]:
        return numcodecs.registry.get_codec, (self.get_config(),)  # so that a process without this package can read it


class GZip(_Served, numcodecs.gzip.GZip):  # type: ignore[misc]
    """Replacement for numcodecs' GZip, with the same config and the same results; the two compare equal.

    In software, level 0 stores, and levels 1 to 9 are libdeflate's; -1 is level 6. An IAA has one level, which stands
    for all levels but 0, unless `numcodecs_qpl.enable` was called with ``compress="software"``.
    """

    def encode(self, buf: BufferLike) -> bytes:
        """Compress a chunk of any size into one gzip member."""
        return _encode(gzip, buf, self.level)

    @overload
    def decode(self, buf: BufferLike, out: None = None) -> bytes: ...

    @overload
    def decode(self, buf: BufferLike, out: Out) -> Out: ...

    def decode(self, buf: BufferLike, out: Out | None = None) -> bytes | Out:
        """Inflate a chunk with any number of members. An `out` that is too large is filled in part."""
        return _decode(gzip, buf, out, _reader(self))


class Zlib(_Served, numcodecs.zlib.Zlib):  # type: ignore[misc]
    """Replacement for numcodecs' Zlib, with the same config and the same results; the two compare equal.

    Levels are as in `GZip`.
    """

    def encode(self, buf: BufferLike) -> bytes:
        """Compress a chunk of any size into one zlib stream."""
        return _encode(zlib, buf, self.level)

    @overload
    def decode(self, buf: BufferLike, out: None = None) -> bytes: ...

    @overload
    def decode(self, buf: BufferLike, out: Out) -> Out: ...

    def decode(self, buf: BufferLike, out: Out | None = None) -> bytes | Out:
        """Inflate a chunk. Bytes after the stream are ignored."""
        return _decode(zlib, buf, out, _reader(self))


def _encode(container: Leveled, buf: BufferLike, level: Any) -> bytes:
    src = Memory(buf, "buf")
    level = as_index(level, "level", -1, MAX_LEVEL)
    if level and _now.compress == "auto" and path_in_force() == "hardware":
        return container.encode(src, True, DEFAULT_BLOCK_SIZE)
    return container.encode_at_level(src, _DEFAULT_LEVEL if level < 0 else level)


def _decode(container: Leveled, buf: BufferLike, out: Out | None, reader: Reader) -> bytes | Out:
    src = Memory(buf, "buf")
    if out is None:
        return container.decode(src, None, reader, lenient=True)
    target = Memory(out, "out", True)
    target.check_apart(src)
    container.decode(src, target, reader, lenient=True)
    return out


_shared_reader = Reader()


def _reader(codec: Codec) -> Reader:
    """Return the codec's reader. Objects of numcodecs' own classes share one: a pickle contains all attributes."""
    if not isinstance(codec, _Served):
        return _shared_reader
    reader: Reader = codec.__dict__.setdefault("_reader", Reader())
    return reader


class _Name(NamedTuple):
    """A codec id that can be served.

    Attributes
    ----------
    ours, theirs : class
        The codec's class here and in numcodecs.
    zarr : str or None
        The codec's key in zarr's configuration, if it is one of zarr's core codecs.
    """

    ours: type[Codec]
    theirs: type[Codec]
    zarr: str | None


_ZARR_KEY = "codecs.gzip"
_NAMES: dict[CodecId, _Name] = {
    "gzip": _Name(GZip, numcodecs.gzip.GZip, _ZARR_KEY),
    "zlib": _Name(Zlib, numcodecs.zlib.Zlib, None),
}
_OURS_IN_ZARR = "numcodecs_qpl.zarr.GzipCodec"
"""Value of zarr's configuration for this package's class. zarr finds the class by its entry point."""
_ZARRS_OWN = "zarr.codecs.gzip.GzipCodec"


class _State(NamedTuple):
    names: tuple[CodecId, ...] = ()
    compress: CompressSetting = "auto"
    instances: bool = False


_switch = threading.RLock()
_now = _State()
_undo: list[Callable[[], None]] = []
"""Functions that restore the previous state of numcodecs and zarr."""


class Enabled:
    """Result of `enable`, a context manager: its end restores the previous state."""

    def __init__(self, before: _State) -> None:
        self._before = before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _switch_to(self._before)


def enable(*names: CodecId, compress: CompressSetting = "auto", instances: bool = False) -> Enabled:
    """Encode and decode codec ids of numcodecs and zarr with this package, in this process.

    This applies to codecs that are made from metadata afterwards: call `enable` first, then open arrays. Other
    processes have to call it themselves, or import `numcodecs_qpl.enabled`. A second call with the same arguments
    changes nothing. Otherwise its names are added to those that are served, and its other arguments replace the earlier
    ones.

    Parameters
    ----------
    *names : {"gzip", "zlib"}
        Codec ids of numcodecs. They are used by zarr v2, by ``numcodecs.gzip`` and ``numcodecs.zlib`` in zarr v3, and
        by references (kerchunk, VirtualiZarr, icechunk). "gzip" includes zarr v3's core codec. The default is both.
    compress : {"auto", "software"}
        "software" compresses on the CPU even if an IAA can be used. The level of the metadata then always applies.
    instances : bool
        Serve existing codec objects of numcodecs' and zarr's classes too: those of arrays that are already open, and
        those that code constructs, such as ``numcodecs.Zlib(4)`` or ``zarr.codecs.GzipCodec()``. This replaces two
        methods of ``numcodecs.GZip`` and ``numcodecs.Zlib``.

    Returns
    -------
    context manager
        The end of ``with enable():`` restores the previous state. The result may also be ignored.

    Raises
    ------
    TypeError
        If `instances` is not a bool.
    ValueError
        If a name or `compress` is none of these.
    RuntimeError
        If `instances` is true and zarr's GzipCodec does not work through numcodecs. Nothing changes in this case.
    """
    for name in names:
        as_choice(name, "name", _NAMES)
    as_choice(compress, "compress", COMPRESS_SETTINGS)
    if not isinstance(instances, bool):
        raise TypeError(f"instances is {instances!r}; it must be True or False")
    with _switch:
        before = _now
        wanted = names or tuple(_NAMES)
        served = tuple(name for name in _NAMES if name in wanted or name in before.names)
        if instances and "gzip" in served:
            _check_zarr_works_through_numcodecs()
        _switch_to(_State(served, compress, instances))
    warn_of_zarrs()
    return Enabled(before)


def disable(*names: CodecId) -> None:
    """Restore the codecs of numcodecs and zarr; by default all that are served. Open arrays keep their codecs.

    What other code has put in place since `enable`, under the same id or key, stays.

    Raises
    ------
    ValueError
        If a name is neither "gzip" nor "zlib".
    """
    for name in names:
        as_choice(name, "name", _NAMES)
    with _switch:
        left = tuple(name for name in _now.names if names and name not in names)
        _switch_to(_now._replace(names=left) if left else _State())
        if "gzip" not in left and (zarr := _zarr_3()) and zarr.config.get(_ZARR_KEY) == _OURS_IN_ZARR:
            zarr.config.set({_ZARR_KEY: _ZARRS_OWN})  # the environment chose this package's class


def enabled() -> tuple[CodecId, ...]:
    """Return the codec ids that are served, sorted; see `enable`."""
    return _now.names


def _switch_to(state: _State) -> None:
    """Restore numcodecs and zarr, then apply `state`."""
    global _now
    with _switch:
        # First, as importing zarr may fail.
        zarr = _zarr_3() if any(_NAMES[name].zarr for name in state.names) else None
        while _undo:
            _undo.pop()()
        for name in state.names:
            _serve(name, _NAMES[name], zarr, state.instances)
        _now = state


def _serve(name: CodecId, served: _Name, zarr: Any, instances: bool) -> None:
    def get() -> Any:
        return numcodecs.registry.codec_registry.get(name, served.theirs)

    _replace(get, lambda codec: numcodecs.registry.register_codec(codec, name), served.ours)
    if served.zarr and zarr:
        key = served.zarr
        _replace(lambda: zarr.config.get(key), lambda path: zarr.config.set({key: path}), _OURS_IN_ZARR)
    if instances:
        for method in ("encode", "decode"):
            _replace(
                partial(getattr, served.theirs, method),
                partial(setattr, served.theirs, method),
                vars(served.ours)[method],
            )


def _replace(get: Callable[[], Any], put: Callable[[Any], object], ours: Any) -> None:
    """Put `ours` in a place of numcodecs or zarr. `_undo` gets a function that restores it if it is still there."""
    before = get()
    put(ours)

    def restore() -> None:
        if get() == ours:
            put(before)

    _undo.append(restore)


def _zarr_3() -> Any:
    """Return zarr if it is installed and has a registry of codecs (version 3), else None."""
    if find_spec("zarr") is None:
        return None
    import zarr

    return zarr if find_spec("zarr.registry") else None


def _check_zarr_works_through_numcodecs() -> None:
    """Raise RuntimeError if replacing methods of numcodecs' GZip would not serve zarr's GzipCodec."""
    zarr = _zarr_3()
    if zarr is None:
        return
    from zarr.codecs import GzipCodec

    # In zarr 3.1.6 and 3.4.2, this attribute does the codec's work.
    if not isinstance(getattr(GzipCodec(), "_gzip_codec", None), numcodecs.gzip.GZip):
        raise RuntimeError(
            f"instances=True cannot serve the GzipCodec objects of zarr {zarr.__version__}: they do not work through "
            "numcodecs' GZip, as those of zarr 3.1.6 to 3.4.2 do; call enable() without it before you open arrays"
        )


_warned_of_zarrs = False


def warn_of_zarrs() -> None:
    """Warn once if zarr uses the codec pipeline of zarrs, which decodes in Rust: this package is not used there."""
    global _warned_of_zarrs
    zarr = sys.modules.get("zarr")
    pipeline = str(zarr.config.get("codec_pipeline.path", "")) if zarr and hasattr(zarr, "config") else ""
    if pipeline.startswith("zarrs.") and not _warned_of_zarrs:
        _warned_of_zarrs = True
        warnings.warn(
            f"zarr's codec pipeline is {pipeline}, which decodes by itself: numcodecs-qpl serves no chunk there. To "
            "use numcodecs-qpl, set zarr's codec_pipeline.path back to zarr's own pipeline",
            RuntimeWarning,
            stacklevel=3,
        )
