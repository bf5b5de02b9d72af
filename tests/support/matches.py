"""The matches in a raw deflate stream (RFC 1951), read bit by bit, with no decompressor that could forgive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_LENGTH_BITS = [0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0]
_LENGTHS = [3 + sum(1 << extra for extra in _LENGTH_BITS[:code]) for code in range(28)] + [258]
_DISTANCE_BITS = [0, 0, *(bits for bits in range(14) for _ in range(2))]
_CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
_FIXED = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8

Codes = dict[tuple[int, int], int]


class Bits:
    """The bits of a stream, from the first on."""

    def __init__(self, stream: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little").tolist()
        self.at = 0

    def take(self, count: int) -> int:
        """A number of so many bits."""
        taken = self._bits[self.at : self.at + count]
        self.at += count
        return sum(bit << place for place, bit in enumerate(taken))

    def symbol(self, codes: Codes) -> int:
        """The symbol of the next code."""
        code = 0
        for length in range(1, 16):
            code = code << 1 | self.take(1)
            if (length, code) in codes:
                return codes[length, code]
        raise AssertionError("no such code")


def _codes(lengths: Sequence[int]) -> Codes:
    """Symbols by length and code (RFC 1951, 3.2.2)."""
    codes, code = {}, 0
    for length in range(1, 16):
        for symbol in (symbol for symbol, its in enumerate(lengths) if its == length):
            codes[length, code] = symbol
            code += 1
        code <<= 1
    return codes


def _dynamic(bits: Bits) -> tuple[Codes, Codes]:
    literals, distances, count = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    code_lengths = [0] * 19
    for symbol in _CODE_LENGTH_ORDER[:count]:
        code_lengths[symbol] = bits.take(3)
    codes = _codes(code_lengths)
    lengths: list[int] = []
    while len(lengths) < literals + distances:
        symbol = bits.symbol(codes)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            lengths += [lengths[-1]] * (3 + bits.take(2))
        elif symbol == 17:
            lengths += [0] * (3 + bits.take(3))
        else:
            lengths += [0] * (11 + bits.take(7))
    return _codes(lengths[:literals]), _codes(lengths[literals:])


def blocks(stream: bytes) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Each block's type (0 stored, 1 fixed tables, 2 dynamic ones), and its matches as lengths and distances."""
    bits = Bits(stream)
    final = 0
    while not final:
        final, kind = bits.take(1), bits.take(2)
        matches = []
        if kind == 0:
            bits.at += -bits.at % 8
            size = bits.take(16)
            assert bits.take(16) == size ^ 0xFFFF
            bits.at += 8 * size
        else:
            literals, distances = _dynamic(bits) if kind == 2 else (_codes(_FIXED), _codes([5] * 30))
            while (symbol := bits.symbol(literals)) != 256:
                if symbol > 256:
                    length = _LENGTHS[symbol - 257] + bits.take(_LENGTH_BITS[symbol - 257])
                    code = bits.symbol(distances)
                    base = 1 + sum(1 << extra for extra in _DISTANCE_BITS[:code])
                    matches.append((length, base + bits.take(_DISTANCE_BITS[code])))
        yield kind, matches
    assert -(-bits.at // 8) == len(stream)


def farthest(stream: bytes) -> int:
    """The greatest distance in a stream; 0 where it has no match."""
    return max((distance for _, matches in blocks(stream) for _, distance in matches), default=0)
