"""The checks before a release, on a small project with one thing wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools/release_check.py"
PYTHONS = ("311", "312", "313", "314")


def project(
    folder: Path,
    changelog: str = "1.2.0 - 2026-12-01",
    meson: str = "1.2.0",
    link: str = "https://example.org/docs/format.md",
) -> Path:
    """A checkout of version 1.2.0 with everything that a release needs; its wheels are empty files."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "numcodecs-qpl"\nversion = "1.2.0"\n')
    (folder / "meson.build").write_text(f"project(\n  'numcodecs-qpl',\n  version: '{meson}',\n)\n")
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## {changelog}\n\nText.\n\n## 1.1.0 - 2026-01-01\n")
    (folder / "README.md").write_text(f"# Title\n\n## Part\n\n[The part](#part) and [the format]({link})\n")
    (folder / ".gitignore").write_text("/dist/\n")
    (folder / "dist").mkdir()
    (folder / "dist/numcodecs_qpl-1.2.0.tar.gz").touch()
    for tag in PYTHONS:
        (folder / f"dist/numcodecs_qpl-1.2.0-cp{tag}-cp{tag}-manylinux_2_34_x86_64.whl").touch()
    git(folder, "init", "-q")
    commit(folder)
    return folder


def git(folder: Path, *words: str) -> None:
    settings = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *settings, *words], check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "all")


def check(folder: Path, tmp_path: Path) -> tuple[int, str]:
    """Run the program with a twine that finds nothing wrong."""
    (tmp_path / "twine").mkdir()
    (tmp_path / "twine/__main__.py").write_text("")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_release_that_has_everything_passes(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    assert check(folder, tmp_path) == (0, "release-check: 1.2.0 can be released: RELEASING.md has the next steps\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meson": "1.1.0"}, "meson.build has version 1.1.0: expected pyproject.toml's, 1.2.0"),
        (
            {"changelog": "1.2.0 - unreleased"},
            "CHANGELOG.md begins with '1.2.0 - unreleased': expected '1.2.0 - YYYY-MM-DD'",
        ),
        (
            {"changelog": "1.3.0 - 2026-12-01"},
            "CHANGELOG.md begins with '1.3.0 - 2026-12-01': expected '1.2.0 - YYYY-MM-DD'",
        ),
        (
            {"link": "docs/format.md"},
            "README.md links into the repository, as to docs/format.md, which does not work on its page on PyPI: "
            "make them absolute, and give pyproject.toml [project.urls]",
        ),
    ],
    ids=["meson", "unreleased", "another version", "relative link"],
)
def test_what_is_wrong_in_the_sources_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    folder = project(tmp_path / "project", **changes)
    assert check(folder, tmp_path) == (1, f"release-check: {message}\n")


def test_a_wheel_that_is_missing_and_a_file_of_another_version_are_named(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    (folder / "dist/numcodecs_qpl-1.2.0-cp313-cp313-manylinux_2_34_x86_64.whl").rename(folder / "dist/old.whl")
    (folder / "dist/numcodecs_qpl-1.2.0.tar.gz").unlink()
    status, said = check(folder, tmp_path)
    assert status == 1
    assert said.splitlines() == [
        "release-check: dist/ has 0 wheels for Python 3.13: expected one, so install that Python",
        "release-check: dist/numcodecs_qpl-1.2.0.tar.gz is missing: run make wheel",
        "release-check: dist/old.whl is not of this release: run make wheel",
    ]


def test_a_change_that_is_not_committed_and_a_tag_of_another_commit_are_named(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    git(folder, "tag", "v1.2.0")
    commit(folder)
    (folder / "more").touch()
    status, said = check(folder, tmp_path)
    assert status == 1
    assert said.splitlines() == [
        "release-check: changes are not committed, so that they are not in dist/: commit them",
        "release-check: v1.2.0 is the tag of another commit: give this one another version",
    ]


def test_what_twine_finds_is_printed(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    (tmp_path / "twine.py").write_text("raise SystemExit('long_description is missing')")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (1, "release-check: twine check: long_description is missing\n")
