"""Types of arguments and results, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    BufferLike: TypeAlias = Buffer | NDArray[Any]
    # For Python 3.11, NumPy's annotations do not make an array a Buffer.

Out = TypeVar("Out", bound="BufferLike")

Huffman = Literal["fixed", "dynamic"]
PathSetting = Literal["auto", "hardware", "software"]
PathName = Literal["hardware", "software"]
NumaPolicy = Literal["socket", "node", "any"]


class PathCounts(TypedDict):
    """Blocks done on a path."""

    compressed: int
    decompressed: int


class QueueCounts(TypedDict):
    """Submissions that a queue refused."""

    full: int


class EngineStats(TypedDict):
    """Counts of the IAA engine: blocks left to software, by the name of the reason, and refused submissions."""

    fallback: dict[str, int]
    queues: QueueCounts


class Stats(EngineStats):
    """Counts of `numcodecs_qpl.stats`."""

    hardware: PathCounts
    software: PathCounts
