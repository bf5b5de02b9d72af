"""Signal handlers that raise, as Ctrl-C does, while blocks are done: a call gives the right result or the exception."""

from __future__ import annotations

import subprocess
import sys

import emulated_iaa
import pytest

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


# Each call, and each kind of work (to encode, decode, compress or decompress pages) by one thread and by several.
@pytest.mark.parametrize(
    ("what", "threads"),
    [
        ("encode gzip", "1"),
        ("encode zlib", "3"),
        ("encode deflate", "3"),
        ("decode gzip", "1"),
        ("decode gzip into out", "3"),
        ("compress pages", "1"),
        ("compress pages", "3"),
        ("decompress pages", "1"),
        ("decompress pages into out", "3"),
    ],
)
def test_a_handler_that_raises_while_a_device_hangs_gives_the_right_result_or_its_exception(
    what: str, threads: str
) -> None:
    assert emulated_iaa.run(WHILE_A_DEVICE_HANGS, what, threads) in ("right\n", "raised\n")


# ---- Threads ----------------------------------------------------------------------------------------------------


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
    if calling:
        rung += 1
        raise Late

def mapped(content):
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memory

def prepare(what, data):
    # What the call reads, and the lengths of pages.
    if what == "decompress pages":
        return compress_pages(data, huffman="dynamic")[::-1]
    return (codec.encode(data) if what == "decode" else data), None

def interrupt(what, content, lengths):
    global calling
    source = mapped(content)
    target = mapped(bytes(2 * HALF))
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
        finally:
            calling = False
    except Late:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    # These fail while memory is held, and end the process if it is used without being held.
    source.close()
    target.close()

# Zeros are done long before noise: one of the two threads still works when the other is through.
rung = 0
for data in (noise + bytes(HALF), bytes(HALF) + noise):
    content, lengths = prepare(sys.argv[1], data)
    for _ in range(2):
        interrupt(sys.argv[1], content, lengths)
print("interrupted", "at least once" if rung else "never")
"""


@pytest.mark.parametrize("what", ["encode", "decode", "compress pages", "decompress pages"])
def test_threads_use_no_memory_after_a_call_that_was_interrupted(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", WITH_THREADS, what],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted at least once\n", "")
