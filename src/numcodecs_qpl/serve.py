"""The codec ids ``gzip`` and ``zlib`` of numcodecs and zarr, served by this package.

Chunks that other programs wrote are inflated here, and chunks are written at the level that their metadata names.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
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
    """The common part of `GZip` and `Zlib`, which are classes of numcodecs, too."""

    def __init__(self, level: int = 1) -> None:
        super().__init__(level)
        warn_of_zarrs()

    def expect(self, size: int) -> None:
        """Set the number of bytes that the next chunk inflates to. A wrong number costs time only."""
        _reader(self).size_hint = size

    def __reduce__(self) -> tuple[Any, ...]:
        return numcodecs.registry.get_codec, (self.get_config(),)  # so that a process without this package can read it


class GZip(_Served, numcodecs.gzip.GZip):  # type: ignore[misc]
    """numcodecs' GZip, done by this package: the same config, the same results, and equal where codecs are compared.

    In software, level 0 stores, and levels 1 to 9 are libdeflate's; -1 is level 6. On an IAA, all levels but 0 are the
    device's one level, unless `numcodecs_qpl.enable` was called with ``compress="software"``.
    """

    def encode(self, buf: BufferLike) -> bytes:
        """Compress a chunk of any size into one gzip member."""
        return _encode(gzip, buf, self.level)

    @overload
    def decode(self, buf: BufferLike, out: None = None) -> bytes: ...

    @overload
    def decode(self, buf: BufferLike, out: Out) -> Out: ...

    def decode(self, buf: BufferLike, out: Out | None = None) -> bytes | Out:
        """Inflate a chunk of any number of members. An `out` that is too large is filled in part."""
        return _decode(gzip, buf, out, _reader(self))


class Zlib(_Served, numcodecs.zlib.Zlib):  # type: ignore[misc]
    """numcodecs' Zlib, done by this package: the same config, the same results, and equal where codecs are compared.

    Levels are those of `GZip`.
    """

    def encode(self, buf: BufferLike) -> bytes:
        """Compress a chunk of any size into one zlib stream."""
        return _encode(zlib, buf, self.level)

    @overload
    def decode(self, buf: BufferLike, out: None = None) -> bytes: ...

    @overload
    def decode(self, buf: BufferLike, out: Out) -> Out: ...

    def decode(self, buf: BufferLike, out: Out | None = None) -> bytes | Out:
        """Inflate a chunk. Bytes that follow the stream are ignored."""
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
    """The codec's reader. Codecs of numcodecs' own classes share one, as they are pickled with all attributes."""
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
"""Also the name under which zarr finds the class by its entry point."""
_ZARRS_OWN = "zarr.codecs.gzip.GzipCodec"


class _State(NamedTuple):
    names: tuple[CodecId, ...] = ()
    compress: CompressSetting = "auto"
    instances: bool = False


_switch = threading.RLock()
_now = _State()
_undo: list[Callable[[], None]] = []
"""Functions that restore numcodecs and zarr as they were."""


class Enabled:
    """The result of `enable`: as a context manager, it restores at its end what was served before."""

    def __init__(self, before: _State) -> None:
        self._before = before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _switch_to(self._before)


def enable(*names: CodecId, compress: CompressSetting = "auto", instances: bool = False) -> Enabled:
    """Serve codec ids of numcodecs and zarr by this package, in this process, both ways.

    It holds for codecs that are made from metadata afterwards: enable first, then open arrays. Other processes have to
    call it themselves, or import `numcodecs_qpl.enabled`. Calling it again with the same arguments changes nothing;
    names are added to those that are served, and the other arguments replace those of the call before.

    Parameters
    ----------
    *names : {"gzip", "zlib"}
        numcodecs' codec ids, for zarr v2, for ``numcodecs.gzip`` and ``numcodecs.zlib`` in zarr v3, and for references
        (kerchunk, VirtualiZarr, icechunk). "gzip" serves zarr v3's core codec, too. The default is both.
    compress : {"auto", "software"}
        "software" writes on the CPU even if an IAA can be used. The level of the metadata is then obeyed everywhere.
    instances : bool
        Serve codec objects of numcodecs' and zarr's own classes, too: those of arrays that are already open, and those
        that are made by hand, such as ``numcodecs.Zlib(4)`` or ``zarr.codecs.GzipCodec()``. This replaces two methods
        of ``numcodecs.GZip`` and ``numcodecs.Zlib``.

    Returns
    -------
    context manager
        ``with enable():`` restores at its end what was served before. It need not be used as such.

    Raises
    ------
    ValueError
        If a name or `compress` is none of these.
    RuntimeError
        If `instances` is true and zarr's GzipCodec does not work through numcodecs. Nothing has changed then.
    """
    for name in names:
        as_choice(name, "name", _NAMES)
    as_choice(compress, "compress", COMPRESS_SETTINGS)
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
    """Give codec ids back to numcodecs and zarr; all that are served by default. Arrays that are open keep theirs.

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
            zarr.config.set({_ZARR_KEY: _ZARRS_OWN})  # the environment chose ours


def enabled() -> tuple[CodecId, ...]:
    """Names of the codec ids that are served, sorted; see `enable`."""
    return _now.names


def _switch_to(state: _State) -> None:
    """Undo what is done, and do what `state` asks for."""
    global _now
    with _switch:
        while _undo:
            _undo.pop()()
        for name in state.names:
            _serve(name, _NAMES[name], state.instances)
        _now = state


def _serve(name: CodecId, served: _Name, instances: bool) -> None:
    registry = numcodecs.registry.codec_registry
    before = registry.get(name, served.theirs)
    numcodecs.registry.register_codec(served.ours, name)
    _undo.append(lambda: numcodecs.registry.register_codec(before, name))
    if served.zarr and (zarr := _zarr_3()):
        key = served.zarr
        configured = zarr.config.get(key)
        if configured != _OURS_IN_ZARR:  # the environment may have chosen it
            zarr.config.set({key: _OURS_IN_ZARR})
            _undo.append(lambda: zarr.config.set({key: configured}))
    if instances:
        for method in ("encode", "decode"):
            own = vars(served.theirs)[method]
            setattr(served.theirs, method, vars(served.ours)[method])
            _undo.append(lambda method=method, own=own: setattr(served.theirs, method, own))  # type: ignore[misc]


def _zarr_3() -> Any:
    """zarr, if it is installed and has a registry of codecs, as version 3 has."""
    if find_spec("zarr") is None:
        return None
    import zarr

    return zarr if find_spec("zarr.registry") else None


def _check_zarr_works_through_numcodecs() -> None:
    """Raise a RuntimeError if zarr's GzipCodec would not be served by replacing methods of numcodecs' GZip."""
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
    """Warn once if zarr's codec pipeline is that of zarrs, which decodes in Rust: nothing is served there."""
    global _warned_of_zarrs
    zarr = sys.modules.get("zarr")
    pipeline = str(zarr.config.get("codec_pipeline.path", "")) if zarr and hasattr(zarr, "config") else ""
    if pipeline.startswith("zarrs.") and not _warned_of_zarrs:
        _warned_of_zarrs = True
        warnings.warn(
            f"zarr's codec pipeline is {pipeline}, which decodes by itself: numcodecs-qpl serves no chunk there. To be "
            "served, set zarr's codec_pipeline.path back to zarr's own pipeline",
            RuntimeWarning,
            stacklevel=3,
        )
