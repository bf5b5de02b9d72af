"""Arguments of callers: every function that takes bytes or numbers accepts, and refuses, the same objects."""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numcodecs_qpl
from numcodecs_qpl import QPL, _core, compress_pages, decompress_pages
from numcodecs_qpl.containers import ContainerName

SIZE = 8192
PLAIN = np.arange(SIZE // 8, dtype="<i8").tobytes()
CONTAINERS: list[ContainerName] = ["gzip", "zlib", "deflate"]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Leave the process's settings as they were."""
    before = numcodecs_qpl.get_path(), numcodecs_qpl.get_threads(), numcodecs_qpl.get_numa()
    yield
    numcodecs_qpl.set_path(before[0])
    numcodecs_qpl.set_threads(before[1])
    numcodecs_qpl.set_numa(before[2])


def pages_there_and_back(buffer: Any) -> bytes:
    """The pages of `buffer`, compressed and back."""
    lengths, payload = compress_pages(buffer)
    return decompress_pages(payload, lengths)


def pages_into(buffer: Any) -> bytes:
    """The pages of `buffer`, compressed into memory of ours, and back."""
    lengths, payload = np.empty(2, np.uint32), bytearray(SIZE)
    size = _core.compress_pages_into(buffer, lengths, payload)
    return decompress_pages(payload[:size], lengths)


def there_and_back(codec: QPL, buffer: Any) -> bytes:
    """Return what the codec reads of what it wrote."""
    return bytes(codec.decode(codec.encode(buffer)))


LENGTHS, PAYLOAD = compress_pages(PLAIN)


def padded(data: bytes) -> bytes:
    """`data` and the zeros that may follow a chunk, SIZE bytes in all."""
    return data + bytes(SIZE - len(data))


def payload_of_noise(buffer: Any) -> bytes:
    """`buffer` as a payload of two pages that are kept as they are."""
    return bytes(decompress_pages(buffer, [4096, 4096]))


SOURCES: dict[str, tuple[str, bytes, Callable[[Any], bytes]]] = {
    **{f"{name} encode": ("buf", PLAIN, partial(there_and_back, QPL(name))) for name in CONTAINERS},
    **{f"{name} decode": ("buf", padded(QPL(name).encode(PLAIN)), QPL(name).decode) for name in CONTAINERS},
    "compress_pages": ("buffer", PLAIN, pages_there_and_back),
    "compress_pages_into": ("buffer", PLAIN, pages_into),
    "decompress_pages": ("payload", PLAIN, payload_of_noise),
}
"""Each function that reads bytes: its name for them, SIZE bytes to pass, and the function, which returns PLAIN."""


def into_codec(name: ContainerName) -> Callable[[Any], None]:
    """The codec's decode, into what is passed."""
    codec = QPL(name)
    encoded = codec.encode(PLAIN)
    return lambda out: codec.decode(encoded, out)


TARGETS: dict[str, tuple[str, Callable[[Any], object]]] = {
    **{f"{name} decode": ("out", into_codec(name)) for name in CONTAINERS},
    "compress_pages_into": (
        "payload",
        lambda out: _core.compress_pages_into(np.random.default_rng(1).bytes(SIZE), np.empty(2, np.uint32), out),
    ),
    "decompress_pages": ("out", lambda out: decompress_pages(PAYLOAD, LENGTHS, out=out)),
}
"""Each function that writes to memory of the caller's, with its name for it; SIZE bytes are written."""


def file_in_memory(data: bytes) -> mmap.mmap:
    mapped = mmap.mmap(-1, len(data))
    mapped[:] = data
    return mapped


MAKE: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "memoryview of doubles": lambda data: memoryview(bytearray(data)).cast("d"),
    "memoryview of two dimensions": lambda data: memoryview(bytearray(data)).cast("B", (64, SIZE // 64)),
    "memoryview of big-endian numbers": lambda data: np.frombuffer(bytearray(data), ">i4").data,
    "memoryview of structures": lambda data: np.frombuffer(bytearray(data), [("a", "i4"), ("b", "f4")]).data,
    "memoryview in Fortran order": lambda data: np.frombuffer(bytearray(data), "i4").reshape(-1, 32).T.data,
    "array.array of signed bytes": lambda data: array.array("b", data),
    "array.array of doubles": lambda data: array.array("d", data),
    "ctypes numbers": (ctypes.c_int * (SIZE // 4)).from_buffer_copy,
    "mmap": file_in_memory,
    "ndarray": lambda data: np.frombuffer(bytearray(data), "u1"),
    "matrix": lambda data: np.frombuffer(bytearray(data), "i4").reshape(64, -1).view(np.matrix),
    "read-only ndarray": lambda data: np.frombuffer(data, "i2"),
    "big-endian": lambda data: np.frombuffer(bytearray(data), ">f8"),
    "Fortran order": lambda data: np.frombuffer(bytearray(data), "i4").reshape(-1, 32).T,
    "Fortran order, 3-d": lambda data: np.frombuffer(bytearray(data), "i2").reshape(4, 8, -1).T,
    "datetime64": lambda data: np.frombuffer(bytearray(data), "M8[ns]"),
    "timedelta64": lambda data: np.frombuffer(bytearray(data), "m8[s]").reshape(2, -1),
    "structured": lambda data: np.frombuffer(bytearray(data), [("a", "i4"), ("t", "M8[s]"), ("v", "V4")]),
    "record array": lambda data: np.frombuffer(bytearray(data), [("a", "i4"), ("b", "f4")]).view(np.recarray),
    "void, as bfloat16 is": lambda data: np.frombuffer(bytearray(data), "V2"),
    "bool": lambda data: np.frombuffer(bytearray(data), "?"),
    "text": lambda data: np.frombuffer(bytearray(data), "U4"),
    "one element": lambda data: np.frombuffer(bytearray(data), f"V{SIZE}").reshape(()),
}
READ_ONLY = {"bytes", "memoryview", "read-only ndarray"}


@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize("source", SOURCES)
def test_bytes_are_read_from_any_contiguous_object(source: str, what: str) -> None:
    _, data, function = SOURCES[source]
    assert function(MAKE[what](data)) == PLAIN


@pytest.mark.parametrize("what", [what for what in MAKE if what not in READ_ONLY])
@pytest.mark.parametrize("target", TARGETS)
def test_bytes_are_written_into_any_contiguous_object_in_the_order_of_its_memory(target: str, what: str) -> None:
    out, plain = MAKE[what](b"\xaa" * SIZE), bytearray(SIZE)
    TARGETS[target][1](out)
    TARGETS[target][1](plain)
    if what == "mmap":
        written = out[:]
    elif isinstance(out, np.ndarray):
        written = out.tobytes(order="A")
    else:
        written = memoryview(out).tobytes(order="A")
    assert written == plain


EMPTY: dict[str, Any] = {
    "bytes": b"",
    "bytearray": bytearray(),
    "memoryview": memoryview(b""),
    "memoryview of two dimensions": np.empty((3, 0)).data,
    "array.array": array.array("d"),
    "0": np.empty(0),
    "3 by 0": np.empty((3, 0), "i4"),
    "0 by 3": np.empty((0, 3), "M8[s]"),
    "0 by 0 in Fortran order": np.empty((0, 0), order="F"),
    "part without elements": np.empty((4, 4))[::2, 4::2],
    "elements of no bytes": np.empty(5, "V0"),
    "matrix": np.empty((0, 3)).view(np.matrix),
}


@pytest.mark.parametrize("what", EMPTY)
def test_what_has_no_bytes_is_an_empty_chunk_and_no_page_whatever_its_shape(what: str) -> None:
    for name in CONTAINERS:
        assert QPL(name).encode(EMPTY[what]) == QPL(name).encode(b"")
        with pytest.raises(ValueError, match="truncated"):
            QPL(name).decode(EMPTY[what])
    lengths, payload = compress_pages(EMPTY[what])
    assert (lengths.shape, payload) == ((0,), b"")
    assert decompress_pages(EMPTY[what], []) == b""
    assert _core.compress_pages_into(EMPTY[what], np.empty(0, np.uint32), bytearray()) == 0


@pytest.mark.parametrize("what", [what for what in EMPTY if what not in ("bytes", "memoryview")])
def test_an_out_without_bytes_takes_an_empty_chunk_and_no_page(what: str) -> None:
    out = EMPTY[what]
    for name in CONTAINERS:
        assert QPL(name).decode(QPL(name).encode(b""), out) is out
        with pytest.raises(ValueError, match="out has 0 bytes, but the data inflates to more"):
            QPL(name).decode(QPL(name).encode(b"x"), out)
    assert decompress_pages(b"", [], out=out) is out


NO_BUFFER: dict[str, Any] = {
    "str": "text",
    "list": [1, 2, 3],
    "int": 5,
    "float": 5.5,
    "dict": {},
    "object array": np.array([b"a", [1]], object),
    "object array of 0 dimensions": np.array(None, object),
    "object array without elements": np.empty((0, 3), object),
    "object array that is not contiguous": np.empty((4, 4), object)[::2, ::2],
    "structured with objects": np.zeros(4, [("a", "i4"), ("o", object)]),
    "memoryview of objects": np.array([b"a", 1], object).data,
    "memoryview of structures with objects": np.zeros(4, [("a", "i4"), ("o", object)]).data,
}
if hasattr(np.dtypes, "StringDType"):
    NO_BUFFER["array of texts of any length"] = np.array(["some", "words"], np.dtypes.StringDType())


@pytest.mark.parametrize("what", NO_BUFFER)
@pytest.mark.parametrize("source", SOURCES)
def test_what_has_no_bytes_to_read_is_a_type_error_that_names_the_argument(source: str, what: str) -> None:
    name, _, function = SOURCES[source]
    with pytest.raises(TypeError, match=rf"^{name} (is|holds) .*required$"):
        function(NO_BUFFER[what])


@pytest.mark.parametrize("what", NO_BUFFER)
@pytest.mark.parametrize("target", TARGETS)
def test_what_has_no_bytes_to_write_to_is_a_type_error_that_names_the_argument(target: str, what: str) -> None:
    name, function = TARGETS[target]
    with pytest.raises(TypeError, match=rf"^{name} (is|holds) .*required$"):
        function(NO_BUFFER[what])


def test_none_is_not_a_buffer_to_read() -> None:
    for name, _, function in SOURCES.values():
        with pytest.raises(TypeError, match=f"^{name} is "):
            function(None)


APART: dict[str, Any] = {
    "columns": np.zeros((64, 256), "u1")[:, ::2],
    "every second": np.zeros(2 * SIZE, "u1")[::2],
    "backwards": np.zeros(SIZE, "u1")[::-1],
    "neither order": np.zeros((4, 8, SIZE // 32), "u1").transpose(1, 0, 2),
    "repeated": np.broadcast_to(np.zeros(1, "u1"), SIZE),
    "memoryview": memoryview(bytearray(2 * SIZE))[::2],
    "memoryview of doubles": np.zeros(SIZE // 4).data[::2],
}


@pytest.mark.parametrize("what", APART)
def test_what_is_not_contiguous_is_a_value_error_that_names_the_argument(what: str) -> None:
    for name, _, function in SOURCES.values():
        with pytest.raises(ValueError, match=f"^{name} is not contiguous; pass a copy"):
            function(APART[what])
    for name, write in TARGETS.values():
        with pytest.raises(ValueError, match=f"^{name} is not contiguous; pass contiguous memory, and copy from it$"):
            write(APART[what])


@pytest.mark.parametrize("target", TARGETS)
def test_memory_that_is_read_only_is_a_value_error_that_names_the_argument(target: str) -> None:
    name, function = TARGETS[target]
    locked = np.zeros(SIZE, "u1")
    locked.flags.writeable = False
    mapped = mmap.mmap(-1, SIZE, access=mmap.ACCESS_READ)
    for read_only in (locked, locked.reshape(64, -1).view(np.matrix), bytes(SIZE), memoryview(bytes(SIZE)), mapped):
        with pytest.raises(ValueError, match=f"^{name} is read-only"):
            function(read_only)


def test_a_file_in_memory_is_encoded_and_decoded_into(tmp_path: Path) -> None:
    data = np.memmap(tmp_path / "in", "i4", "w+", shape=(100, 100))
    data[:] = np.arange(10_000).reshape(100, 100)
    out = np.memmap(tmp_path / "out", "i4", "w+", shape=(100, 100))
    QPL().decode(QPL().encode(data), out)
    assert np.array_equal(out, data)


# ---- Memory that overlaps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shift", [-SIZE + 1, -100, 0, 1, 100])
@pytest.mark.parametrize("threads", [1, 4])
def test_an_out_that_overlaps_the_chunk_is_refused_untouched(
    container: ContainerName, shift: int, threads: int
) -> None:
    numcodecs_qpl.set_threads(threads)
    encoded = QPL(container, 1000).encode(PLAIN)
    memory = np.zeros(3 * SIZE, "u1")
    memory[SIZE : SIZE + len(encoded)] = np.frombuffer(encoded, "u1")
    before = memory.copy()
    with pytest.raises(ValueError, match=r"^out overlaps buf; pass memory of its own"):
        QPL(container).decode(memory[SIZE : SIZE + len(encoded)], memory[SIZE + shift :][:SIZE])
    assert (memory == before).all()


def test_an_out_beside_the_chunk_in_one_piece_of_memory_is_filled() -> None:
    encoded = QPL().encode(PLAIN)
    for at, out_at in ((0, len(encoded)), (SIZE, 0)):
        memory = np.zeros(3 * SIZE, "u1")
        memory[at : at + len(encoded)] = np.frombuffer(encoded, "u1")
        QPL().decode(memory[at : at + len(encoded)], memory[out_at : out_at + SIZE])
        assert memory[out_at : out_at + SIZE].tobytes() == PLAIN


def test_an_empty_out_overlaps_nothing() -> None:
    memory = np.frombuffer(QPL().encode(b""), "u1").copy()
    out = memory[5:5]
    assert QPL().decode(memory, out) is out


def test_pages_whose_memory_overlaps_are_refused_untouched() -> None:
    memory = np.frombuffer(bytearray(PLAIN * 3), "u1")
    before = memory.copy()
    for shift in (0, 1, -1, SIZE - 1, 1 - SIZE):
        payload = memory[SIZE + shift :][:SIZE]
        with pytest.raises(ValueError, match=r"^payload overlaps buffer; pass memory of its own"):
            _core.compress_pages_into(memory[SIZE : 2 * SIZE], np.empty(2, np.uint32), payload)
        with pytest.raises(ValueError, match=r"^out overlaps payload; pass memory of its own"):
            decompress_pages(memory[SIZE : 2 * SIZE], [4096, 4096], out=payload)
    assert (memory == before).all()


# ---- Lengths of pages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u1", "i2", ">u4", "i8", "u8", "matrix row", "list", "tuple", "numbers", "apart"])
def test_lengths_of_any_integer_type_are_taken(kind: str) -> None:
    pages = bytes(2 * 4096)
    lengths, payload = compress_pages(pages)
    given: Any = {
        "list": lengths.tolist(),
        "tuple": tuple(lengths.tolist()),
        "numbers": list(lengths),
        "apart": np.repeat(lengths, 2)[::2],
    }.get(kind)
    if given is None:
        given = lengths.astype(kind if kind != "matrix row" else "i8")
    assert decompress_pages(payload, given) == pages


@pytest.mark.parametrize(
    "lengths",
    [
        LENGTHS.astype(float),
        [4096.5, 4095.5],
        [float(n) for n in LENGTHS],
        [True, True],
        ["1", "2"],
        "12",
        b"12",
        5,
        None,
        {},
        {1: 2},
        [[1], [2, 3]],
        [[1, 2]],
        np.array([[1, 2]]),
        [2**70, 1],
        [None, 1],
        np.array(LENGTHS.tolist(), object),
        LENGTHS.astype("M8[s]"),
    ],
    ids=repr,
)
def test_lengths_that_are_not_a_row_of_integers_are_a_type_error_that_names_them(lengths: Any) -> None:
    with pytest.raises(TypeError, match=r"^lengths is "):
        decompress_pages(PAYLOAD, lengths)


READ_ONLY_LENGTHS = np.zeros(2, np.uint32)
READ_ONLY_LENGTHS.flags.writeable = False


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        (np.zeros(2, np.int64), TypeError),
        (np.zeros(2, np.int32), TypeError),
        (np.zeros(2, np.float32), TypeError),
        (np.zeros(2, ">u4"), TypeError),
        (np.zeros(2, object), TypeError),
        (np.zeros((1, 2), np.uint32), TypeError),
        (np.zeros((), np.uint32), TypeError),
        ([0, 0], TypeError),
        (bytearray(8), TypeError),
        (None, TypeError),
        (5, TypeError),
        ("ab", TypeError),
        (READ_ONLY_LENGTHS, ValueError),
        (np.zeros(4, np.uint32)[::2], ValueError),
        (np.zeros(1, np.uint32), ValueError),
        (np.zeros(3, np.uint32), ValueError),
    ],
    ids=repr,
)
def test_memory_for_lengths_that_cannot_take_them_is_an_error_that_names_it(
    lengths: Any, error: type[Exception]
) -> None:
    payload = bytearray(SIZE)
    with pytest.raises(error, match=r"^lengths ") as caught:
        _core.compress_pages_into(PLAIN, lengths, payload)
    assert caught.type is error
    assert payload == bytes(SIZE)


def test_memory_for_lengths_may_be_an_array_of_pythons() -> None:
    lengths: Any = array.array("I", [0, 0])
    payload = bytearray(SIZE)
    size = _core.compress_pages_into(PLAIN, lengths, payload)
    assert decompress_pages(payload[:size], lengths) == PLAIN


# ---- Numbers and words ------------------------------------------------------------------------------------------

NUMBERS: dict[str, tuple[int, int, Callable[[Any], object]]] = {
    "block_size": (1, 2**31 - 1, lambda n: QPL(block_size=n)),
    "page_size": (2, 2**31 - 1, lambda n: compress_pages(b"", n)),
    "page_size to inflate": (2, 2**31 - 1, lambda n: decompress_pages(b"", [], n)),
    "page_size into": (
        2,
        2**31 - 1,
        lambda n: _core.compress_pages_into(b"", np.empty(0, np.uint32), bytearray(), n),
    ),
    "threads": (1, 256, numcodecs_qpl.set_threads),
    "numa": (0, 2**31 - 1, numcodecs_qpl.set_numa),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_a_number_is_any_integer_within_its_limits(what: str) -> None:
    least, most, function = NUMBERS[what]
    name = what.split()[0]
    for kind in (int, np.int64, np.uint32, np.array):
        function(kind(least))
        function(kind(most))
    for wrong in (least - 1, most + 1, -(2**70), 2**70):
        with pytest.raises(ValueError, match=f"^{name} is {wrong}; it must be {least} to {most}$"):
            function(wrong)


@pytest.mark.parametrize("what", NUMBERS)
@pytest.mark.parametrize(
    "wrong",
    [5.0, np.float32(5), True, np.True_, None, b"5", [5], {5: 5}, (), np.array([5, 6]), np.array(5.0)],
    ids=repr,
)
def test_what_is_not_an_integer_is_a_type_error_that_names_the_argument(what: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{what.split()[0]} is [\s\S]*it must be an integer"):
        NUMBERS[what][2](wrong)


@pytest.mark.parametrize("what", [what for what in NUMBERS if what != "numa"])
def test_a_number_in_a_text_is_a_type_error_that_names_the_argument(what: str) -> None:
    with pytest.raises(TypeError, match=rf"^{what.split()[0]} is '5'; it must be an integer"):
        NUMBERS[what][2]("5")


def test_numbers_of_numpys_types_are_stored_as_python_ints() -> None:
    threads: Any = np.int64(2)
    numa: Any = np.uint8(1)
    numcodecs_qpl.set_threads(threads)
    numcodecs_qpl.set_numa(numa)
    assert (type(numcodecs_qpl.get_threads()), type(numcodecs_qpl.get_numa())) == (int, int)


WORDS: dict[str, Callable[[Any], object]] = {
    "container": lambda word: QPL(container=word),
    "huffman": lambda word: QPL(huffman=word),
    "huffman of pages": lambda word: compress_pages(b"", huffman=word),
    "huffman of pages into": lambda word: _core.compress_pages_into(
        b"", np.empty(0, np.uint32), bytearray(), huffman=word
    ),
    "path": numcodecs_qpl.set_path,
}


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize(
    "wrong", ["", "Fixed", b"fixed", None, 1, True, ["gzip"], {"auto": 1}, {"fixed"}, np.array(["auto"])], ids=repr
)
def test_a_word_that_is_none_of_the_choices_is_an_error_that_names_the_argument(what: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{what.split()[0]} is [\s\S]*; it must be one of \w+, \w+"):
        WORDS[what](wrong)


@pytest.mark.parametrize("wrong", ["", "Socket", "5", b"node"], ids=repr)
def test_a_numa_policy_that_is_none_of_the_words_is_an_error_that_lists_them(wrong: Any) -> None:
    message = rf"^numa is {wrong!r}; it must be (socket, node, any or the number of a NUMA node|an integer)"
    with pytest.raises((TypeError, ValueError), match=message):
        numcodecs_qpl.set_numa(wrong)


# ---- The largest chunk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_chunk_above_the_limit_of_writing_is_a_value_error_that_says_whose_limit_it_is(
    container: ContainerName,
) -> None:
    large = np.zeros(2**31, "u1")  # never touched, so there is no memory behind it
    with pytest.raises(ValueError, match="buf has 2147483648 bytes; QPL writes chunks of up to 2147483647"):
        QPL(container).encode(large)
