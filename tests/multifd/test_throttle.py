"""The limit of the bandwidth, by a clock that the test moves."""

from __future__ import annotations

import threading

import pytest

from numcodecs_qpl.multifd.transport import throttle
from numcodecs_qpl.multifd.transport.throttle import Throttle


class Clock(threading.Event):
    """A clock that moves only while something waits for it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throttle, "time", made)
    return made


def test_bytes_take_their_time(clock: Clock) -> None:
    limit = Throttle(1000)
    for _ in range(100):
        limit.wait(50, clock)
    # The last 50 bytes are not waited for, and the credit's 50 are free.
    assert clock.now == pytest.approx(1000 + 100 * 0.05 - 0.1)


def test_idle_time_gives_no_credit_beyond_a_twentieth_of_a_second(clock: Clock) -> None:
    limit = Throttle(1000)
    limit.wait(1000, clock)
    clock.now += 60
    limit.wait(1000, clock)
    began = clock.now
    limit.wait(1, clock)
    assert clock.now - began == pytest.approx(0.95)


def test_a_wait_ends_when_it_is_stopped() -> None:
    limit, stop = Throttle(1), threading.Event()
    limit.wait(10_000, stop)
    waiting = threading.Thread(target=limit.wait, args=(1, stop))
    waiting.start()
    assert waiting.is_alive()
    stop.set()
    waiting.join(30)
    assert not waiting.is_alive()
