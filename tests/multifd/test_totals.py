"""Sums over the migrations of a service."""

from __future__ import annotations

import threading

import pytest
from relays import statistics

from numcodecs_qpl.multifd.errors import NoAnswerError, UnreachableError
from numcodecs_qpl.multifd.totals import COMPLETE, DURATIONS, FAILED, TERMINATED, UNKNOWN, Durations, Totals


def test_a_migration_counts_while_it_runs_and_when_it_has_ended() -> None:
    totals = Totals(["out", "in"])
    done = statistics(0)
    first = totals.begin("out", lambda: done)
    second = totals.begin("out", lambda: statistics(1000))
    done = statistics(7)
    for _ in range(2):  # a snapshot changes nothing
        snapshot = totals.snapshot()
        assert [(migration.number, each["bytes_in"]) for migration, each in snapshot.running] == [(1, 7), (2, 1000)]
        out = snapshot.routes["out"]
        assert (out.running, out.bytes_in, out.bytes_out, out.packets) == (2, 1007, 2014, 3021)
        assert (out.normal_pages, out.zero_pages) == (4028, 5035)
        assert out.ended == {(COMPLETE, ""): 0}
    done = statistics(8)
    assert totals.end(first, COMPLETE) == done
    done = statistics(9)  # nothing is read after the end
    out = totals.snapshot().routes["out"]
    assert (out.running, out.bytes_in, out.ended) == (1, 1008, {(COMPLETE, ""): 1})
    totals.end(second, COMPLETE)
    third = totals.begin("in", lambda: done)
    snapshot = totals.snapshot()
    assert (third.number, third.route) == (3, "in")
    assert (snapshot.routes["out"].running, snapshot.routes["out"].bytes_in) == (0, 1008)
    assert (snapshot.routes["in"].running, snapshot.routes["in"].bytes_in) == (1, 9)


def test_ends_are_counted_by_outcome_and_cause_and_the_last_failure_is_kept() -> None:
    totals = Totals(["out"])
    ends: list[tuple[str, BaseException | None]] = [
        (FAILED, UnreachableError("cannot connect to tcp:10.0.0.2:4444")),
        (FAILED, UnreachableError("cannot connect to tcp:10.0.0.2:4444")),
        (UNKNOWN, NoAnswerError("nothing passed for 600 s")),
        (FAILED, KeyError("fault")),
        (TERMINATED, None),
        (COMPLETE, None),
    ]
    for outcome, error in ends:
        totals.end(totals.begin("out", lambda: statistics(1)), outcome, error)
    out = totals.snapshot().routes["out"]
    assert out.ended == {
        (COMPLETE, ""): 1,
        (FAILED, "unreachable"): 2,
        (FAILED, "internal"): 1,
        (UNKNOWN, "no_answer"): 1,
        (TERMINATED, ""): 1,
    }
    assert out.last_failure is not None
    assert (out.last_failure.migration, out.last_failure.outcome) == (4, FAILED)
    assert (out.last_failure.cause, out.last_failure.error) == ("internal", "'fault'")


def test_refused_connections_are_counted() -> None:
    totals = Totals(["out", "in"])
    totals.refuse("in")
    totals.refuse("in")
    assert {name: route.refused for name, route in totals.snapshot().routes.items()} == {"out": 0, "in": 2}


@pytest.mark.parametrize(("seconds", "place"), [(0.0, 0), (1.0, 0), (1.001, 1), (3600.0, 10), (3600.1, 11)])
def test_durations_are_counted_up_to_their_bounds(seconds: float, place: int) -> None:
    durations = Durations()
    durations.add(seconds)
    assert durations.seconds == seconds
    assert [number for number, count in enumerate(durations.counts) if count] == [place]
    assert len(durations.counts) == len(DURATIONS) + 1


def test_durations_are_by_outcome() -> None:
    totals = Totals(["out"])
    for outcome, seconds in ((COMPLETE, 3.0), (COMPLETE, 4.0), (FAILED, 700.0)):
        totals.end(totals.begin("out", lambda seconds=seconds: statistics(1, seconds)), outcome)  # type: ignore[misc]
    durations = totals.snapshot().routes["out"].durations
    assert {outcome: (sum(each.counts), each.seconds) for outcome, each in durations.items()} == {
        COMPLETE: (2, 7.0),
        FAILED: (1, 700.0),
    }


def test_a_snapshot_is_not_changed_later() -> None:
    totals = Totals(["out"])
    snapshot = totals.snapshot()
    totals.end(totals.begin("out", lambda: statistics(1)), COMPLETE)
    assert snapshot.routes["out"].ended == {(COMPLETE, ""): 0}
    assert sum(snapshot.routes["out"].durations[COMPLETE].counts) == 0


def test_no_byte_is_missing_or_counted_twice_while_migrations_begin_and_end() -> None:
    totals = Totals(["out"])
    stop = threading.Event()

    def migrate() -> None:
        while not stop.is_set():
            totals.end(totals.begin("out", lambda: statistics(1)), COMPLETE)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3000):
            snapshot = totals.snapshot()
            out = snapshot.routes["out"]
            # Each migration has one byte from its beginning on.
            assert out.bytes_in == out.ended[COMPLETE, ""] + out.running
            assert out.running == len(snapshot.running)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
