"""Check that a version can be released: its numbers agree, the changelog has its day, and dist/ has all of its files.

    make release-check

``make wheel`` has built and tested dist/ before this. RELEASING.md has the steps before and after.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Versions of Python that a release has a wheel for."""


def git(root: Path, *words: str) -> str:
    """Output of a git command, without the last newline."""
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()


def wrong_in_sources(root: Path, version: str) -> Iterator[str]:
    """Problems of the checkout."""
    found = re.search(r"^  version: '(.*)',$", (root / "meson.build").read_text(), re.M)
    if found is None or found[1] != version:
        yield f"meson.build has version {found and found[1]}: expected pyproject.toml's, {version}"
    headings = re.findall(r"^## (.*)$", (root / "CHANGELOG.md").read_text(), re.M)
    if not headings or not re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", headings[0]):
        yield f"CHANGELOG.md begins with '{''.join(headings[:1])}': expected '{version} - YYYY-MM-DD'"
    relative = re.findall(r"\]\(((?!https?:|#)[^)]+)\)", (root / "README.md").read_text())
    if relative:
        yield (
            f"README.md links into the repository, as to {relative[0]}, which does not work on its "
            "page on PyPI: make them absolute, and give pyproject.toml [project.urls]"
        )
    if git(root, "status", "--porcelain"):
        yield "changes are not committed, so that they are not in dist/: commit them"
    tagged = git(root, "tag", "--list", f"v{version}")
    if tagged and git(root, "rev-parse", f"{tagged}^{{commit}}") != git(root, "rev-parse", "HEAD"):
        yield f"{tagged} is the tag of another commit: give this one another version"


def wrong_in_dist(dist: Path, version: str) -> Iterator[str]:
    """Problems of the files that are to be uploaded."""
    expected = {f"numcodecs_qpl-{version}.tar.gz"}
    for python in PYTHONS:
        tag = f"cp{python.replace('.', '')}"
        wheels = [path.name for path in dist.glob(f"numcodecs_qpl-{version}-{tag}-{tag}-manylinux*_x86_64.whl")]
        expected |= set(wheels)
        if len(wheels) != 1:
            yield f"dist/ has {len(wheels)} wheels for Python {python}: expected one, so install that Python"
    found = {path.name for path in dist.glob("*")}
    yield from (f"dist/{name} is missing: run make wheel" for name in sorted(expected - found))
    yield from (f"dist/{name} is not of this release: run make wheel" for name in sorted(found - expected))


def main() -> None:
    """Print what is wrong; exit with status 1 if anything is."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    problems = [*wrong_in_sources(root, version), *wrong_in_dist(root / "dist", version)]
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, (root / "dist").glob("*"))],
        capture_output=True,
        text=True,
    )
    if checked.returncode:
        problems.append(f"twine check: {(checked.stdout + checked.stderr).strip()}")
    for problem in problems:
        print(f"release-check: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"release-check: {version} can be released: RELEASING.md has the next steps")


if __name__ == "__main__":
    main()
