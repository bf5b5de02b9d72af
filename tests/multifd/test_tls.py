"""TLS connections whose two directions end on their own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from numcodecs_qpl.multifd.errors import PeerClosedError
from numcodecs_qpl.multifd.transport.tls import TLSConnection

PATIENCE = 30.0


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's."""
    authority = trustme.CA()
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("here").configure_cert(server)
    return client, server


@pytest.fixture
def ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[tuple[TLSConnection, TLSConnection]]:
    """A client and a server that have shaken hands."""
    sockets = socket.socketpair()
    for sock in sockets:
        sock.settimeout(PATIENCE)
    client = TLSConnection(sockets[0], "the server", contexts[0], "here")
    server = TLSConnection(sockets[1], "the client", contexts[1])
    thread = threading.Thread(target=client.shake_hands)
    thread.start()
    server.shake_hands()
    thread.join()
    yield client, server
    client.close()
    server.close()


def read_all(connection: TLSConnection) -> bytes:
    content = bytearray()
    piece = memoryview(bytearray(5000))
    while size := connection.read_some(piece):
        content += piece[:size]
    return bytes(content)


@pytest.mark.parametrize("size", [1, 16_384, 1_000_000])
def test_what_is_sent_in_several_buffers_arrives_and_is_counted(
    ends: tuple[TLSConnection, TLSConnection], size: int
) -> None:
    client, server = ends
    content = bytes(range(256)) * (size // 256 + 1)

    def send() -> None:
        client.send([content[:7], bytearray(content[7:20]), memoryview(content)[20:]])
        client.end()

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(server) == content
    sender.join()
    assert (client.sent, server.received) == (len(content), len(content))


def test_a_side_that_has_said_good_bye_reads_all_that_the_other_one_still_sends(
    ends: tuple[TLSConnection, TLSConnection],
) -> None:
    client, server = ends
    under_way = b"sent before the good-bye came" * 1000
    server.send([under_way])
    client.end()
    assert server.read_some(memoryview(bytearray(10))) == 0

    def send() -> None:
        server.send([bytes(1_000_000)])
        server.end()

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(client) == under_way + bytes(1_000_000)
    sender.join()


def test_when_both_have_said_good_bye_both_read_a_clean_end(ends: tuple[TLSConnection, TLSConnection]) -> None:
    for each in ends:
        each.end()
    for each in ends:
        assert read_all(each) == b""


def test_an_end_without_a_good_bye_is_a_broken_connection(ends: tuple[TLSConnection, TLSConnection]) -> None:
    client, server = ends
    client.send([b"half"])
    client.abort()
    with pytest.raises(PeerClosedError, match="without TLS's good-bye"):
        server.read_into([memoryview(bytearray(8))])


def test_bytes_that_are_not_tls_break_the_connection(ends: tuple[TLSConnection, TLSConnection]) -> None:
    client, server = ends
    client._socket.sendall(b"not a record of TLS at all")
    with pytest.raises(PeerClosedError, match="the connection to the client broke"):
        server.read_some(memoryview(bytearray(8)))


def test_a_server_of_another_name_is_refused(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    sockets = socket.socketpair()
    client = TLSConnection(sockets[0], "the server", contexts[0], "there")
    server = TLSConnection(sockets[1], "the client", contexts[1])
    told: list[Exception] = []

    def serve() -> None:
        try:
            server.shake_hands()
            server.read_some(memoryview(bytearray(1)))
        except (OSError, PeerClosedError) as error:
            told.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        client.shake_hands()
    client.close()
    thread.join()
    assert told
    assert "alert" in str(told[0])
    server.close()
