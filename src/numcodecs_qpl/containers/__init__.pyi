from typing import Literal, Protocol, overload

from numcodecs_qpl._core import Memory

ContainerName = Literal["gzip", "zlib", "deflate"]

class Reader:
    size_hint: int

class Container(Protocol):
    """The two functions of a container; `decode` fills `out` exactly, or returns the bytes if it is None."""

    def encode(self, src: Memory, dynamic: bool, block_size: int, /) -> bytes: ...
    @overload
    def decode(self, src: Memory, out: None, reader: Reader, /) -> bytes: ...
    @overload
    def decode(self, src: Memory, out: Memory, reader: Reader, /) -> None: ...

CONTAINERS: dict[ContainerName, Container]

class Leveled(Container, Protocol):
    """A container with zlib's levels. With `lenient`, `decode` accepts all that Python and numcodecs accept."""

    def encode_at_level(self, src: Memory, level: int, /) -> bytes: ...
    @overload
    def decode(self, src: Memory, out: None, reader: Reader, /, lenient: bool = False) -> bytes: ...
    @overload
    def decode(self, src: Memory, out: Memory, reader: Reader, /, lenient: bool = False) -> None: ...

gzip: Leveled
zlib: Leveled
