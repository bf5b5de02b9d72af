"""Interface of multifd's compression methods: seven hooks, and a register of methods.

The hooks are those of ``MultiFDMethods`` in patch 4 of 8 of "Live Migration With IAA", v4 (Yuan Liu, March 2024). Their
behaviour is that of QEMU 9.1, where the series was merged. As in C, a hook gets its channel's state and stores its
results there.
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
    """Values of QEMU's migration parameter ``multifd-compression`` that are implemented."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"
    QPL = "qpl"


@dataclass(frozen=True)
class MigrationParameters:
    """QEMU's migration parameters that methods use, with QEMU's defaults.

    Attributes
    ----------
    multifd_zlib_level : int
        zlib's level, 0 to 9.
    multifd_zstd_level : int
        zstd's level, 1 to 20.
    huffman : {"fixed", "dynamic"}
        qpl's Huffman tables: deflate's fixed ones, as in QEMU, or tables made for each page, which QEMU also reads.
    """

    multifd_zlib_level: int = 1
    multifd_zstd_level: int = 1
    huffman: Huffman = "fixed"


@dataclass(slots=True)
class MultiFDPages:
    """Pages of one packet: QEMU's ``MultiFDPages_t``.

    Attributes
    ----------
    block : RAMBlock or None
        The block of the pages; None without pages.
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
    """State of a sending channel: QEMU's ``MultiFDSendParams``.

    Attributes
    ----------
    id : int
        The channel's number.
    page_size, page_count : int
        Bytes in a page, and pages that a packet has room for.
    parameters : MigrationParameters
        Settings of the migration.
    pages : MultiFDPages
        Pages of the packet; set before ``send_prepare``.
    iov : list of buffer
        The packet's payload, in pieces; set by ``send_prepare``, valid until its next call.
    next_packet_size : int
        Bytes of the payload; set by ``send_prepare``.
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
    """State of a receiving channel: QEMU's ``MultiFDRecvParams``.

    Attributes
    ----------
    id : int
        The channel's number.
    page_size, page_count : int
        Bytes in a page, and pages that a packet has room for.
    read_into : callable
        ``read_into(views)`` fills the views, one after the other, with the next bytes of the channel, or raises.
    pages : MultiFDPages
        Places of the packet's pages; their offsets have been checked.
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
    """The seven hooks of a method. One object serves all channels; a channel's state is in its parameters."""

    @abstractmethod
    def send_setup(self, params: SendParams) -> None:
        """Prepare to send. Called once for each channel, before its first packet; sets ``params.data``.

        Raises
        ------
        MultiFDError
            If the method cannot be used here.
        """

    @abstractmethod
    def send_cleanup(self, params: SendParams) -> None:
        """Release the state of `send_setup`. Called once, after the channel's last packet, also after an error."""

    @abstractmethod
    def send_prepare(self, params: SendParams) -> None:
        """Turn ``params.pages`` into a payload.

        The channel calls this for each packet with pages, normal or zero. It must set ``params.iov`` and
        ``params.next_packet_size``; without normal pages these are empty and 0. ``params.iov`` has at most
        `get_iov_count` buffers. The method's bit must be set in ``params.flags``. The caller writes the header.

        Raises
        ------
        MultiFDError
            If the method fails, and may not send the pages uncompressed.
        """

    @abstractmethod
    def recv_setup(self, params: RecvParams) -> None:
        """Prepare to receive. Called once for each channel, before its first packet; sets ``params.data``.

        Raises
        ------
        MultiFDError
            If the method cannot be used here.
        """

    @abstractmethod
    def recv_cleanup(self, params: RecvParams) -> None:
        """Release the state of `recv_setup`. Called once, after the channel's last packet, also after an error."""

    @abstractmethod
    def recv_pages(self, params: RecvParams) -> None:
        """Read ``params.next_packet_size`` bytes, and write their pages to ``params.pages.normal``.

        The channel calls this for each packet with pages, normal or zero. Without normal pages it reads nothing. The
        caller clears the zero pages.

        Raises
        ------
        MultiFDError
            If the packet is of another method, or its payload does not contain exactly those pages. Nothing is written
            outside of the pages at ``params.pages.normal``, whose content is then undefined.
        """

    @abstractmethod
    def get_iov_count(self, page_count: int) -> int:
        """Return the most buffers that `send_prepare` uses for `page_count` pages. Called once, before `send_setup`."""


_ops: dict[str, MultiFDMethods] = {}


def register_ops(method: MultiFDCompression, ops: MultiFDMethods) -> None:
    """Register a method's hooks. Importing `numcodecs_qpl.multifd` does this for all methods of the package.

    Raises
    ------
    ValueError
        If the method is registered already.
    """
    if method.value in _ops:
        raise ValueError(f"multifd method {method.value!r} is registered already; registered are {', '.join(_ops)}")
    _ops[method.value] = ops


def get_ops(name: str) -> MultiFDMethods:
    """Return the hooks of the method `name`.

    Raises
    ------
    ValueError
        If no method of that name is registered.
    """
    if name not in _ops:
        raise ValueError(f"unknown multifd method {name!r}: expected one of {', '.join(_ops)}")
    return _ops[name]


def check_method(params: RecvParams, flag: int) -> None:
    """Check that a packet is of the method whose bit is `flag`.

    Raises
    ------
    MultiFDError
        If it is of another method.
    """
    method = params.flags & wire.METHOD_MASK
    if method != flag:
        raise SettingsError(
            f"the packet is of method {wire.METHOD_NAMES[method]!r}; expected {wire.METHOD_NAMES[flag]!r} "
            "(set the source's multifd-compression to the method of this end)",
            field="flags",
        )
