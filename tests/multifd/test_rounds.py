"""Rounds end for all at once, and the end of a stream is found however it is cut."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import NAMES, recording

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.stream.rounds import Rounds
from numcodecs_qpl.multifd.stream.vmdescription import HEAD_SIZE, LIMIT, DescriptionFinder

pytestmark = pytest.mark.timeout(60)

PATIENCE = 20.0
PARTIES: set[Hashable] = {"main", 0, 1, 2}


def nothing() -> None:
    pass


class Waiting(Rounds):
    """Rounds that tell when a party has come, and begins to wait."""

    made: ClassVar[list[Waiting]] = []

    def __init__(self, parties: set[Hashable] = PARTIES, complete: Callable[[], None] = nothing) -> None:
        super().__init__(parties, complete)
        self.came = threading.Semaphore(0)
        wait = self._changed.wait

        def waits() -> None:
            self.came.release()
            wait()

        self._changed.wait = waits  # type: ignore[method-assign, assignment]
        self.made.append(self)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made
        while Waiting.made:
            Waiting.made.pop().abort()


def begin(pool: ThreadPoolExecutor, rounds: Waiting, *parties: Hashable) -> list[Future[None]]:
    """Let parties arrive; returns when all of them wait."""
    futures = [pool.submit(rounds.arrive, party) for party in parties]
    for _ in parties:
        assert rounds.came.acquire(timeout=PATIENCE)
    return futures


def failures(futures: list[Future[None]]) -> list[str]:
    return [str(future.exception(PATIENCE)) for future in futures]


# ---- Rounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", sorted(PARTIES, key=str))
def test_nobody_passes_before_the_last_has_come(pool: ThreadPoolExecutor, last: Hashable) -> None:
    rounds = Waiting()
    waiting = begin(pool, rounds, *(PARTIES - {last}))
    assert rounds.passed == 0
    assert not any(future.done() for future in waiting)
    rounds.arrive(last)
    assert [future.result(PATIENCE) for future in waiting] == [None] * 3
    assert rounds.passed == 1


def test_no_channel_is_ever_a_round_ahead(pool: ThreadPoolExecutor) -> None:
    done = dict.fromkeys(PARTIES, 0)
    seen = []

    def complete() -> None:
        seen.append(sorted(done.values()))

    rounds = Waiting(complete=complete)

    def run(party: Hashable) -> None:
        for _ in range(200):
            done[party] += 1
            rounds.arrive(party)

    for future in [pool.submit(run, party) for party in PARTIES]:
        future.result(PATIENCE)
    assert seen == [[number] * 4 for number in range(1, 201)]
    assert rounds.passed == 200


def test_a_round_is_completed_once_and_before_anybody_goes_on(pool: ThreadPoolExecutor) -> None:
    passed: list[int] = []
    rounds = Waiting(complete=lambda: passed.append(rounds.passed))
    for number in range(3):
        waiting = begin(pool, rounds, 0, 1, 2)
        assert len(passed) == number
        rounds.arrive("main")
        for future in waiting:
            future.result(PATIENCE)
    assert passed == [0, 1, 2]


@pytest.mark.parametrize(("gone", "name"), [("main", "the main channel"), (1, "channel 1")])
def test_the_end_of_one_wakes_all_and_is_named(pool: ThreadPoolExecutor, gone: Hashable, name: str) -> None:
    rounds = Waiting()
    waiting = begin(pool, rounds, *(PARTIES - {gone}))
    rounds.leave(gone)
    assert failures(waiting) == [f"the stream has a SYNC that {name} never reached"] * 3
    assert rounds.passed == 0


def test_who_comes_to_a_round_after_another_has_ended_does_not_wait() -> None:
    rounds = Rounds(PARTIES, nothing)
    rounds.leave(2)
    rounds.leave(0)
    with pytest.raises(MultiFDError, match="a SYNC that channel 0, channel 2 never reached"):
        rounds.arrive("main")


def test_a_hung_peer_holds_nobody_once_all_is_called_off(pool: ThreadPoolExecutor) -> None:
    rounds = Waiting()
    waiting = begin(pool, rounds, "main", 0)
    rounds.abort()
    assert failures(waiting) == ["aborted"] * 2


@pytest.mark.parametrize("before", [(), (0,), (0, 1, 2)])
def test_nobody_passes_once_all_is_called_off(pool: ThreadPoolExecutor, before: tuple[Hashable, ...]) -> None:
    completed = threading.Event()
    rounds = Waiting(complete=completed.set)
    waiting = begin(pool, rounds, *before)
    rounds.abort()
    assert failures(waiting) == ["aborted"] * len(before)
    with pytest.raises(MultiFDError, match="aborted"):
        rounds.arrive("main")
    assert not completed.is_set()
    assert rounds.passed == 0


def test_who_has_passed_a_round_may_end_at_once(pool: ThreadPoolExecutor) -> None:
    rounds = Waiting()
    waiting = begin(pool, rounds, 0, 1, 2)
    rounds.arrive("main")
    rounds.leave("main")
    for future in waiting:
        future.result(PATIENCE)


def test_an_error_at_the_end_of_a_round_is_the_last_ones_and_no_round_has_passed(pool: ThreadPoolExecutor) -> None:
    def complete() -> None:
        raise MultiFDError("packets are missing")

    rounds = Waiting(complete=complete)
    waiting = begin(pool, rounds, 0, 1, 2)
    with pytest.raises(MultiFDError, match="packets are missing"):
        rounds.arrive("main")
    assert not any(future.done() for future in waiting)
    rounds.abort()
    assert failures(waiting) == ["aborted"] * 3
    assert rounds.passed == 0


# ---- The description at the end ---------------------------------------------------------------------------------


def description(text: bytes) -> bytes:
    return b"\x00\x06" + len(text).to_bytes(4, "big") + text


def devices_json(size: int) -> bytes:
    """A description of one device, of `size` bytes."""
    text = b'{"devices":[{"name":"' + b"d" * (size - 25) + b'"}]}'
    assert len(text) == size
    return text


def add_all(pieces: list[bytes]) -> list[list[str] | None]:
    finder = DescriptionFinder()
    return [finder.add(piece) for piece in pieces]


STATE = bytes(range(256)) + b'{"devices":[{"name":"no"}]}' + b"\x00\x06\x00\x00\x00\x02{}" + b"}\x00"
TEXT = json.dumps({"page_size": 4096, "devices": [{"name": "timer"}, {"name": "cpu", "fields": [{"name": "x"}]}]})
STREAM = STATE + description(TEXT.encode())
NAMES_THERE = ["timer", "cpu"]


def test_a_description_that_comes_byte_by_byte_is_found_at_its_end_only() -> None:
    found = add_all([bytes([byte]) for byte in STREAM])
    assert [at for at, names in enumerate(found) if names is not None] == [len(STREAM) - 1]
    assert found[-1] == NAMES_THERE


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_description_is_found_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(edges)]
    found = add_all([piece for piece in pieces if piece])
    assert found == [None] * (len(found) - 1) + [NAMES_THERE]


@given(st.binary(max_size=300), st.lists(st.text(max_size=20), max_size=9), st.booleans())
def test_a_description_is_found_after_any_state(state: bytes, names: list[str], ascii_only: bool) -> None:
    text = json.dumps({"devices": [{"name": name} for name in names]}, ensure_ascii=ascii_only)
    finder = DescriptionFinder()
    finder.add(state)
    assert finder.add(description(text.encode())) == names


@pytest.mark.parametrize("size", [0x0106, 0x0600, 0x0606, 0x060006, 0x060606, LIMIT])
def test_a_length_that_looks_like_the_mark_is_none(size: int) -> None:
    assert add_all([STATE, description(devices_json(size))])[-1] == ["d" * (size - 25)]


@pytest.mark.parametrize("before", [0, 100, LIMIT, 2 * LIMIT, 3 * LIMIT])
@pytest.mark.parametrize("piece", [1 << 16, LIMIT])
def test_only_the_end_of_a_long_stream_is_kept(before: int, piece: int) -> None:
    stream = bytes(before) + description(devices_json(LIMIT))
    finder = DescriptionFinder()
    for at in range(0, len(stream), piece):
        found = finder.add(stream[at : at + piece])
        assert len(finder._tail) <= 2 * (HEAD_SIZE + LIMIT)
    assert found is not None


@pytest.mark.parametrize("before", [0, LIMIT, 2 * LIMIT])
@pytest.mark.parametrize("beyond", [1, LIMIT])
def test_a_description_that_is_too_long_is_never_found(before: int, beyond: int) -> None:
    stream = bytes(before) + description(devices_json(LIMIT + beyond))
    pieces = [stream[at : at + (1 << 20)] for at in range(0, len(stream), 1 << 20)]
    assert add_all(pieces) == [None] * len(pieces)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"}",
        b"\x06\x00\x00\x00\x02{}",
        b"\x00\x06\x00\x00\x00\x01}",
        description(b"{}"),
        description(b'{"devices":5}'),
        description(b'{"devices":[{}]}'),
        description(b'{"devices":[{"name":"x"}]'),
        description(b'{"devices":[\xff{"name":"x"}]}'),
        description(TEXT.encode())[1:],
        description(TEXT.encode() + b"}"),
        description(TEXT.encode())[:-1],
        STREAM + b"\0",
        STREAM[:-1] + b" }",
    ],
    ids=repr,
)
def test_what_is_no_description_is_none(stream: bytes) -> None:
    assert add_all([STATE, b"x", stream])[-1] is None


def test_a_description_that_is_nested_too_deep_is_none() -> None:
    assert add_all([description(b'{"devices":' + b"[" * 100_000 + b"}")]) == [None]


@pytest.mark.parametrize("name", NAMES)
def test_the_description_of_every_recording_is_found(name: str) -> None:
    main = recording(name).main
    found = add_all([main[at : at + 1000] for at in range(0, len(main), 1000)])
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] is not None
    assert {"timer", "ram"} & set(found[-1])
