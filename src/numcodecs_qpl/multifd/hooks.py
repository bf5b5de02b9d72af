"""What a compression method of multifd is: seven hooks, and a register of the methods that have them.

The hooks are those of ``MultiFDMethods`` in patch 4 of 8 of "Live Migration With IAA", v4 (Yuan Liu, March 2024); the
behaviour is that of QEMU 9.1, where it was merged. In C a hook is given its channel's state and leaves what it made in
there; so it is here.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.multifd.errors import SettingsError
from numcodecs_qpl.multifd.ram import RAMBlock
from numcodecs_qpl.multifd.stream import wire

ReadInto: TypeAlias = Callable[[Sequence[memoryview]], None]


class MultiFDCompression(enum.Enum):
    """QEMU's migration parameter ``multifd-compression``: the methods that are here."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"
    QPL = "qpl"


@dataclass(frozen=True)
class MigrationParameters:
    """QEMU's migration parameters that methods look at, with QEMU's defaults.

    Attributes
    ----------
    multifd_zlib_level : int
        zlib's level, 0 to 9.
    multifd_zstd_level : int
        zstd's level, 1 to 20.
    huffman : {"fixed", "dynamic"}
        qpl's Huffman tables: deflate's fixed ones, as QEMU itself writes, or tables made for each page, which QEMU
        reads as well.
    """

    multifd_zlib_level: int = 1
    multifd_zstd_level: int = 1
    huffman: Huffman = "fixed"


@dataclass(slots=True)
class MultiFDPages:
    """Pages that one packet takes along: QEMU's ``MultiFDPages_t``.

    Attributes
    ----------
    block : RAMBlock or None
        The block that they are in; None where there are none.
    normal : ndarray of uint64
        Offsets of pages whose bytes are sent.
    zero : ndarray of uint64
        Offsets of pages that are all zeros.
    """

    block: RAMBlock | None = None
    normal: wire.Offsets = field(default_factory=lambda: np.empty(0, np.uint64))
    zero: wire.Offsets = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(slots=True)
class SendParams:
    """The state of a sending channel: what QEMU keeps in ``MultiFDSendParams``.

    Attributes
    ----------
    id : int
        The channel's number.
    page_size, page_count : int
        Bytes in a page, and pages that a packet has room for.
    parameters : MigrationParameters
        Settings of the migration.
    pages : MultiFDPages
        What the packet takes along; set before ``send_prepare``.
    iov : list of buffer
        The packet's payload, in pieces; left by ``send_prepare``, valid until its next call.
    next_packet_size : int
        Bytes of the payload; left by ``send_prepare``.
    flags : int
        The packet's flags; ``send_prepare`` adds the method's bit.
    data : object
        The method's own state, from ``send_setup`` to ``send_cleanup``: QEMU's ``compress_data``.
    """

    id: int
    page_size: int = 4096
    page_count: int = 128
    parameters: MigrationParameters = field(default_factory=MigrationParameters)
    pages: MultiFDPages = field(default_factory=MultiFDPages)
    iov: list[Any] = field(default_factory=list)
    next_packet_size: int = 0
    flags: int = 0
    data: Any = None


@dataclass(slots=True)
class RecvParams:
    """The state of a receiving channel: what QEMU keeps in ``MultiFDRecvParams``.

    Attributes
    ----------
    id : int
        The channel's number.
    page_size, page_count : int
        Bytes in a page, and pages that a packet has room for.
    read_into : callable
        ``read_into(views)`` fills the views, one after the other, with the next bytes of the channel, or raises.
    pages : MultiFDPages
        Where the packet's pages go; their offsets have been checked.
    next_packet_size : int
        Bytes of the payload, checked against `wire.payload_limits`.
    flags : int
        The packet's flags.
    data : object
        The method's own state, from ``recv_setup`` to ``recv_cleanup``.
    """

    id: int
    read_into: ReadInto
    page_size: int = 4096
    page_count: int = 128
    pages: MultiFDPages = field(default_factory=MultiFDPages)
    next_packet_size: int = 0
    flags: int = 0
    data: Any = None


class MultiFDMethods(ABC):
    """The seven hooks of a method. One object serves all channels; what belongs to a channel is in its parameters."""

    @abstractmethod
    def send_setup(self, params: SendParams) -> None:
        """Make ready to send. Called once for each channel, before its first packet; leaves ``params.data``.

        Raises
        ------
        MultiFDError
            If the method cannot be used here.
        """

    @abstractmethod
    def send_cleanup(self, params: SendParams) -> None:
        """Release what `send_setup` made. Called once, after the channel's last packet, also after an error."""

    @abstractmethod
    def send_prepare(self, params: SendParams) -> None:
        """Turn ``params.pages`` into a payload.

        Called by the channel for each packet that has pages, normal or zero. Must leave ``params.iov`` and
        ``params.next_packet_size`` (without normal pages: no buffer, and 0), with no more buffers than
        `get_iov_count` says, and the method's bit in ``params.flags``. The header is the caller's affair.

        Raises
        ------
        MultiFDError
            If the method fails, and may not send the pages as they are.
        """

    @abstractmethod
    def recv_setup(self, params: RecvParams) -> None:
        """Make ready to receive. Called once for each channel, before its first packet; leaves ``params.data``.

        Raises
        ------
        MultiFDError
            If the method cannot be used here.
        """

    @abstractmethod
    def recv_cleanup(self, params: RecvParams) -> None:
        """Release what `recv_setup` made. Called once, after the channel's last packet, also after an error."""

    @abstractmethod
    def recv_pages(self, params: RecvParams) -> None:
        """Read ``params.next_packet_size`` bytes and put the pages that they hold to ``params.pages.normal``.

        Called by the channel for each packet that has pages, normal or zero; without normal ones it reads nothing. The
        zero pages are the caller's affair.

        Raises
        ------
        MultiFDError
            If the packet is not of this method, or its payload does not hold exactly those pages. Nothing is written
            outside of the pages at ``params.pages.normal``; what is in these is then undefined.
        """

    @abstractmethod
    def get_iov_count(self, page_count: int) -> int:
        """The most buffers that `send_prepare` leaves for `page_count` pages. Called once, before `send_setup`."""


_ops: dict[str, MultiFDMethods] = {}


def register_ops(method: MultiFDCompression, ops: MultiFDMethods) -> None:
    """Enter a method's hooks in the register. Importing `numcodecs_qpl.multifd` does so for all that are here.

    Raises
    ------
    ValueError
        If the method has hooks already.
    """
    if method.value in _ops:
        raise ValueError(f"multifd method {method.value!r} is registered already; registered are {', '.join(_ops)}")
    _ops[method.value] = ops


def get_ops(name: str) -> MultiFDMethods:
    """The hooks of the method `name`.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in _ops:
        raise ValueError(f"multifd method {name!r} is not known; registered are {', '.join(_ops)}")
    return _ops[name]


def check_method(params: RecvParams, flag: int) -> None:
    """Make sure that a packet is of the method whose bit is `flag`.

    Raises
    ------
    MultiFDError
        If it is of another.
    """
    method = params.flags & wire.METHOD_MASK
    if method != flag:
        raise SettingsError(
            f"the packet is of method {wire.METHOD_NAMES[method]!r}; agreed is {wire.METHOD_NAMES[flag]!r} "
            "(the source's multifd-compression must be what this end was told)",
            field="flags",
        )
