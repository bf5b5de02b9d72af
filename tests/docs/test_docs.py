"""README.md, the pages in docs/ and the docstrings: their Python runs, and their command lines are the program's."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pages
import pytest
from pages import PAGES, ROOT, blocks, links, spans

import numcodecs_qpl
from numcodecs_qpl.cli import _parser

PROGRAM = "numcodecs-qpl"
README = ROOT / "README.md"
APART = {
    "dask.md",  # its programs start processes, which import them: test_dask_page.py has them in files
    "restore.md",  # its program reads what the page's commands have written: test_restore_page.py runs them all
}
RUN = [
    page
    for page in PAGES
    if page.name not in APART and any(code.language in ("python", "pycon") for code in blocks(page))
]
MODULES = ["numcodecs_qpl", "numcodecs_qpl.codec", "numcodecs_qpl.multifd", "numcodecs_qpl.zarr"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_page(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "-W", "error", pages.__file__, str(page)]
    return subprocess.run(script, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_python_of_a_page_runs_from_top_to_bottom_and_shows_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    done = run_page(page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", ["```python\nwrong\n```", "```pycon\n>>> 1 + 1\n3\n```"])
def test_a_page_whose_python_is_wrong_does_not_pass(code: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{code}\n")
    done = run_page(page, tmp_path)
    assert done.returncode == 1
    assert "page.md" in done.stdout + done.stderr
    assert "line 4" in done.stdout + done.stderr


def test_the_readmes_quick_start_can_be_typed_twice_and_prints_what_the_readme_shows(tmp_path: Path) -> None:
    fences = blocks(README)
    start = next(number for number, code in enumerate(fences) if code.language == "python")
    typed, printed = fences[start].text, fences[start + 1].text
    # A Python that is started in the checkout looks there first.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-i"],
            input=typed,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.stdout == printed, done.stderr


def examples() -> list[doctest.DocTest]:
    """The docstrings with examples, of the public modules."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name: test for module in MODULES for test in finder.find(importlib.import_module(module))}
    return [test for test in found.values() if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_examples_of_a_docstring_show_what_it_shows(example: doctest.DocTest) -> None:
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_names_of_ours_that_docstrings_link_to_are_there() -> None:
    # Sphinx takes a name that it cannot import for a parameter's.
    sources = [path for kind in ("*.py", "*.pyx") for path in (ROOT / "src/numcodecs_qpl").rglob(kind)]
    names = {name for source in sources for name in re.findall(r"[^`]`(numcodecs_qpl[\w.]*)`[^`]", source.read_text())}
    assert "numcodecs_qpl.set_path" in names
    for name in names:
        pkgutil.resolve_name(name)
    numcodecs_qpl.disable()  # numcodecs_qpl.enabled is also a module, whose import enables


# ---- Command lines ----


def command_lines(shell: str) -> Iterator[str]:
    """Return the calls of numcodecs-qpl in lines for a shell, without comments, pipes and redirections."""
    for line in shell.replace("\\\n", " ").splitlines():
        if line.split()[:1] == [PROGRAM]:
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            yield shlex.join(takewhile(lambda word: not set(word) <= set("();<>|&"), words))


LINES = [
    pytest.param(line, id=f"{name_of(page)}: {line}")
    for page in PAGES
    for code in blocks(page)
    if code.language in ("", "sh")
    for line in command_lines(code.text)
]
MENTIONS = {mention: None for page in PAGES for mention in spans(page) if mention.split()[0] == PROGRAM}


def refused(words: list[str]) -> bool:
    try:
        _parser().parse_args(words)
    except SystemExit as end:
        return end.code != 0  # --help and --version end with 0
    return False


@pytest.mark.parametrize("line", LINES)
def test_the_program_takes_the_command_lines_of_the_pages(line: str) -> None:
    assert not refused(shlex.split(line)[1:])


@pytest.mark.parametrize("mention", MENTIONS)
def test_the_program_has_the_commands_and_options_that_the_text_mentions(
    mention: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *words = mention.split()
    command = [word for word in words[:1] if not word.startswith("-")]
    assert not refused([*command, "--help"])
    assert {word for word in words if word.startswith("-")} <= set(capsys.readouterr().out.split())


def test_a_command_line_with_a_wrong_word_does_not_pass() -> None:
    wrong = "numcodecs-qpl relay --lisen unix:a --connect unix:b --from none --to qpl"
    (line,) = command_lines(f"cd somewhere\n{wrong} | tail -1  # a comment\n")
    assert line == wrong
    assert refused(shlex.split(line)[1:])
    assert not refused(shlex.split(line.replace("lisen", "listen"))[1:])


def test_every_command_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert not refused(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.M)
    assert {"info", "relay"} <= set(commands)
    documented = re.findall(rf":: {PROGRAM} (\w+) --help", (ROOT / "docs/reference/commands.md").read_text())
    assert documented == commands


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_links_to_in_the_repository_is_there(page: Path) -> None:
    # As the repository is read; anchors, and the site, sphinx checks in `make docs`.
    here = [link.partition("#")[0] for link in links(page) if not re.match("[a-z]+:", link)]
    assert [link for link in here if not (page.parent / link).exists()] == []


def test_the_readmes_figures_are_those_of_the_benchmarks() -> None:
    readme, benchmarks = README.read_text(), (ROOT / "docs/benchmarks.md").read_text()
    machine = re.search(r"^Machine: (.*?\)?),", benchmarks, re.M)
    assert machine
    assert machine[1] in readme
    table = benchmarks.partition("## Chunks of 1 MiB\n")[2].partition("\n## ")[0]
    head, _, *rows = re.findall(r"^\| (.*) \|$", table, re.M)
    assert head.endswith("| the demo's atlas")
    measured = {row.split(" | ")[0]: row.split(" | ")[-1] for row in rows}
    shown = re.findall(r"^\| \**`(.*?)`\** \| ([\d.]+) \| (\d+) \| (\d+) \|", readme, re.M)
    assert {"QPL()", "GZip(1)", "Zstd(1)"} <= {name for name, *_ in shown}
    for name, ratio, encode, decode in shown:
        assert measured[name] == f"{encode}/{decode}, {ratio}"


def test_the_citation_is_that_of_this_version() -> None:
    citation = dict(re.findall(r"^(\w+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.M))
    assert (citation["title"], citation["version"]) == (PROGRAM, numcodecs_qpl.__version__)


def test_every_public_name_is_in_the_reference() -> None:
    reference = "\n".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    documented = set(re.findall(r"auto(?:class|function|exception):: (\S+)", reference))
    for name in ("numcodecs_qpl", "numcodecs_qpl.multifd", "numcodecs_qpl.zarr"):
        public = {f"{name}.{each}" for each in importlib.import_module(name).__all__ if each != "__version__"}
        assert public <= documented
