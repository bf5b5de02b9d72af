"""QEMU's multifd live migration: its methods, a receiver, and a relay that recodes.

Importing this registers the methods: ``get_ops("qpl")`` has the seven hooks.
"""

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.methods import (
    MigrationParameters,
    MultiFDCompression,
    MultiFDMethods,
    MultiFDPages,
    RecvParams,
    SendParams,
    get_ops,
    register_ops,
)
from numcodecs_qpl.multifd.none import NoneMethods
from numcodecs_qpl.multifd.qpl import QplData, QplMethods
from numcodecs_qpl.multifd.ram import RAMBlock
from numcodecs_qpl.multifd.zlib import ZlibMethods
from numcodecs_qpl.multifd.zstd import ZstdMethods

__all__ = [
    "MigrationParameters",
    "MultiFDCompression",
    "MultiFDError",
    "MultiFDMethods",
    "MultiFDPages",
    "QplData",
    "RAMBlock",
    "RecvParams",
    "SendParams",
    "get_ops",
    "register_ops",
]

register_ops(MultiFDCompression.NONE, NoneMethods())
register_ops(MultiFDCompression.ZLIB, ZlibMethods())
register_ops(MultiFDCompression.ZSTD, ZstdMethods())
register_ops(MultiFDCompression.QPL, QplMethods())
