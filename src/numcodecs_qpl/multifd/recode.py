"""Recoding of a multifd channel in the relay: each packet is decoded with one method and encoded with another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numcodecs_qpl.multifd.channel import PacketMemory, RecvChannel, SendChannel
from numcodecs_qpl.multifd.errors import MultiFDError, PeerClosedError
from numcodecs_qpl.multifd.hooks import MigrationParameters, MultiFDMethods, SendParams
from numcodecs_qpl.multifd.pair import Pair
from numcodecs_qpl.multifd.stream import wire


@dataclass(frozen=True)
class Recoding:
    """The methods of a relay.

    Attributes
    ----------
    decode : str
        Method of the packets from the source.
    encode : MultiFDMethods
        Method of the packets to the next hop.
    parameters : MigrationParameters
        Settings of `encode`.
    page_size : int
        Bytes in a page of the guest.
    """

    decode: str
    encode: MultiFDMethods
    parameters: MigrationParameters
    page_size: int

    def run(self, channel: int, pair: Pair, count: Callable[[wire.Packet], None]) -> None:
        """Pass on a channel of the source until its end.

        Parameters
        ----------
        channel : int
            The channel's id.
        pair : Pair
            Its connections, after the 64 opening bytes.
        count : callable
            ``count(packet)`` is called for each packet of pages that was passed on.

        Raises
        ------
        MultiFDError
            If a packet breaks the protocol, or a connection breaks.
        """
        memory = PacketMemory(self.page_size)
        params = SendParams(channel, self.page_size, wire.pages_in_packet(self.page_size), self.parameters)
        recv = RecvChannel(pair.source, channel, self.page_size, self.decode)
        send = SendChannel(pair.onward, params, self.encode)
        try:
            while (packet := recv.read()) is not None:
                if isinstance(packet, wire.DeviceStatePacket):
                    pair.onward.send([wire.pack_device_state(packet)])
                    recv.read_device_state(packet, lambda data: pair.onward.send([data]))
                    continue
                pages = memory.pages_of(packet)
                if packet.normal_pages or packet.zero_pages:
                    recv.read_pages(packet, pages)
                try:
                    send.send(recv.header, packet, pages)
                except PeerClosedError:
                    # QEMU up to 7.2 sends empty packets, even after the last SYNC, when the destination may close.
                    if packet.normal_pages or packet.zero_pages or packet.flags & wire.FLAG_SYNC:
                        raise
                count(packet)
        except MultiFDError as error:
            recv.locate(error)
            raise
        finally:
            recv.close()
            send.close()
