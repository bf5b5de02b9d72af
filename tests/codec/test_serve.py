"""numcodecs' and zarr's gzip and zlib served by this package: what is written and read, and when."""

from __future__ import annotations

import copy
import gzip
import itertools
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import damage
import emulated_iaa
import numcodecs
import numcodecs.registry
import numpy as np
import oracle
import pytest
import zarr
from programs import run_python
from zarr.codecs import GzipCodec
from zarr.core.buffer import default_buffer_prototype

import numcodecs_qpl
from numcodecs_qpl import serve
from numcodecs_qpl.bench.data import DATA_SETS
from numcodecs_qpl.zarr import GzipCodec as OurGzipCodec

OURS: dict[str, Any] = {"gzip": serve.GZip, "zlib": serve.Zlib}
THEIRS: dict[str, Any] = {"gzip": numcodecs.GZip, "zlib": numcodecs.Zlib}
INFLATE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "zlib": zlib.decompress}
LEVELS = range(10)
DATA = np.cumsum(np.random.default_rng(6).integers(-3, 4, (120, 130)), axis=1, dtype="i4")

ids = pytest.mark.parametrize("name", OURS)


@pytest.fixture(autouse=True)
def not_served() -> Iterator[None]:
    """Each test begins and ends without service, and with zarr's own gzip."""
    assert numcodecs_qpl.enabled() == ()
    yield
    numcodecs_qpl.disable()


def done(what: Literal["compressed", "decompressed"] = "decompressed") -> int:
    return numcodecs_qpl.stats()["software"][what]


# ---- The codecs -------------------------------------------------------------------------------------------------


@ids
def test_a_codec_looks_like_numcodecs_own(name: str) -> None:
    for level in (-1, *LEVELS):
        ours, theirs = OURS[name](level), THEIRS[name](level)
        assert ours.get_config() == theirs.get_config() == {"id": name, "level": level}
        assert repr(ours) == repr(theirs)
        assert ours == theirs
        assert theirs == ours
        assert isinstance(ours, THEIRS[name])
    assert OURS[name]() == THEIRS[name]()
    assert OURS[name](1) != THEIRS[name](2)


def test_a_codec_is_unpickled_as_numcodecs_own_where_this_package_is_not(tmp_path: Path) -> None:
    codecs = [OURS[name](7) for name in OURS]
    for codec in codecs:
        codec.decode(codec.encode(b"what it remembers is not pickled"))
    (tmp_path / "codecs").write_bytes(pickle.dumps(codecs))
    code = (
        "import sys; sys.modules['numcodecs_qpl'] = None; import pickle, pathlib; "
        "print(repr(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())))"
    )
    words = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "codecs")]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    assert printed == "[GZip(level=7), Zlib(level=7)]\n"


@ids
def test_a_codec_is_unpickled_as_what_is_served_there(name: serve.CodecId) -> None:
    pickled = pickle.dumps(OURS[name](7))
    assert type(pickle.loads(pickled)) is THEIRS[name]
    with numcodecs_qpl.enable(name):
        assert type(pickle.loads(pickled)) is OURS[name]


@ids
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("data_set", DATA_SETS)
def test_a_chunk_is_no_larger_than_zlibs_at_the_same_level(name: str, data_set: str, level: int) -> None:
    data = DATA_SETS[data_set](1 << 18)
    encoded, theirs = OURS[name](level).encode(data), THEIRS[name](level).encode(data)
    assert len(encoded) <= 1.02 * len(theirs)
    assert INFLATE[name](encoded) == data
    if name == "zlib":
        assert encoded[:2] == theirs[:2]
    else:
        # The magic number, deflate, no flags, no time, XFL as in RFC 1952, no operating system; then one member.
        assert encoded[:10] == b"\x1f\x8b\x08\0\0\0\0\0" + {1: b"\4", 9: b"\2"}.get(level, b"\0") + b"\xff"
        member = zlib.decompressobj(31)
        member.decompress(encoded)
        assert (member.eof, member.unused_data) == (True, b"")


@ids
def test_levels_differ_and_level_minus_1_is_level_6(name: str) -> None:
    data = DATA_SETS["text"](1 << 18)
    sizes = [len(OURS[name](level).encode(data)) for level in LEVELS]
    assert sizes[0] > len(data) > sizes[1] > sizes[6] >= sizes[9]
    assert OURS[name](-1).encode(data) == OURS[name](6).encode(data)


@ids
@pytest.mark.parametrize("level", [-2, 10, 1.5, None, "6"])
def test_a_wrong_level_is_an_error_that_names_it(name: str, level: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="level is "):
        OURS[name](level).encode(b"abc")


@ids
@pytest.mark.parametrize("data", [b"", b"\0", DATA, np.zeros((0, 3)), np.asfortranarray(DATA), DATA.view("M8[s]")])
def test_chunks_of_every_kind_come_back_through_numcodecs_own(name: str, data: Any) -> None:
    plain = np.asarray(data).tobytes("A") if isinstance(data, np.ndarray) else data
    for level in (0, 1, 6):
        encoded = OURS[name](level).encode(data)
        assert THEIRS[name]().decode(encoded) == plain
        assert OURS[name]().decode(THEIRS[name](level).encode(data)) == plain


Outcome = bytes | type[Exception]


def outcome(codec: Any, chunk: bytes, room: int | None) -> Outcome:
    """Return a codec's result for a chunk: bytes, those of an `out` of `room` bytes, or the error."""
    out = None if room is None else bytearray(b"\xaa" * room)
    try:
        decoded = codec.decode(chunk, out)
    except Exception:
        return Exception
    return bytes(decoded if out is None else out)


def is_ill_formed(name: str, chunk: bytes) -> bool:
    """True for damage on which inflaters differ."""
    try:
        oracle.READERS[name](chunk)
    except oracle.RefusedError as error:
        return error.ill_formed
    return False


@ids
def test_every_chunk_has_the_same_outcome_as_with_numcodecs_own(name: serve.CodecId) -> None:
    count = 0
    for what, chunk, data in itertools.chain(damage.all_cases(name), unusual_chunks(name)):
        rooms = [None, len(data)]
        if count % 10 == 0:  # an out of a wrong size is an error with nearly every chunk
            rooms += [len(data) + 3, max(len(data) - 1, 0)]
        for room in rooms:
            ours, theirs = outcome(OURS[name](), chunk, room), outcome(THEIRS[name](), chunk, room)
            assert ours == theirs or is_ill_formed(name, chunk), (what, room, ours, theirs)
        count += 1
    assert count > 2000


def unusual_chunks(name: str) -> Iterator[tuple[str, bytes, bytes]]:
    """Data that Python's standard library reads, and this package's own codec refuses."""
    data = b"unusual" * 20
    stream = THEIRS[name](6).encode(data)
    yield "nothing", b"", b""
    if name == "zlib":
        yield "junk behind", stream + b"junk", data
        yield "two streams", stream + stream, data
        return
    raw = stream[10:]
    yield "reserved flags", stream[:3] + b"\xe0" + stream[4:], data
    yield "wrong CRC-16", stream[:3] + b"\x02" + stream[4:10] + b"\0\0" + raw, data
    yield "an empty extra field", stream[:3] + b"\x04" + stream[4:10] + b"\0\0" + raw, data
    yield "a name", stream[:3] + b"\x08" + stream[4:10] + b"name\0" + raw, data
    yield "two members", stream + stream, data + data
    yield "zeros between members", stream + bytes(7) + stream + bytes(3), data + data
    yield "junk behind", stream + b"junk", data


@ids
def test_out_is_filled_in_place(name: str) -> None:
    chunk = THEIRS[name](5).encode(DATA)
    out = np.empty_like(DATA)
    assert OURS[name]().decode(chunk, out) is out
    assert np.array_equal(out, DATA)


@ids
def test_an_out_that_overlaps_the_chunk_is_an_error(name: str) -> None:
    memory = bytearray(THEIRS[name](0).encode(b"a" * 100) + bytes(50))
    with pytest.raises(ValueError, match="out overlaps buf"):
        OURS[name]().decode(memory[:0] or memoryview(memory)[:130], memoryview(memory)[:100])


# ---- Sizes that are known beforehand ----------------------------------------------------------------------------


SIZE = (1 << 20) + 1000
"""Bytes of a chunk. Doubling the room for a result whose size is not known would end far above that."""
SLACK = 10_000
"""Bytes that decoding takes besides its result."""


def memory_for(codec: Any, chunk: bytes, out: Any = None) -> int:
    """The most bytes that decoding a chunk has allocated at once."""
    tracemalloc.start()
    try:
        codec.decode(chunk, out)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@ids
def test_the_size_is_known_from_out(name: str) -> None:
    assert memory_for(OURS[name](), THEIRS[name](5).encode(bytes(SIZE)), bytearray(SIZE)) < SLACK


def test_the_size_of_a_gzip_chunk_is_known_from_its_trailer() -> None:
    codec = serve.GZip()
    for size in (SIZE, 2 * SIZE, SIZE):
        assert size <= memory_for(codec, gzip.compress(bytes(size))) < size + SLACK


def test_the_size_of_a_zlib_chunk_is_taken_from_the_chunk_before() -> None:
    codec = serve.Zlib()
    chunk = zlib.compress(bytes(SIZE))
    assert memory_for(codec, chunk) > SIZE + SLACK
    assert SIZE <= memory_for(codec, chunk) < SIZE + SLACK


def test_a_size_above_32_bits_is_known_from_zarrs_chunk_size() -> None:
    # The trailer has the lower 32 bits of a size. This chunk has 1 KiB, and deflate's largest ratio limits the room.
    chunk = gzip.compress(bytes(1 << 10))
    codec = serve.GZip()
    codec.expect((1 << 32) + (1 << 10))
    assert 1032 * (len(chunk) - 20) < memory_for(codec, chunk) < 1032 * len(chunk) + SLACK
    assert codec.decode(chunk) == bytes(1 << 10)


def test_zarr_tells_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(serve.GZip, "expect", lambda self, size: told.append(size))
    array = zarr.create_array({}, data=DATA, chunks=(60, 130), compressors=OurGzipCodec())
    assert np.array_equal(array[:], DATA)
    assert told == [60 * 130 * 4] * 2


def test_a_chunk_of_zarr_3_0_has_numpys_dtype() -> None:
    spec: Any = SimpleNamespace(shape=DATA.shape, dtype=DATA.dtype, prototype=default_buffer_prototype())
    chunk = default_buffer_prototype().buffer.from_bytes(gzip.compress(DATA.tobytes()))
    assert OurGzipCodec()._decode_sync(chunk, spec).to_bytes() == DATA.tobytes()


@ids
@pytest.mark.parametrize("size", [1, 1000, 1 << 24])
def test_a_wrong_size_changes_no_byte(name: str, size: int) -> None:
    codec = OURS[name]()
    for data in (DATA.tobytes(), b"", b"x"):
        serve._reader(codec).size_hint = size
        assert codec.decode(THEIRS[name](5).encode(data)) == data


# ---- Enabling ---------------------------------------------------------------------------------------------------


def registered(name: str) -> Any:
    return type(numcodecs.get_codec({"id": name, "level": 1}))


def test_enable_serves_both_and_disable_gives_them_back() -> None:
    configured = zarr.config.get("codecs.gzip")
    for _ in range(2):
        numcodecs_qpl.enable()
        numcodecs_qpl.enable()
        assert numcodecs_qpl.enabled() == ("gzip", "zlib")
        assert registered("gzip") is serve.GZip
        assert registered("zlib") is serve.Zlib
        assert zarr.registry.get_codec_class("gzip") is OurGzipCodec
        numcodecs_qpl.disable()
        numcodecs_qpl.disable()
        assert numcodecs_qpl.enabled() == ()
        assert registered("gzip") is numcodecs.GZip
        assert registered("zlib") is numcodecs.Zlib
        assert zarr.registry.get_codec_class("gzip") is GzipCodec
        assert zarr.config.get("codecs.gzip") == configured


def test_names_are_added_and_taken_away_one_by_one() -> None:
    numcodecs_qpl.enable("zlib")
    assert numcodecs_qpl.enabled() == ("zlib",)
    assert registered("gzip") is numcodecs.GZip
    assert zarr.registry.get_codec_class("gzip") is GzipCodec
    numcodecs_qpl.enable("gzip")
    assert numcodecs_qpl.enabled() == ("gzip", "zlib")
    numcodecs_qpl.disable("zlib")
    assert numcodecs_qpl.enabled() == ("gzip",)
    assert registered("zlib") is numcodecs.Zlib
    assert registered("gzip") is serve.GZip


def test_a_context_restores_what_was_served_before() -> None:
    numcodecs_qpl.enable("zlib", compress="software")
    with numcodecs_qpl.enable():
        assert (numcodecs_qpl.enabled(), serve._now.compress) == (("gzip", "zlib"), "auto")
    assert (numcodecs_qpl.enabled(), serve._now.compress) == (("zlib",), "software")


def test_a_class_that_was_registered_before_comes_back() -> None:
    class Other(numcodecs.Zlib):  # type: ignore[misc]
        pass

    numcodecs.registry.register_codec(Other, "zlib")
    try:
        with numcodecs_qpl.enable():
            assert registered("zlib") is serve.Zlib
        assert registered("zlib") is Other
    finally:
        numcodecs.registry.register_codec(numcodecs.Zlib)


def test_what_others_put_in_place_afterwards_stays() -> None:
    class Other(numcodecs.Zlib):  # type: ignore[misc]
        pass

    own = numcodecs.Zlib.encode
    numcodecs_qpl.enable(instances=True)
    numcodecs.registry.register_codec(Other, "zlib")
    numcodecs.Zlib.encode = lambda self, buf: b"others"
    try:
        with zarr.config.set({"codecs.gzip": "others.Gzip"}):
            numcodecs_qpl.disable()
            assert registered("zlib") is Other
            assert zarr.config.get("codecs.gzip") == "others.Gzip"
            assert numcodecs.Zlib().encode(b"") == b"others"
            assert registered("gzip") is numcodecs.GZip
    finally:
        numcodecs.Zlib.encode = own
        numcodecs.registry.register_codec(numcodecs.Zlib)
        zarr.config.set({"codecs.gzip": serve._ZARRS_OWN})


@pytest.mark.parametrize("call", [numcodecs_qpl.enable, numcodecs_qpl.disable])
@pytest.mark.parametrize("name", ["zstd", "", None, ["gzip"]])
def test_a_wrong_name_is_an_error_and_changes_nothing(call: Any, name: Any) -> None:
    with pytest.raises(ValueError, match=r"name is .*; it must be one of gzip, zlib"):
        call("gzip", name)
    assert numcodecs_qpl.enabled() == ()


def test_a_wrong_compress_setting_is_an_error_and_changes_nothing() -> None:
    with pytest.raises(ValueError, match="compress is 'hardware'; it must be one of auto, software"):
        numcodecs_qpl.enable(compress="hardware")  # type: ignore[arg-type]
    assert numcodecs_qpl.enabled() == ()


def test_instances_must_be_a_bool() -> None:
    with pytest.raises(TypeError, match="instances is 'no'; it must be True or False"):
        numcodecs_qpl.enable(instances="no")  # type: ignore[arg-type]
    assert numcodecs_qpl.enabled() == ()


def test_threads_that_switch_at_once_leave_all_as_it_was() -> None:
    array = zarr.create_array({}, data=DATA, chunks=(30, 65), compressors=GzipCodec())
    methods = vars(numcodecs.GZip)["encode"], vars(numcodecs.GZip)["decode"]

    def switch_and_read(turn: int) -> bool:
        if turn % 2:
            numcodecs_qpl.enable(instances=True)
        else:
            numcodecs_qpl.disable()
        return np.array_equal(array[:], DATA)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(switch_and_read, range(100)))
    numcodecs_qpl.disable()
    assert (vars(numcodecs.GZip)["encode"], vars(numcodecs.GZip)["decode"]) == methods
    assert registered("gzip") is numcodecs.GZip


def test_enable_works_without_zarr() -> None:
    code = (
        "import sys; sys.modules['zarr'] = None; import numcodecs_qpl, numcodecs; "
        "numcodecs_qpl.enable(instances=True); "
        "print(numcodecs_qpl.enabled(), numcodecs.get_codec({'id': 'zlib'}).__module__)"
    )
    assert run_python(code).stdout == "('gzip', 'zlib') numcodecs_qpl.serve\n"


def test_a_zarr_that_cannot_be_imported_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "zarr.py").write_text("raise ImportError('damaged')")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import numcodecs, numcodecs_qpl
numcodecs_qpl.enable("zlib")
try:
    numcodecs_qpl.enable()
except ImportError as error:
    print(error, numcodecs_qpl.enabled(), numcodecs.get_codec({"id": "gzip"}).__module__)
"""
    assert run_python(code, tmp_path).stdout == "damaged ('zlib',) numcodecs.gzip\n"


def test_importing_the_module_enabled_enables_and_it_can_still_be_called() -> None:
    code = (
        "import numcodecs_qpl; assert numcodecs_qpl.enabled() == (); import numcodecs_qpl.enabled; "
        "print(numcodecs_qpl.enabled()); numcodecs_qpl.disable(); print(numcodecs_qpl.enabled())"
    )
    assert run_python(code).stdout == "('gzip', 'zlib')\n()\n"


def test_importing_the_module_enabled_warns_of_a_zarr_whose_instances_it_cannot_serve() -> None:
    code = """
import warnings, zarr.codecs, numcodecs_qpl
del zarr.codecs.GzipCodec._gzip_codec
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numcodecs_qpl.enabled
print(numcodecs_qpl.enabled(), [str(one.message).partition(" of ")[0] for one in caught])
"""
    assert run_python(code).stdout == "('gzip', 'zlib') ['instances=True cannot serve the GzipCodec objects']\n"


# ---- zarr -------------------------------------------------------------------------------------------------------


def test_zarrs_codec_looks_like_zarrs_own() -> None:
    ours, theirs = OurGzipCodec(level=4), GzipCodec(level=4)
    assert ours == theirs
    assert theirs == ours
    assert hash(ours) == hash(theirs)
    assert repr(ours) == repr(theirs)
    assert ours.to_dict() == theirs.to_dict() == {"name": "gzip", "configuration": {"level": 4}}
    assert ours != GzipCodec(level=5)
    assert ours != "gzip"
    with pytest.raises(ValueError, match="range"):
        OurGzipCodec(level=10)


def test_zarrs_codec_is_unpickled_as_what_is_configured_there() -> None:
    pickled = pickle.dumps(OurGzipCodec(level=4))
    assert type(pickle.loads(pickled)) is GzipCodec
    assert pickle.loads(pickled) == GzipCodec(level=4)
    with numcodecs_qpl.enable():
        assert type(pickle.loads(pickled)) is OurGzipCodec
        assert pickle.loads(pickled).level == 4


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_zarrs_codec_is_copied_as_what_it_is(copied: Callable[[OurGzipCodec], OurGzipCodec]) -> None:
    codec = copied(OurGzipCodec(level=4))
    assert type(codec) is OurGzipCodec
    assert codec.level == 4


def test_what_zarr_imports_to_find_gzip_needs_none_of_its_private_modules() -> None:
    # By the entry point, also where this package serves nothing: zarr would be left without gzip by an ImportError.
    code = """
import sys, zarr
class Refusing:
    def __getattr__(self, name):
        raise ImportError(name)
private = {name: Refusing() for name in sys.modules if name.startswith("zarr.core")}
assert "numcodecs_qpl.zarr" not in sys.modules and private
kept = {name: sys.modules[name] for name in private}
sys.modules.update(private)
import numcodecs_qpl.zarr
sys.modules.update(kept)
print(zarr.registry.get_codec_class("gzip").__module__)
"""
    assert run_python(code).stdout == "zarr.codecs.gzip\n"


def test_plain_zarr_reads_what_was_written(tmp_path: Path) -> None:
    before = done("compressed")
    by_name: Any = {"name": "gzip", "configuration": {"level": 9}}
    stores = {tmp_path / "chunks": None, tmp_path / "shards": (60, 130)}
    with numcodecs_qpl.enable():
        for store, shards in stores.items():
            zarr.create_array(store, data=DATA, chunks=(30, 65), shards=shards, compressors=by_name)
    assert done("compressed") == before + 16
    code = (
        "import sys, zarr; print(*(int(zarr.open_array(store)[:].sum()) for store in sys.argv[1:])); "
        "import numcodecs_qpl; print(numcodecs_qpl.stats()['software']['decompressed'])"
    )
    assert run_python(code, *stores).stdout == f"{DATA.sum()} {DATA.sum()}\n0\n"


def test_the_environment_alone_serves_zarrs_gzip_and_disable_ends_it(tmp_path: Path) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=(60, 130), compressors=GzipCodec())
    code = """
import sys, zarr
zarr.open_array(sys.argv[1])[:]
import numcodecs_qpl
served = numcodecs_qpl.stats()["software"]["decompressed"]
numcodecs_qpl.disable()
zarr.open_array(sys.argv[1])[:]
print(served, numcodecs_qpl.stats()["software"]["decompressed"])
"""
    assert run_python(code, tmp_path, ZARR_CODECS__GZIP="numcodecs_qpl.zarr.GzipCodec").stdout == "2 2\n"
    assert run_python(code, tmp_path).stdout == "0 0\n"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_open_array_is_served_with_instances_and_no_longer_afterwards(zarr_format: Any) -> None:
    codec: Any = GzipCodec() if zarr_format == 3 else numcodecs.Zlib(5)
    array = zarr.create_array({}, data=DATA, chunks=DATA.shape, compressors=codec, zarr_format=zarr_format)
    methods = {cls: dict(vars(cls)) for cls in THEIRS.values()}
    before = done("compressed"), done()
    with numcodecs_qpl.enable():
        assert np.array_equal(array[:], DATA)
    assert (done("compressed"), done()) == before
    with numcodecs_qpl.enable(instances=True):
        array[0, 0] = 5
        assert array[0, 0] == 5
    assert (done("compressed"), done()) == (before[0] + 1, before[1] + 2)  # a write of a part reads first
    array[0, 0] = 6
    assert array[0, 0] == 6
    assert done() == before[1] + 2
    assert {cls: dict(vars(cls)) for cls in THEIRS.values()} == methods


def test_instances_of_a_zarr_that_works_otherwise_are_refused_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(GzipCodec, "_gzip_codec")
    with pytest.raises(
        RuntimeError, match=rf"GzipCodec objects of zarr {zarr.__version__}: .* call enable\(\) without"
    ):
        numcodecs_qpl.enable(instances=True)
    assert numcodecs_qpl.enabled() == ()
    numcodecs_qpl.enable("zlib", instances=True)
    numcodecs_qpl.enable()  # by the registry it still works
    array = zarr.create_array({}, data=DATA, chunks=DATA.shape, compressors="auto")
    assert np.array_equal(array[:], DATA)
    assert type(OurGzipCodec()._codec) is serve.GZip


def test_the_pipeline_of_zarrs_is_named_in_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_warned_of_zarrs", False)
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        with pytest.warns(RuntimeWarning, match=r"zarrs\.ZarrsCodecPipeline, which decodes by itself"):
            numcodecs_qpl.enable()
        numcodecs_qpl.enable()  # a second warning would be an error
        serve.Zlib()


def test_the_pipeline_of_zarrs_that_is_set_later_is_met_when_an_array_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serve, "_warned_of_zarrs", False)
    zarr.create_array(tmp_path, data=DATA, chunks=DATA.shape, compressors=GzipCodec())
    numcodecs_qpl.enable()
    with (
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}),
        pytest.warns(RuntimeWarning, match="serves no chunk there"),
    ):
        OurGzipCodec.from_dict({"name": "gzip", "configuration": {"level": 5}})


# ---- On an IAA --------------------------------------------------------------------------------------------------

ON_HARDWARE = """
import numcodecs, numcodecs_qpl, numpy as np, sys, zlib, gzip
numcodecs_qpl.set_path("hardware")
data = np.arange(50_000, dtype="i4").tobytes()
def done():
    seen = numcodecs_qpl.stats()
    return tuple(seen[path][what] for path in ("hardware", "software") for what in ("compressed", "decompressed"))
"""


def test_an_iaa_writes_unless_software_is_asked_for_or_level_0() -> None:
    emulated_iaa.run(
        ON_HARDWARE
        + """
blocks = -(-len(data) // 65536)
for name, inflate in (("gzip", gzip.decompress), ("zlib", zlib.decompress)):
    for compress, level, expected in (
        ("auto", 6, (blocks, 0, 0, 0)), ("auto", 0, (0, 0, 1, 0)), ("software", 6, (0, 0, 1, 0))
    ):
        with numcodecs_qpl.enable(compress=compress):
            numcodecs_qpl.reset_stats()
            encoded = numcodecs.get_codec({"id": name, "level": level}).encode(data)
        assert done() == expected, (name, compress, level, done())
        assert inflate(encoded) == data
""",
        size=8,
    )


def test_chunks_with_long_distances_are_inflated_in_software_without_a_try_on_the_device() -> None:
    emulated_iaa.run(
        ON_HARDWARE
        + """
with numcodecs_qpl.enable():
    for name, encoded in (("gzip", gzip.compress(data, mtime=0)), ("zlib", zlib.compress(data))):
        numcodecs_qpl.reset_stats()
        codec = numcodecs.get_codec({"id": name, "level": 6})
        for _ in range(3):
            assert codec.decode(encoded) == data
        assert done() == (0, 0, 0, 3), done()
        assert not numcodecs_qpl.stats()["fallback"]
""",
        size=8,
    )
