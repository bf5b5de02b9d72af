"""QEMU's multifd live migration: its methods, a receiver, and a relay that recodes.

The import registers the methods: ``get_ops("qpl")`` returns the seven hooks.
"""

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.hooks import (
    MigrationParameters,
    MultiFDCompression,
    MultiFDMethods,
    MultiFDPages,
    RecvParams,
    SendParams,
    get_ops,
    register_ops,
)
from numcodecs_qpl.multifd.methods.qpl import QplData
from numcodecs_qpl.multifd.ram import RAMBlock

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
