"""Compression methods of multifd, a file each. This is the register's list of them."""

from numcodecs_qpl.multifd.hooks import MultiFDCompression, register_ops
from numcodecs_qpl.multifd.methods.none import NoneMethods
from numcodecs_qpl.multifd.methods.qpl import QplMethods
from numcodecs_qpl.multifd.methods.zlib import ZlibMethods
from numcodecs_qpl.multifd.methods.zstd import ZstdMethods

register_ops(MultiFDCompression.NONE, NoneMethods())
register_ops(MultiFDCompression.ZLIB, ZlibMethods())
register_ops(MultiFDCompression.ZSTD, ZstdMethods())
register_ops(MultiFDCompression.QPL, QplMethods())
