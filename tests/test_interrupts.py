"""Signal handlers that raise, as Ctrl-C does, while blocks are done: a call gives the right result or the exception."""

from __future__ import annotations

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
