"""Taking connections: what only chance brings about, made to happen."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from numcodecs_qpl.multifd.address import Address, Listener
from numcodecs_qpl.multifd.intake import Arrival, Intake


class Interrupted(threading.Event):
    """What `threading.Thread.start` waits for, if Ctrl-C comes between the thread's first steps and its saying so."""

    def wait(self, timeout: float | None = None) -> bool:
        super().wait(timeout)
        raise KeyboardInterrupt

    def is_set(self) -> bool:
        return False


def test_an_intake_whose_start_was_interrupted_can_be_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Arrival] = []
    refused: list[str] = []
    intake = Intake(Listener(Address("unix", f"{folder}/s")), taken.append, refused.append)
    monkeypatch.setattr(intake._thread, "_started", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        intake.start()
    intake.close()
    assert not (folder / "s").exists()
    assert (taken, refused) == ([], [])
