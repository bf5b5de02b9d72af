from typing import Protocol

from numcodecs_qpl._core import Memory

class Reader:
    size_hint: int

class Container(Protocol):
    """The two functions of a container; `decode` fills `out` exactly, or returns the bytes if it is None."""

    def encode(self, src: Memory, dynamic: bool, block_size: int, /) -> bytes: ...
    def decode(self, src: Memory, out: Memory | None, reader: Reader, /) -> bytes | None: ...

CONTAINERS: dict[str, Container]

class Leveled(Container, Protocol):
    """A container of zlib's levels; a lenient `decode` accepts what Python's and numcodecs' readers do."""

    def encode_at_level(self, src: Memory, level: int, /) -> bytes: ...
    def decode(self, src: Memory, out: Memory | None, reader: Reader, /, lenient: bool = False) -> bytes | None: ...

gzip: Leveled
zlib: Leveled
