"""A multifd channel: reading packets from a connection, and sending packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from numcodecs_qpl.multifd.errors import MultiFDError, PeerClosedError
from numcodecs_qpl.multifd.hooks import MultiFDMethods, MultiFDPages, RecvParams, SendParams, get_ops
from numcodecs_qpl.multifd.ram import RAMBlock
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.transport.connection import Connection

AnyPacket: TypeAlias = wire.Packet | wire.DeviceStatePacket

PIECE = 64 * 1024  # bytes of device state that are passed on at a time


class PacketMemory(RAMBlock):
    """Memory for the pages of one packet, one after the other from its beginning."""

    def __init__(self, page_size: int) -> None:
        super().__init__("", wire.PACKET_SIZE, page_size, bytearray(wire.PACKET_SIZE))
        self._places = np.arange(len(self.pages), dtype=np.uint64) * np.uint64(page_size)

    def pages_of(self, packet: wire.Packet) -> MultiFDPages:
        """Return the places of the normal pages of `packet` in this memory; the offsets of zero pages do not change."""
        return MultiFDPages(self, self._places[: packet.normal_pages], packet.zero)

    def runs(self, offsets: wire.Offsets) -> list[memoryview]:
        """Return the memory of the packet's pages, in one piece."""
        return [self.view[: len(offsets) * self.page_size]] if len(offsets) else []


class RecvChannel:
    """The receiving end of a channel.

    Parameters
    ----------
    connection : Connection
        The connection, from which the 64 opening bytes have been read.
    channel : int
        The channel's id, for messages.
    page_size : int
        Bytes in a page of the guest.
    method : str, optional
        Method of the packets. The default is the method of the first packet with pages.

    Attributes
    ----------
    method : str
        Method of the packets; empty until it is known.
    packets : int
        Headers read so far.
    header : bytearray
        Header of the last packet of pages, unchanged.
    """

    def __init__(self, connection: Connection, channel: int, page_size: int, method: str = "") -> None:
        self._connection = connection
        self.method = ""
        self._ops: MultiFDMethods | None = None
        self._page_size = page_size
        page_count = wire.pages_in_packet(page_size)
        self._params = RecvParams(channel, connection.read_into, page_size, page_count)
        self.header = bytearray(wire.header_size(page_count))
        self.packets = 0
        if method:
            self._set_up(method)

    def close(self) -> None:
        """Release the method's state. The connection stays open."""
        if self._ops is not None:
            self._ops.recv_cleanup(self._params)

    def read(self) -> AnyPacket | None:
        """Return the next packet's header, or None if the channel ended before it.

        Raises
        ------
        MultiFDError
            If the header is invalid, or the channel ended within it.
        """
        view = memoryview(self.header)
        size = self._connection.read_some(view[: wire.START_SIZE])
        if not size:
            return None
        if size < wire.START_SIZE:
            self._connection.read_into([view[size : wire.START_SIZE]])
        self.packets += 1
        if wire.unpack_flags(view) & wire.FLAG_DEVICE_STATE:
            self._connection.read_into([view[wire.START_SIZE : wire.DEVICE_STATE_SIZE]])
            return wire.unpack_device_state(view[: wire.DEVICE_STATE_SIZE])
        self._connection.read_into([view[wire.START_SIZE :]])
        return wire.unpack(self.header, self._page_size)

    def read_pages(self, packet: wire.Packet, pages: MultiFDPages) -> None:
        """Read the pages that follow `packet` to the places in `pages`.

        Raises
        ------
        MultiFDError
            If the method's hook raises it.
        """
        ops = self._ops or self._set_up(wire.METHOD_NAMES[packet.flags & wire.METHOD_MASK])
        self._params.flags = packet.flags
        self._params.next_packet_size = packet.payload_size
        self._params.pages = pages
        ops.recv_pages(self._params)

    def _set_up(self, method: str) -> MultiFDMethods:
        try:
            ops = get_ops(method)
        except ValueError as error:
            raise MultiFDError(str(error), field="flags") from error
        ops.recv_setup(self._params)
        self.method = method
        self._ops = ops
        return ops

    def read_device_state(self, packet: wire.DeviceStatePacket, write: Callable[[memoryview], object]) -> None:
        """Pass the device state that follows `packet` to `write`, piece by piece."""
        piece = memoryview(bytearray(min(PIECE, packet.next_packet_size)))
        left = packet.next_packet_size
        while left:
            view = piece[:left]
            self._connection.read_into([view])
            write(view)
            left -= len(view)

    def locate(self, error: MultiFDError) -> None:
        """Add the place to `error`: the channel, and the packet that was read last."""
        within = self.packets - 1 if self.packets and not isinstance(error, PeerClosedError) else None
        error.locate(self._params.id, within)


class SendChannel:
    """The sending end of a channel.

    Parameters
    ----------
    connection : Connection
        The connection, to which the 64 opening bytes have been sent.
    params : SendParams
        The channel's state.
    ops : MultiFDMethods
        The method to write.
    """

    def __init__(self, connection: Connection, params: SendParams, ops: MultiFDMethods) -> None:
        self._connection = connection
        self._params = params
        self._ops = ops
        ops.send_setup(params)

    def close(self) -> None:
        """Release the method's state. The connection stays open."""
        self._ops.send_cleanup(self._params)

    def send(self, header: bytearray, packet: wire.Packet, pages: MultiFDPages) -> None:
        """Send `pages` with the header of a received packet, after changing its method and payload size.

        Parameters
        ----------
        header : bytearray
            The received header; it is changed.
        packet : Packet
            The unpacked header.
        pages : MultiFDPages
            Places of the pages in this process.

        Raises
        ------
        PeerClosedError
            If the other side has closed the connection.
        """
        params = self._params
        params.flags = packet.flags & ~wire.METHOD_MASK
        params.next_packet_size = 0
        params.iov = []
        if packet.normal_pages or packet.zero_pages:
            params.pages = pages
            self._ops.send_prepare(params)
        wire.repack(header, params.flags, params.next_packet_size)
        self._connection.send([header, *params.iov])
