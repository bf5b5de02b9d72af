"""Number of CPUs of a process."""

from __future__ import annotations

import os

import pytest

from numcodecs_qpl.host.cpus import usable_cpus


def test_only_the_cpus_that_the_process_may_run_on_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cpus() == len(allowed)


def test_where_the_system_does_not_tell_all_cpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cpus() == os.cpu_count()
