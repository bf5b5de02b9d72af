"""Threads, forks, pickles, exits: the codec in the processes that it is used in."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from process import with_threads

import numcodecs_qpl
from numcodecs_qpl import QPL

RNG = np.random.default_rng(8)
DATA = [RNG.choice(np.frombuffer(b"abcd efgh", "u1"), size).tobytes() for size in (10, 5000, 70_000, 300_000)]
CODECS = [
    QPL(),
    QPL(block_size=1000),
    QPL(block_size=5000),
    QPL(container="zlib"),
    QPL(container="deflate", block_size=5000),
    QPL(huffman="fixed"),
]


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with with_threads(request.param):
        yield request.param


def there_and_back(number: int) -> bool:
    """Encode and decode with a shared codec; foreign data now and then, whose size it does not know."""
    codec, data = CODECS[number % len(CODECS)], DATA[number // len(CODECS) % len(DATA)]
    wbits = {"gzip": 31, "zlib": 15, "deflate": -15}[codec.container]
    encoded = codec.encode(data) if number % 5 else zlib.compress(data, wbits=wbits)
    out = bytearray(len(data))
    codec.decode(encoded, out)
    return bool(codec.decode(encoded) == data == out)


@contextmanager
def busy() -> Iterator[None]:
    """Four threads work meanwhile."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            assert there_and_back(number)
            number += 1

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        try:
            yield
        finally:
            stop.set()
        for worker in workers:
            worker.result()


@pytest.mark.usefixtures("threads")
def test_eight_threads_share_codecs() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(200)))


def in_fork(child: Callable[[], bool]) -> None:
    """Run `child` in a fork of this process; fail unless it returns True within a minute."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks while threads run: that these work is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            threading.Timer(60, os._exit, [3]).start()
            status = 0 if child() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.usefixtures("threads")
def test_a_fork_amid_working_threads_works_on() -> None:
    with busy():
        for start in range(15):
            # Each codec once: a thread may have held its lock.
            in_fork(lambda start=start: all(map(there_and_back, range(start, start + 6))))  # type: ignore[misc]


def test_a_fork_starts_with_counts_of_its_own_and_leaves_its_parents_alone() -> None:
    assert there_and_back(1)
    parents = numcodecs_qpl.stats()
    assert parents["software"]["compressed"] > 0

    def child() -> bool:
        before = numcodecs_qpl.stats()
        assert there_and_back(1)
        after = numcodecs_qpl.stats()
        return (
            before["software"] == {"compressed": 0, "decompressed": 0}
            and after["software"]["compressed"] > 0
            and after["software"]["decompressed"] > 0
        )

    in_fork(child)
    assert numcodecs_qpl.stats() == parents


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("threads")
def test_codecs_go_to_worker_processes_and_work_there(method: str) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        for codec in CODECS:
            encoded = list(pool.map(codec.encode, DATA, timeout=120))
            assert list(pool.map(codec.decode, encoded, timeout=120)) == DATA
            if codec.huffman == "fixed":
                # ISA-L's dynamic tables differ now and then: see test_codec.FIXED.
                assert encoded == [codec.encode(data) for data in DATA]


@pytest.mark.parametrize("count", [1, 3])
def test_a_process_exits_cleanly_with_threads_idle_or_working_or_at_work_in_an_atexit_handler(count: int) -> None:
    code = f"""
import atexit, gzip, threading, numcodecs_qpl
numcodecs_qpl.set_threads({count})
data = bytes(range(256)) * 4000
codec = numcodecs_qpl.QPL(block_size=10000)
atexit.register(lambda: print("at exit:", gzip.decompress(codec.encode(data)) == data))
def work():
    while True:
        codec.decode(codec.encode(data))
threading.Thread(target=work, daemon=True).start()
assert codec.decode(codec.encode(data)) == data
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "at exit: True\n", "")


def resident() -> int:
    """Bytes of memory that this process has now."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.usefixtures("threads")
def test_memory_does_not_grow_with_the_number_of_calls() -> None:
    page = DATA[1][:4096]
    before = 0
    for call in range(22_000):
        if call == 2000:
            before = resident()
        codec = CODECS[call % len(CODECS)]
        codec.decode(codec.encode(page))
    assert resident() - before < 1 << 20


def test_memory_does_not_grow_with_the_number_of_errors() -> None:
    encoded = QPL().encode(DATA[2])[:-5000]
    before = 0
    for call in range(1100):
        if call == 100:
            before = resident()
        with pytest.raises(ValueError, match="truncated"):
            QPL().decode(encoded)
    assert resident() - before < 1 << 20
