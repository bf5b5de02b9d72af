"""Docstrings and messages of the installed package, by the rules of the language that a program can check."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numcodecs_qpl
import pytest

PACKAGE = Path(numcodecs_qpl.__file__).parent

OPENING = re.compile(r"(Whether|What|Where|Which|When|Who|Whose|Why|How|If|That which|Those|These|Is there|Has|Have|Is)\b")
"""Openings that make a docstring's first line a clause. It has to be a verb or a noun phrase."""

PHRASES = re.compile(
    r"(?<!there )\bis no\b(?! longer)|\bsay(s|ing)? so\b|\bthat is said\b|\bin words\b|\bfor want of\b|\bmended\b"
    r"|\bkeepers? of\b|\bwithout a word\b|\bonce more\b",
    re.IGNORECASE,
)
"""Phrases that readers stumble over: "is no X" for "is not an X", "says so" for naming the thing."""


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield each docstring of the package, also of attributes and in Cython, with its place."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", inspect.cleandoc(node.value.value)
    for module in extensions():
        for place, found in [(module.__name__, module), *_members(module, module.__name__)]:
            if found.__doc__:
                yield place, inspect.cleandoc(found.__doc__)


def extensions() -> Iterator[object]:
    """Import the package's compiled modules."""
    suffix = EXTENSION_SUFFIXES[0]
    for path in PACKAGE.rglob(f"*{suffix}"):
        name = str(path.relative_to(PACKAGE)).removesuffix(suffix).replace("/", ".")
        yield importlib.import_module(f"{PACKAGE.name}.{name}")


def _members(owner: object, place: str) -> Iterator[tuple[str, object]]:
    for name, member in vars(owner).items():
        if getattr(member, "__module__", None) == place.partition(":")[0] and callable(member):
            yield f"{place}:{name}", member
        if inspect.isclass(member):
            yield from ((f"{place}:{name}.{of}", value) for of, value in vars(member).items() if inspect.isroutine(value))


def texts() -> Iterator[tuple[str, str]]:
    """Yield each string in the package's Python code, with ``{}`` for values, and its place."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield place, node.value
            if isinstance(node, ast.JoinedStr):
                yield place, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)


def test_every_docstring_opens_with_a_verb_or_a_noun_phrase() -> None:
    found = dict(docstrings())
    assert {"codec.py:1", "numcodecs_qpl._core.pages:compress_pages"} <= found.keys()
    assert [f"{place}: {text.splitlines()[0]}" for place, text in found.items() if OPENING.match(text)] == []


def test_no_docstring_help_or_message_has_a_phrase_that_readers_stumble_over() -> None:
    found = [*docstrings(), *texts()]
    assert any("invalid address {}: expected unix:PATH" in text for _, text in found)
    assert [f"{place}: {text}" for place, text in found if PHRASES.search(" ".join(text.split()))] == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (OPENING, "Whether the last trailer stands before a member's beginning too."),
        (OPENING, "What it writes, any gzip reads."),
        (OPENING, "Where libqpl is not."),
        (PHRASES, "'foo' is no address; one is unix:PATH"),
        (PHRASES, "the error says so"),
        (PHRASES, "the same once\n    more"),
    ],
)
def test_a_bad_line_is_found(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(" ".join(line.split()))


@pytest.mark.parametrize(
    "line",
    [
        "Return True if the file exists.",
        "Size of a block.",
        "there is no folder x",
        "the file is not an archive",
        "it is no longer there",
        "however, nothing",
    ],
)
def test_a_good_line_is_not_found(line: str) -> None:
    assert not OPENING.match(line)
    assert not PHRASES.search(line)
