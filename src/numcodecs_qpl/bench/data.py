"""Built-in benchmark data: generated, the same on every machine, and typical of the codec's use."""

from __future__ import annotations

import numpy as np


def float32_field(size: int) -> bytes:
    """Make a smooth two-dimensional float32 field with noise, rounded to 1/128, like a physical quantity on a grid."""
    rng = np.random.default_rng(20240301)
    side = int(np.ceil(np.sqrt(size / 4)))
    y, x = (axis / 256 for axis in np.ogrid[0:side, 0:side])
    field = 15 + 10 * np.sin(x) * np.cos(y) + 3 * np.sin(5 * x + 2 * y)
    field += 0.25 * rng.standard_normal(field.shape)
    return bytes((np.round(field * 128) / 128).astype("<f4").tobytes()[:size])


def int16_field(size: int) -> bytes:
    """Make a slowly varying int16 count with small noise, like packed satellite data."""
    rng = np.random.default_rng(20240302)
    side = int(np.ceil(np.sqrt(size / 2)))
    y, x = (axis / 512 for axis in np.ogrid[0:side, 0:side])
    field = 4000 + 1500 * np.sin(x) * np.cos(y) + rng.integers(-2, 3, (side, side))
    return bytes(field.astype("<i2").tobytes()[:size])


def text(size: int) -> bytes:
    """Make lines of words from a vocabulary of 4,000, with frequencies by Zipf's law, like a log."""
    rng = np.random.default_rng(20240303)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", np.uint8)
    weights = np.arange(26, 0, -1) / sum(range(27))
    words = [bytes(rng.choice(letters, rng.integers(2, 11), p=weights)) for _ in range(4000)]
    ranks = rng.zipf(1.35, size // 3 + 16) % len(words)
    lines = (b" ".join(words[rank] for rank in ranks[start : start + 9]) for start in range(0, len(ranks), 9))
    return b"\n".join(lines)[:size]


DATA_SETS = {"float32 field": float32_field, "int16 field": int16_field, "text": text}
"""Functions that make the first bytes of a data set, by its name."""

DTYPES = {"float32 field": "<f4", "int16 field": "<i2", "text": "|u1"}
"""Their dtypes."""
