"""Signal handlers that raise, as Ctrl-C does, while blocks are done: a call gives the right result or the exception."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import emulated_iaa
import pytest

from numcodecs_qpl import _core
from numcodecs_qpl._core import threads

PATIENCE = 60.0
"""Seconds after which a script that should have ended has not."""

WHILE_A_DEVICE_HANGS = """
import gzip, signal, sys, zlib
import numpy as np
from emulated_iaa import Device
import numcodecs_qpl
from numcodecs_qpl import QPL, _core, compress_pages, decompress_pages

class Late(Exception):
    pass

def ring(*_):
    raise Late

what, threads = sys.argv[1:]
data = np.random.default_rng(0).integers(0, 9, 1 << 20, np.uint8).tobytes()
codecs = {container: QPL(container=container) for container in ("gzip", "zlib", "deflate")}
encoded = {name: codec.encode(data) for name, codec in codecs.items()}
lengths, payload = compress_pages(data)
out = bytearray(len(data))

def pages():
    lengths, payload = compress_pages(data)
    ends = np.cumsum(lengths).tolist()
    pieces = [payload[end - length : end] for end, length in zip(ends, lengths.tolist())]
    return b"".join(piece if len(piece) == 4096 else zlib.decompress(piece, -15) for piece in pieces)

calls = {
    "encode gzip": lambda: gzip.decompress(codecs["gzip"].encode(data)),
    "encode zlib": lambda: zlib.decompress(codecs["zlib"].encode(data)),
    "encode deflate": lambda: zlib.decompress(codecs["deflate"].encode(data), -15),
    "decode gzip": lambda: codecs["gzip"].decode(encoded["gzip"]),
    "decode gzip into out": lambda: codecs["gzip"].decode(encoded["gzip"], out),
    "decode zlib": lambda: codecs["zlib"].decode(encoded["zlib"]),
    "decode deflate into out": lambda: codecs["deflate"].decode(encoded["deflate"], out),
    "compress pages": pages,
    "decompress pages": lambda: decompress_pages(payload, lengths),
    "decompress pages into out": lambda: decompress_pages(payload, lengths, out=out),
}
assert _core.path_in_force() == "hardware"
numcodecs_qpl.set_threads(int(threads))
device = Device()
device.give_up_after(0.5)
device.fault("any:1:1000000:hang")
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    got = calls[what]()
    print("right" if got == data else "WRONG")
except Late:
    print("raised")
assert _core.path_in_force() == "software"
assert calls[what]() == data
"""


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize(
    "what",
    [
        "encode gzip",
        "encode zlib",
        "encode deflate",
        "decode gzip",
        "decode gzip into out",
        "decode zlib",
        "decode deflate into out",
        "compress pages",
        "decompress pages",
        "decompress pages into out",
    ],
)
def test_a_handler_that_raises_while_a_device_hangs_gives_the_right_result_or_its_exception(
    what: str, threads: str
) -> None:
    assert emulated_iaa.run(WHILE_A_DEVICE_HANGS, what, threads) in ("right\n", "raised\n")


# ---- Threads ----------------------------------------------------------------------------------------------------


class LateError(Exception):
    """The exception of a signal handler."""


@pytest.fixture
def ring() -> Iterator[Callable[[int, float], list[int]]]:
    """Have a signal handler raise LateError `count` times, every `pause` seconds; the list tells which it raised."""
    rung: list[int] = []

    def start(count: int, pause: float) -> list[int]:
        def handler(number: int, frame: object) -> None:
            if len(rung) < count:
                rung.append(number)
                raise LateError
            signal.setitimer(signal.ITIMER_REAL, 0)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, pause, pause)
        return rung

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_spread_that_is_interrupted_again_and_again_ends_after_its_helpers(
    ring: Callable[[int, float], list[int]],
) -> None:
    together = threading.Barrier(3, timeout=20)
    ended = []

    def work() -> None:
        together.wait()
        if threading.current_thread() is not threading.main_thread():
            time.sleep(1)
            ended.append(time.monotonic())

    rung = ring(5, 0.1)
    with pytest.raises(LateError):
        threads.spread(work, 3)
    assert len(ended) == 2
    assert len(rung) == 5


def test_a_spread_ends_after_all_helpers_also_where_one_fails_and_raises_the_first_error() -> None:
    numbers = itertools.count()
    together = threading.Barrier(4, timeout=20)
    ended = []

    def work() -> None:
        together.wait()
        if threading.current_thread() is threading.main_thread():
            return
        number = next(numbers)
        time.sleep((1, 0.1, 0.5)[number])
        ended.append(number)
        raise ValueError(f"error of helper {number}")

    with pytest.raises(ValueError, match="error of helper 1"):
        threads.spread(work, 4)
    assert sorted(ended) == [0, 1, 2]


def test_a_spread_that_fails_in_the_calling_thread_ends_after_its_helpers() -> None:
    together = threading.Barrier(2, timeout=20)
    ended = []

    def work() -> None:
        together.wait()
        if threading.current_thread() is threading.main_thread():
            raise ValueError("error of the caller")
        time.sleep(0.5)
        ended.append(True)
        raise OSError("error of the helper")

    with pytest.raises(ValueError, match="error of the caller"):
        threads.spread(work, 2)
    assert ended == [True]


def test_a_spread_calls_nothing_after_it_has_ended() -> None:
    """Helpers that find no thread free are withdrawn."""
    release = threading.Event()
    together = threading.Barrier(9, timeout=20)
    calls = []

    def hold() -> None:
        together.wait()
        assert release.wait(20)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(threads.spread, hold, 8)
        together.wait()
        threads.spread(lambda: calls.append(threading.get_ident()), 2)
        assert calls == [threading.get_ident()]
        release.set()
        holding.result()
    threads.spread(lambda: None, 2)
    assert len(calls) == 1


WITH_THREADS = """
import mmap, signal, sys
import numpy as np
import numcodecs_qpl
from numcodecs_qpl import QPL, compress_pages, decompress_pages

HALF = 24 << 20
numcodecs_qpl.set_path("software")
numcodecs_qpl.set_threads(2)
noise = np.random.default_rng(0).integers(0, 60, HALF, np.uint8).tobytes()
codec = QPL()

class Late(Exception):
    pass

def ring(*_):
    global rung
    if calling and rung < 5:
        rung += 1
        raise Late

def mapped(content):
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memory

def interrupt(what, data):
    global calling
    lengths, payload = compress_pages(data, huffman="dynamic")
    source = mapped({"decode": codec.encode(data), "decompress pages": payload}.get(what, data))
    target = mapped(bytes(len(data)))
    calls = {
        "encode": lambda: codec.encode(source),
        "decode": lambda: codec.decode(source, target),
        "compress pages": lambda: compress_pages(source, huffman="dynamic"),
        "decompress pages": lambda: decompress_pages(source, lengths, out=target),
    }
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.003)
    try:
        calling = True
        try:
            calls[what]()
            print("not interrupted")
        finally:
            calling = False
    except Late:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    # These fail while memory is held, and end the process if it is used without being held.
    source.close()
    target.close()

# This thread does one half, and is interrupted 5 times if that is the fast one: it waits for its helper then.
for number in range(40):
    rung = 0
    interrupt(sys.argv[1], bytes(HALF) + noise if number % 2 else noise + bytes(HALF))
    if rung == 5:
        break
print("interrupted", rung, "times")
"""


@pytest.mark.skipif(_core.ENGINE != "libqpl", reason="a handler interrupts ISA-L's engine between its blocks")
@pytest.mark.parametrize("what", ["encode", "decode", "compress pages", "decompress pages"])
def test_threads_use_no_memory_after_a_call_that_was_interrupted(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", WITH_THREADS, what],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted 5 times\n", "")
