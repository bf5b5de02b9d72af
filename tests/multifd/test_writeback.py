"""Write-back: what is stored when, by which thread, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from commands import PATIENCE, wait_until

from numcodecs_qpl.multifd.folder.writeback import WriteBack
from numcodecs_qpl.multifd.threads import NoThreadError


class Store:
    """Store of keys. It lets no key pass while it is closed."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.open = threading.Event()

    def __call__(self, key: int) -> None:
        self.begun.append(key)
        assert self.open.wait(PATIENCE)
        self.ended.append(key)


Make = Callable[[int, int], "WriteBack[int]"]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make(store: Store) -> Iterator[Make]:
    made: list[WriteBack[int]] = []

    def write_back(threads: int, lag: int) -> WriteBack[int]:
        made.append(WriteBack(store, threads, lag))
        return made[-1]

    yield write_back
    store.open.set()
    for each in made:
        each.stop()
    assert not running()


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "write-back"]


def test_what_has_not_changed_for_the_longest_time_is_stored_first(store: Store, make: Make) -> None:
    store.open.set()
    write_back = make(1, 3)
    write_back.changed([1, 2, 3])
    write_back.changed([1])
    write_back.changed([4])
    wait_until(lambda: store.ended, "the first key")
    write_back.changed([3])
    write_back.changed([5])
    wait_until(lambda: len(store.ended) == 2, "the second key")
    assert store.ended == [2, 1]
    write_back.finish()
    assert store.ended == [2, 1, 4, 3, 5]


def test_what_changed_last_is_left_alone_until_the_end(store: Store, make: Make) -> None:
    store.open.set()
    write_back = make(2, 2)
    for _ in range(100):
        write_back.changed([1, 2])
    assert not store.begun
    write_back.finish()
    assert sorted(store.ended) == [1, 2]


def test_a_key_is_stored_by_one_thread_at_a_time_and_again_if_it_changed_meanwhile(store: Store, make: Make) -> None:
    write_back = make(3, 0)
    write_back.changed([1])
    wait_until(lambda: store.begun, "the key")
    write_back.changed([1, 2])
    wait_until(lambda: len(store.begun) == 2, "the other key")
    assert store.begun == [1, 2]
    store.open.set()
    write_back.finish()
    assert store.ended.count(1) == 2
    assert store.begun == [1, 2, 1]


def test_several_threads_store_at_once(store: Store, make: Make) -> None:
    make(3, 0).changed(range(9))
    wait_until(lambda: len(store.begun) == 3, "three keys")
    assert not store.ended


def test_the_end_waits_for_what_is_being_stored(store: Store, make: Make) -> None:
    write_back = make(1, 0)
    write_back.changed([1])
    wait_until(lambda: store.begun, "the key")
    threading.Timer(0.2, store.open.set).start()
    write_back.finish()
    assert store.ended == [1]
    assert not running()


def test_nothing_that_waits_is_stored_after_a_stop(store: Store, make: Make) -> None:
    write_back = make(2, 0)
    write_back.changed(range(9))
    wait_until(lambda: len(store.begun) == 2, "two keys")
    threading.Timer(0.2, store.open.set).start()
    write_back.stop()
    assert sorted(store.ended) == [0, 1]
    assert not running()
    write_back.stop()


def test_without_a_change_there_is_no_thread(make: Make) -> None:
    write_back = make(2, 0)
    assert not running()
    write_back.finish()


@pytest.mark.parametrize("lag", [0, 9])
def test_an_error_ends_all_threads_and_is_raised(lag: int) -> None:
    stored: list[int] = []

    def fail(key: int) -> None:
        stored.append(key)
        raise OSError(28, f"key {key}")

    write_back = WriteBack(fail, 1, lag)
    write_back.changed([1, 2, 3])
    if not lag:
        wait_until(lambda: not running(), "the end of the threads")
        with pytest.raises(OSError, match="key 1"):
            write_back.changed([4])
    with pytest.raises(OSError, match="key 1"):
        write_back.finish()
    assert stored == [1]
    assert not running()


def test_threads_that_cannot_be_started_are_an_error_and_the_others_end(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if running():
            raise RuntimeError("can't start new thread")
        real(thread)

    write_back = make(2, 0)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(NoThreadError, match="cannot start a thread"):
        write_back.changed([1])
    assert len(running()) == 1
    write_back.stop()
    assert not running()


@pytest.mark.parametrize("threads", [1, 4])
def test_the_newest_content_is_stored_last(threads: int) -> None:
    content = dict.fromkeys(range(8), 0)
    stored = content.copy()

    def store(key: int) -> None:
        stored[key] = content[key]

    write_back = WriteBack(store, threads, 2)
    for number in range(1, 5000):
        content[number % 8] = number
        write_back.changed([number % 8])
    write_back.finish()
    assert stored == content
