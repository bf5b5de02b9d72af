"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from numcodecs_qpl import files
from numcodecs_qpl.files import sync_all, write_whole


def test_no_symlink_that_another_user_can_put_there_is_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".s.{os.getpid()}.json").symlink_to(victim)
    (tmp_path / "s.json").symlink_to(victim)
    folders: list[Path] = []

    def write(path: Path) -> None:
        folders.append(path.parent)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert not list(path.parent.iterdir())
        path.write_text("stats")

    for _ in range(2):
        write_whole(tmp_path / "s.json", write)
    assert len({*folders, tmp_path}) == 3
    assert (tmp_path / "s.json").read_text() == "stats"
    assert not (tmp_path / "s.json").is_symlink()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_not_a_file_is_not_replaced(tmp_path: Path, make: Callable[[Path], None], linked: bool) -> None:
    thing = tmp_path / "thing"
    make(thing)
    path = tmp_path / "link" if linked else thing
    if linked:
        path.symlink_to(thing)
    with pytest.raises(FileExistsError, match="is not a file"):
        write_whole(path, lambda beside: beside.write_text("stats"))
    assert path.is_symlink() == linked
    assert thing.is_fifo() or thing.is_dir()
    assert {each.name for each in tmp_path.iterdir()} == {"thing", path.name}


@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_a_file_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "s.json", lambda path: path.write_text("stats"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s.json").stat().st_mode) == 0o666 & ~umask


def test_a_file_that_the_disk_does_not_take_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "s.json"
    path.write_text("old")
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(path, lambda beside: beside.write_text("new"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_all_files_and_folders_are_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH", 4)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    (tmp_path / "folder").mkdir()
    for number in range(9):
        (tmp_path / "folder" / f"{number}").write_text("")
    sync_all(tmp_path.rglob("*"))
    assert sorted(synced) == sorted(path.stat().st_ino for path in tmp_path.rglob("*"))


def test_one_of_many_files_that_the_disk_does_not_take_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"{number}").write_text("")
    bad = (tmp_path / "31").stat().st_ino

    def fsync(fd: int) -> None:
        if os.fstat(fd).st_ino == bad:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        sync_all(tmp_path.iterdir())
