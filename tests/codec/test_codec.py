"""The codec as numcodecs' users meet it: every kind of array, buffer and `out`, with every configuration."""

from __future__ import annotations

import array
import copy
import gzip
import inspect
import itertools
import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest

import numcodecs_qpl
from numcodecs_qpl import QPL, CorruptDataError
from numcodecs_qpl.containers import ContainerName

RNG = np.random.default_rng(4)


def _times(kind: str, low: int, high: int) -> npt.NDArray[Any]:
    return RNG.integers(low, high, 1000, dtype="i8").view(kind)


# The kinds of array that numcodecs tests its own compressors with.
ARRAYS: dict[str, npt.NDArray[Any]] = {
    "i4": np.arange(1000, dtype="i4"),
    "f8": np.linspace(1000, 1001, 1000, dtype="f8"),
    "f8 2-d": RNG.normal(1000, 1, (100, 10)),
    "bool, F order": np.asfortranarray(RNG.integers(0, 2, (100, 10)).astype(bool)),
    "S3 3-d": RNG.choice([b"a", b"bb", b"ccc"], (10, 10, 10)),
    "M8[ns]": _times("M8[ns]", 0, 2**60),
    "m8[ns]": _times("m8[ns]", 0, 2**60),
    "M8[m]": _times("M8[m]", 0, 2**25),
    "m8[m]": _times("m8[m]", 0, 2**25),
    "M8[ns], least": _times("M8[ns]", -(2**63), -(2**63) + 20),
    "m8[ns], least": _times("m8[ns]", -(2**63), -(2**63) + 20),
    "M8[m], least": _times("M8[m]", -(2**63), -(2**63) + 20),
    "m8[m], least": _times("m8[m]", -(2**63), -(2**63) + 20),
}

CONFIGS: list[dict[str, Any]] = [
    {"container": container, "block_size": block_size, "huffman": huffman}
    for container in ("gzip", "zlib", "deflate")
    for block_size in (1, 1000, 4096, 65536)
    for huffman in ("dynamic", "fixed")
]

FIXED = [config for config in CONFIGS if config["huffman"] == "fixed"]
"""Dynamic tables differ now and then: ISA-L 2.31.1's depend on the address of its state (about one block in 4,000)."""

READ_WITHOUT_US: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zlib": zlib.decompress,
    "deflate": lambda encoded: zlib.decompress(encoded, -15),
}


def raw(data: npt.NDArray[Any]) -> bytes:
    """The memory of an array, in the order it lies in."""
    return data.tobytes(order="A")


@pytest.fixture(params=CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def codec(request: pytest.FixtureRequest) -> QPL:
    return QPL(**request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave the process's number of threads as it was."""
    before = numcodecs_qpl.get_threads()
    yield
    numcodecs_qpl.set_threads(before)


# ---- Arrays and buffers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ARRAYS.values(), ids=ARRAYS)
def test_an_array_of_any_kind_comes_back(codec: QPL, data: npt.NDArray[Any]) -> None:
    encoded = codec.encode(data)
    assert type(encoded) is bytes
    assert codec.decode(encoded) == raw(data)
    assert READ_WITHOUT_US[codec.container](encoded) == raw(data)
    out = np.empty_like(data)
    assert codec.decode(encoded, out) is out
    assert raw(out) == raw(data)


BUFFERS: dict[str, Any] = {
    "bytes": b"some bytes" * 50,
    "bytearray": bytearray(b"some bytes" * 50),
    "memoryview": memoryview(b"some bytes" * 50),
    "memoryview of doubles": memoryview(array.array("d", range(100))),
    "empty": b"",
    "0-d": np.array(5.5),
    "read-only": np.frombuffer(b"some bytes" * 50, "u1"),
    "part of an array": np.arange(1000)[100:200],
    "Fortran order": np.asfortranarray(np.arange(200).reshape(20, 10)),
    **{f"array.array {code}": array.array(code, range(100)) for code in "bBhHiIlLqQfd"},
}


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_a_buffer_of_any_type_is_encoded_and_decoded(buffer: Any, container: ContainerName) -> None:
    codec = QPL(container=container)
    plain = raw(np.asarray(buffer)) if not isinstance(buffer, (bytes, bytearray)) else bytes(buffer)
    encoded = codec.encode(buffer)
    assert codec.decode(encoded) == plain
    for wrapped in (bytearray(encoded), memoryview(encoded), np.frombuffer(encoded, "u1"), array.array("B", encoded)):
        assert codec.decode(wrapped) == plain


OUTS: dict[str, Callable[[int], Any]] = {
    "bytearray": bytearray,
    "memoryview": lambda size: memoryview(bytearray(size)),
    "array.array": lambda size: array.array("B", bytes(size)),
    "same shape": lambda size: np.empty((40, 50), "i4"),
    "Fortran order": lambda size: np.empty((50, 40), "i4", order="F"),
    "another dtype": lambda size: np.empty(size // 8, "f8"),
    "datetime64": lambda size: np.empty(size // 8, "M8[s]"),
    "one dimension": lambda size: np.empty(size, "u1"),
    "four dimensions": lambda size: np.empty((2, 20, 5, size // 200), "u1"),
}


@pytest.mark.parametrize("make", OUTS.values(), ids=OUTS)
@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_an_out_of_any_shape_is_filled_in_place(make: Callable[[int], Any], container: ContainerName) -> None:
    data = np.arange(2000, dtype="i4").reshape(40, 50)
    codec = QPL(container=container)
    out = make(data.nbytes)
    assert codec.decode(codec.encode(data), out) is out
    assert (raw(out) if isinstance(out, np.ndarray) else bytes(out)) == raw(data)


# ---- What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
@pytest.mark.parametrize("size", [0, 1, 500, 999, 1001, 1500, 100_000])
@pytest.mark.parametrize("producer", ["ours", "zlib's"])
def test_an_out_of_another_size_is_refused_and_nothing_is_written_outside_of_it(
    container: ContainerName, size: int, producer: str
) -> None:
    codec = QPL(container=container)
    data = RNG.integers(0, 9, 1000, dtype="u1").tobytes()
    wbits = {"gzip": 31, "zlib": 15, "deflate": -15}[container]
    encoded = codec.encode(data) if producer == "ours" else zlib.compress(data, wbits=wbits)
    around = np.full(size + 200, 0xAA, "u1")
    with pytest.raises(ValueError, match=rf"out has {size} bytes, but the data inflates to (1000|more)"):
        codec.decode(encoded, around[100 : 100 + size])
    assert (around[:100] == 0xAA).all()
    assert (around[100 + size :] == 0xAA).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"container": "zip"}, ValueError, "container is 'zip'; it must be one of gzip, zlib, deflate"),
        ({"container": ["gzip"]}, ValueError, r"container is \['gzip'\]; it must be one of"),
        ({"container": None}, ValueError, "container is None; it must be one of"),
        ({"huffman": "canned"}, ValueError, "huffman is 'canned'; it must be one of fixed, dynamic"),
        ({"huffman": {"fixed": 1}}, ValueError, r"huffman is \{'fixed': 1\}; it must be one of"),
        ({"block_size": 0}, ValueError, "block_size is 0; it must be 1 to 2147483647"),
        ({"block_size": -1}, ValueError, "block_size is -1; it must be 1 to 2147483647"),
        ({"block_size": 2**31}, ValueError, "block_size is 2147483648; it must be 1 to"),
        ({"block_size": 4096.0}, TypeError, r"block_size is 4096\.0; it must be an integer"),
        ({"block_size": np.float64(4096)}, TypeError, r"block_size is .*4096\.0\)?; it must be an integer"),
        ({"block_size": "4096"}, TypeError, "block_size is '4096'; it must be an integer"),
        ({"block_size": True}, TypeError, "block_size is True; it must be an integer"),
        ({"block_size": np.True_}, TypeError, "block_size is .*True.*; it must be an integer"),
        ({"block_size": None}, TypeError, "block_size is None; it must be an integer"),
        ({"block_size": [4096]}, TypeError, r"block_size is \[4096\]; it must be an integer"),
        ({"block_size": {}}, TypeError, r"block_size is \{\}; it must be an integer"),
        ({"level": 1}, TypeError, "level"),
    ],
)
def test_a_wrong_parameter_is_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        QPL(**arguments)
    assert caught.type is error


@pytest.mark.parametrize("number", [np.int32(4096), np.uint64(4096), np.array(4096)], ids=repr)
def test_a_block_size_of_any_integer_type_is_stored_as_a_python_int(number: Any) -> None:
    codec = QPL(block_size=number)
    assert type(codec.block_size) is int
    assert json.loads(json.dumps(codec.get_config())) == QPL(block_size=4096).get_config()
    assert codec == QPL(block_size=4096)


def test_words_of_numpys_type_for_text_are_stored_as_python_strings() -> None:
    codec = QPL(container=np.str_("zlib"), huffman=np.str_("fixed"))  # type: ignore[arg-type]
    assert (type(codec.container), type(codec.huffman)) == (str, str)
    assert repr(codec) == repr(QPL(container="zlib", huffman="fixed"))


def test_another_container_than_the_codecs_is_corrupt_data() -> None:
    containers: list[ContainerName] = ["gzip", "zlib", "deflate"]
    encoded = {name: QPL(container=name).encode(bytes(1000)) for name in containers}
    for codec, stream in itertools.permutations(encoded, 2):
        with pytest.raises(CorruptDataError):
            QPL(container=codec).decode(encoded[stream])


# ---- Configuration ----------------------------------------------------------------------------------------------


def test_a_codec_survives_its_configuration_json_pickle_and_repr(codec: QPL) -> None:
    codec.decode(codec.encode(b"what it has learned does not count"))
    config = json.loads(json.dumps(codec.get_config()))
    for again in (numcodecs.get_codec(config), pickle.loads(pickle.dumps(codec)), eval(repr(codec))):
        assert again == codec
        assert again.get_config() == codec.get_config()
        assert repr(again) == repr(codec)
        assert again.encode(bytes(5000)) == codec.encode(bytes(5000))


@pytest.mark.parametrize("name", ["container", "block_size", "huffman", "_reader", "level"])
def test_a_codec_is_immutable(name: str) -> None:
    codec = QPL()
    before = vars(codec).copy()
    with pytest.raises(AttributeError, match=rf"^{name} cannot be set, as a codec is immutable; make another one: QPL"):
        setattr(codec, name, "zlib")
    with pytest.raises(AttributeError, match=rf"^{name} cannot be deleted, as a codec is immutable"):
        delattr(codec, name)
    assert vars(codec) == before


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))])
def test_a_copy_of_a_codec_equals_it_and_is_immutable_too(codec: QPL, copied: Callable[[QPL], QPL]) -> None:
    other = copied(codec)
    assert other is not codec
    assert other == codec
    with pytest.raises(AttributeError):
        other.container = "zlib"  # type: ignore[misc]


def test_codecs_of_different_configurations_differ() -> None:
    codecs = [QPL(**config) for config in CONFIGS]
    assert all(one != other for one, other in itertools.combinations(codecs, 2))
    assert QPL() != numcodecs.Zlib()


def test_the_configuration_holds_what_shapes_the_bytes_and_nothing_else() -> None:
    assert QPL().get_config() == {
        "id": "qpl", "container": "gzip", "block_size": 65536, "huffman": "dynamic"
    }  # fmt: skip
    assert QPL("zlib", 1000, "fixed").get_config() == {
        "id": "qpl", "container": "zlib", "block_size": 1000, "huffman": "fixed"
    }  # fmt: skip


def test_the_defaults_are_those_that_stored_metadata_counts_on() -> None:
    parameters = inspect.signature(QPL).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "container": "gzip", "block_size": 65536, "huffman": "dynamic"
    }  # fmt: skip


@pytest.mark.parametrize("level", [1, 3])
def test_a_config_of_the_draft_opens_and_its_level_is_dropped(level: int) -> None:
    config = {"id": "qpl", "level": level, "container": "zlib", "huffman": "fixed"}
    before = dict(config)
    assert numcodecs.get_codec(config) == QPL("zlib", huffman="fixed")
    assert config == before
    assert "level" not in numcodecs.get_codec(config).get_config()


@pytest.mark.parametrize("level", [0, 2, 4, -1, "1", None, True, 1.0, [1], {}], ids=repr)
def test_a_config_with_a_level_that_the_draft_had_not_is_a_value_error(level: Any) -> None:
    with pytest.raises(ValueError, match=r"level is .*; QPL has no levels"):
        numcodecs.get_codec({"id": "qpl", "level": level})


def test_get_codec_finds_the_codec_with_nothing_of_ours_imported() -> None:
    code = "import numcodecs; print(numcodecs.get_codec({'id': 'qpl'}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == repr(QPL()) + "\n"


# ---- The same bytes, always -------------------------------------------------------------------------------------


def _digest(config: dict[str, Any]) -> int:
    """Checksum of what a configuration makes of some data."""
    plain = np.random.default_rng(5).choice(np.frombuffer(b"abcd efgh", "u1"), 150_000).tobytes() + bytes(70_000)
    return zlib.crc32(QPL(**config).encode(plain if config["block_size"] > 1 else plain[140_000:160_000]))


@pytest.mark.usefixtures("threads")
def test_the_bytes_with_fixed_tables_depend_on_neither_threads_nor_history_nor_process() -> None:
    code = "import sys; sys.path.append(sys.argv[1]); import test_codec as t; print([t._digest(c) for c in t.FIXED])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    elsewhere = json.loads(done.stdout)
    for count, history in ((1, b""), (2, bytes(100_000)), (5, RNG.bytes(100_000)), (1, RNG.bytes(3000))):
        numcodecs_qpl.set_threads(count)
        for config, expected in zip(FIXED, elsewhere, strict=True):
            for other in ("fixed", "dynamic"):
                QPL(huffman=other).decode(QPL(huffman=other).encode(history))
            assert _digest(config) == expected, config
