"""A connection whose two directions are used by two threads."""

from __future__ import annotations

import resource
import socket
import sys
import threading

import pytest

from numcodecs_qpl.multifd.transport.connection import Connection

SENDS = 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the context switches of a thread")
def test_a_thread_that_waits_for_bytes_is_not_woken_by_what_goes_the_other_way() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    connection = Connection(ours, "the other side")
    switches: list[int] = []

    def wait() -> None:
        assert [bytes(piece) for piece in connection.pieces(100)] == [b"end"]
        switches.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw)

    thread = threading.Thread(target=wait)
    thread.start()
    data = bytes(1 << 16)
    with ours, theirs:
        for _ in range(SENDS):
            connection.send([data])
            assert theirs.recv(len(data), socket.MSG_WAITALL) == data
        theirs.sendall(b"end")
        theirs.shutdown(socket.SHUT_WR)
        thread.join()
    assert switches
    assert switches[0] < SENDS // 4
