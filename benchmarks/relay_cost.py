"""Cost of a pair of relays in addition to compression: CPU time against loops in C, and memory.

Packets of pages go through two relays, none to qpl and back, each bound to a core of its own. The loops in C compress
and inflate the same pages and touch no socket; a third process does nothing but to read and write as many bytes as the
relays do, with the same calls, to tell which part of the difference is the kernel's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import numpy as np
from commands import Command
from guest import make_data
from numpy.typing import NDArray
from raw import RawDeflate, RawInflate
from timing import seconds_of

from numcodecs_qpl.multifd.stream import wire

PAGE = 4096
PACKET = 128 * PAGE
MAIN_HEAD = b"QEVM" + struct.pack(">I", 3)
MAIN_TAIL = b"\x00\x06" + struct.pack(">I", 14) + b'{"devices":[]}'
LOOPS = 5
MEMORY_CHANNELS = 8
"""Channels of the relays whose memory is measured."""


def packets_of_data(mebibytes: int) -> NDArray[np.uint8]:
    """Pages of `guest.make_data` that are not zeros, shape (packets, 128, 4096)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        make_data(path, mebibytes)
        pages = np.fromfile(path, np.uint8).reshape(-1, PAGE)
    pages = pages[pages.any(axis=1)]
    return np.ascontiguousarray(pages[: len(pages) // 128 * 128]).reshape(-1, 128, PAGE)


def cpu_of_loop(loop: Callable[[], object]) -> float:
    """CPU seconds of a loop in C: the median of a few runs."""
    return median(seconds_of(loop, clock=time.process_time) for _ in range(LOOPS))


def relay_pair(packets: NDArray[np.uint8], huffman: str, repeat: int, channels: int = 1) -> list[dict[str, Any]]:
    """Send the packets `repeat` times through two relays, on each of `channels` a part of them.

    Returns
    -------
    list of dict
        What each relay tells about itself, with ``"peak"``, the bytes that it had resident at most.
    """
    headers = [
        wire.pack(
            wire.Packet(0, 128, 128, PACKET, number, 0, "m", np.arange(128, dtype=np.uint64) * np.uint64(PAGE)), 128
        )
        for number in range(len(packets))
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        at = {place: f"{folder}/{place}" for place in "abc"}
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(at["c"])
        server.listen()
        there = ["--listen", f"unix:{at['b']}", "--connect", f"unix:{at['c']}", "--from", "qpl", "--to", "none"]
        here = ["--listen", f"unix:{at['a']}", "--connect", f"unix:{at['b']}", "--from", "none", "--to", "qpl"]
        relays = [
            stack.enter_context(Command("relay", *arguments, prefix=["taskset", "--cpu-list", str(core)]))
            for arguments, core in zip((there, [*here, "--huffman", huffman]), itertools.cycle(_cores()))
        ][::-1]
        sinks = [threading.Thread(target=lambda: _drain(server.accept()[0])) for _ in range(1 + channels)]
        for sink in sinks:
            sink.start()
        main = stack.enter_context(_connected(at["a"], MAIN_HEAD))
        senders = [
            threading.Thread(
                target=_send, args=(number, at["a"], headers[number::channels], packets[number::channels], repeat)
            )
            for number in range(channels)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        peaks = [_peak(relay.pid) for relay in relays]
        main.sendall(MAIN_TAIL)
        main.shutdown(socket.SHUT_WR)
        told = [relay.finish_relay() for relay in relays]
        for sink in sinks:
            sink.join()
    for status, _, said in told:
        if status:
            raise RuntimeError(f"a relay failed: {said}")
    return [{**line, "peak": peak} for (_, line, _), peak in zip(told, peaks, strict=True)]


def _connected(path: str, head: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(head)
    return sock


def _send(number: int, path: str, headers: Sequence[bytes], packets: NDArray[np.uint8], repeat: int) -> None:
    with _connected(path, wire.pack_initial(wire.InitialPacket(UUID(int=0), number))) as channel:
        for _ in range(repeat):
            for header, pages in zip(headers, packets, strict=True):
                channel.sendall(header)
                channel.sendall(pages.data)
        channel.shutdown(socket.SHUT_WR)
        channel.recv(1)


def moved(sizes: Sequence[int], out_sizes: Sequence[int]) -> float:
    """CPU seconds of a process that reads messages of `sizes` bytes and writes such of `out_sizes`, as a relay does."""
    mover = (
        "import json, socket, sys, time\n"
        "sizes, out_sizes = json.loads(sys.argv[1])\n"
        "source, target = (socket.socket(fileno=int(number)) for number in sys.argv[2:])\n"
        "target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)\n"
        "buffer = memoryview(bytearray(max(sizes + out_sizes)))\n"
        "start = time.process_time()\n"
        "for size, out_size in zip(sizes, out_sizes):\n"
        "    source.recv_into(buffer, 1344, socket.MSG_WAITALL)\n"
        "    source.recv_into(buffer, size, socket.MSG_WAITALL)\n"
        "    target.sendall(buffer[:out_size])\n"
        "print(time.process_time() - start)\n"
    )
    (near, source), (target, far) = socket.socketpair(), socket.socketpair()
    arguments = [json.dumps([sizes, out_sizes]), str(source.fileno()), str(target.fileno())]
    with subprocess.Popen(
        [sys.executable, "-c", mover, *arguments],
        stdout=subprocess.PIPE,
        pass_fds=[source.fileno(), target.fileno()],
    ) as process:
        source.close()
        target.close()
        sink = threading.Thread(target=_drain, args=(far,))
        sink.start()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        content = memoryview(bytes(max(sizes) + 1344))
        for size in sizes:
            near.sendall(content[:1344])
            near.sendall(content[:size])
        assert process.stdout is not None
        took = float(process.stdout.read())
        near.close()
        sink.join()
    return took


def _drain(sock: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    with sock:
        while sock.recv_into(buffer):
            pass


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _peak(pid: int | str) -> int:
    """VmHWM of a process in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def bare_interpreter() -> int:
    """Bytes that a Python that imports nothing has resident at most."""
    script = "print(open('/proc/self/status').read())"
    told = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True).stdout
    (line,) = (line for line in told.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(packets: NDArray[np.uint8], huffman: str, repeat: int) -> dict[str, float]:
    """CPU in microseconds a packet, ratios to the loops in C, and MiB of 8 channels above the bare interpreter."""
    data = packets.tobytes()
    encode = RawDeflate("ISA-L", data, PAGE, dynamic=huffman == "dynamic", pages=True)
    decode = RawInflate.of("libdeflate", encode, data, PAGE, pages=True)
    loop = [cpu_of_loop(encode), cpu_of_loop(decode)]
    lines = relay_pair(packets, huffman, repeat)
    whole = [PACKET] * len(packets)
    packed = [(encode.size // len(packets))] * len(packets)
    bare = [moved(whole, packed), moved(packed, whole)]
    peak = max(line["peak"] for line in relay_pair(packets, huffman, 1, MEMORY_CHANNELS))
    relays = [line["cpu_seconds"] / repeat for line in lines]
    a_packet = 1e6 / len(packets)
    return {
        "loop_encode_us": loop[0] * a_packet,
        "loop_decode_us": loop[1] * a_packet,
        "relay_encode_us": relays[0] * a_packet,
        "relay_decode_us": relays[1] * a_packet,
        "moving_encode_us": bare[0] * a_packet,
        "moving_decode_us": bare[1] * a_packet,
        "encode": relays[0] / loop[0],
        "decode": relays[1] / loop[1],
        "pair": sum(relays) / sum(loop),
        "pair_over_moving": sum(relays) / (sum(loop) + sum(bare)),
        "memory_mib": (peak - bare_interpreter()) / 2**20,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=64, help="of data, of which pages of zeros are left out (64)")
    parser.add_argument("--repeat", type=int, default=4, help="times that the data goes through the relays (4)")
    parser.add_argument("--runs", type=int, default=3, help="runs; medians are told (3)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    packets = packets_of_data(arguments.mebibytes)
    report: dict[str, Any] = {"packets": len(packets), "machine": platform.processor() or platform.machine()}
    for huffman in ("fixed", "dynamic"):
        runs = [measure(packets, huffman, arguments.repeat) for _ in range(arguments.runs)]
        figures = {name: median(run[name] for run in runs) for name in runs[0]}
        report[huffman] = figures
        print(f"{huffman} tables, software path, CPU microseconds a packet of 128 pages, of {len(packets)} packets:")
        for side in ("encode", "decode"):
            print(
                f"  {side}: loop in C {figures[f'loop_{side}_us']:.0f}, relay {figures[f'relay_{side}_us']:.0f} "
                f"({figures[side]:.3f}); its bytes alone {figures[f'moving_{side}_us']:.0f}"
            )
        print(
            f"  both: {figures['pair']:.3f} of the loops in C, {figures['pair_over_moving']:.3f} of the loops and the "
            f"bytes; with {MEMORY_CHANNELS} channels {figures['memory_mib']:.1f} MiB above a bare interpreter"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
