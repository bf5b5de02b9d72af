"""Memory that calls take, each measured in a process of its own: `peak` and `growth` start one and ask it.

Memory is what is resident, as Linux's ``/proc/self/status`` tells: VmRSS, VmHWM for its peak, RssFile for the part that
maps files. Nothing in here reads files into such memory during a call, so that part grows by program code alone, which
comes in page by page when it first runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from numcodecs_qpl import QPL, set_path, set_threads
from numcodecs_qpl.bench.data import text
from numcodecs_qpl.containers import ContainerName

CONTAINERS: tuple[ContainerName, ...] = ("gzip", "zlib", "deflate")
WARM_UP = 1000
PAGE = 4096


class Peak(NamedTuple):
    """Return the peak memory of a call, in addition to the process's memory before.

    Attributes
    ----------
    taken : int
        Bytes of memory, without `code`.
    code : int
        Bytes of program code that ran for the first time.

    """

    taken: int
    code: int


def peak(operation: str, chunk: bytes, *, threads: int = 1) -> Peak:
    """Return the memory of a process's first call, in addition to its memory with `chunk` read.

    Parameters
    ----------
    operation : {"encode", "decode", "decode into out"}
        The call. The output of `decode into out` exists before.
    chunk : bytes
        Data, or for both kinds of decoding the result of `QPL().encode`.
    threads : int
        As in `numcodecs_qpl.set_threads`.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(chunk)
        file.flush()
        return Peak(*_ask("peak", operation, file.name, str(threads)))


def growth(calls: int) -> int:
    """Bytes by which a process grows in `calls` times encoding and decoding 4 KiB, after a warm-up."""
    (grown,) = _ask("growth", str(calls))
    return grown


def _ask(*words: str) -> list[int]:
    """The numbers that this file prints as a script."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE)
    return [int(word) for word in done.stdout.split()]


def _status(field: str) -> int:
    """VmRSS, VmHWM or RssFile of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _measure_peak(operation: str, chunk: bytes) -> Peak:
    codec = QPL()
    out = None
    if operation == "decode into out":
        out = bytearray(b"\xff") * int.from_bytes(chunk[-4:], "little")  # ISIZE of the only gzip member
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again at VmRSS
    before, files_before = _status("VmRSS"), _status("RssFile")
    if operation == "encode":
        codec.encode(chunk)
    else:
        codec.decode(chunk, out)
    code = _status("RssFile") - files_before
    return Peak(_status("VmHWM") - before - code, code)


def _measure_growth(calls: int) -> int:
    codecs = [QPL(container=container) for container in CONTAINERS]
    page = text(PAGE)
    before = 0
    for call in range(WARM_UP + calls):
        if call == WARM_UP:
            before = _status("VmRSS")
        codec = codecs[call % len(codecs)]
        codec.decode(codec.encode(page))
    return _status("VmRSS") - before


def main() -> None:
    """Run in the process of its own: prints numbers of bytes."""
    set_path("software")
    match sys.argv[1:]:
        case ["peak", operation, name, threads]:
            set_threads(int(threads))
            print(*_measure_peak(operation, Path(name).read_bytes()))
        case ["growth", calls]:
            print(_measure_growth(int(calls)))


if __name__ == "__main__":
    main()
