"""Work timed in turns with zarr's codecs and with ours: who does it, in which order, and what is noted."""

from __future__ import annotations

import time

import numcodecs
import numpy as np
import pytest

from numcodecs_qpl import enable, stats
from numcodecs_qpl.comparison import in_turns

ENCODED = numcodecs.Zlib(5).encode(np.arange(1000, dtype="u1"))


def served() -> bool:
    """Return True if this package inflates a chunk of zlib now."""
    before = stats()["software"]["decompressed"]
    numcodecs.get_codec({"id": "zlib"}).decode(ENCODED)
    return stats()["software"]["decompressed"] > before


def test_the_sides_take_turns_in_changing_order_and_each_result_is_checked() -> None:
    checked: list[bool] = []
    own, ours = in_turns(served, checked.append, rounds=3)
    assert checked == [False, True, True, False, False, True]
    assert len(own.wall) == len(own.cpu) == len(ours.wall) == len(ours.cpu) == 3
    assert (own.blocks, ours.blocks) == (0, 1)


def test_the_first_side_is_zarrs_own_even_if_it_was_served_before_and_nothing_is_served_after() -> None:
    enable()
    checked: list[bool] = []
    in_turns(served, checked.append, rounds=1)
    assert checked == [False, True]
    assert not served()


def test_the_times_are_of_the_work_alone() -> None:
    own, ours = in_turns(lambda: time.sleep(0.02), lambda _: time.sleep(0.2), rounds=1)
    assert 0.02 <= own.wall[0] < 0.2
    assert 0.02 <= ours.wall[0] < 0.2
    assert own.cpu[0] < own.wall[0]


def test_a_check_that_fails_ends_it() -> None:
    def check(_: object) -> None:
        raise RuntimeError("not what was written")

    with pytest.raises(RuntimeError, match="not what was written"):
        in_turns(served, check, rounds=2)
    assert not served()
