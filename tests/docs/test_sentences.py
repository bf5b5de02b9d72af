"""Docstrings and messages of the installed package, by the rules of the language that a program can check."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import numcodecs_qpl

PACKAGE = Path(numcodecs_qpl.__file__).parent

OPENING = re.compile(r"(Whether|What|Where|Which|When|Who|Whose|Why|How|If|That which|Those|These|Has|Is|Are)\b")
"""Openings that make a docstring's first line a clause instead of a verb or a noun phrase."""

PHRASES = re.compile(
    r"(?<!there )\bis no\b(?! longer)|\bsay(s|ing)? so\b|\bthat is said\b|\bin words\b|\bfor want of\b|\bmended\b"
    r"|\bkeepers? of\b|\bwithout a word\b|\bonce more\b",
    re.IGNORECASE,
)
"""Phrases that readers stumble over, such as "is no address" for "is not an address"."""

Text = tuple[str, str]
"""A place in the package, and a text there in one line."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def docstrings() -> Iterator[Text]:
    """Yield all docstrings, including those of attributes and of Cython's modules, classes and functions."""
    for name, tree in trees():
        for node in ast.walk(tree):
            match node:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    yield f"{name}:{node.lineno}", " ".join(text.split())
    suffix = EXTENSION_SUFFIXES[0]
    for path in PACKAGE.rglob(f"*{suffix}"):
        name = ".".join(path.relative_to(PACKAGE.parent).parts).removesuffix(suffix)
        module = importlib.import_module(name)
        owners = [module, *(member for member in vars(module).values() if inspect.isclass(member))]
        for owner in owners:
            for found in (owner, *vars(owner).values()):
                if getattr(found, "__module__", module.__name__) == module.__name__ and isinstance(found.__doc__, str):
                    yield f"{name}: {getattr(found, '__name__', '')}", " ".join(found.__doc__.split())


def messages() -> Iterator[Text]:
    """Yield all strings in Python code, docstrings too, with ``{}`` for each value."""
    for name, tree in trees():
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str() as text):
                    yield f"{name}:{node.lineno}", " ".join(text.split())
                case ast.JoinedStr(values=parts):
                    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
                    yield f"{name}:{node.lineno}", " ".join(text.split())


def test_every_docstring_opens_with_a_verb_or_a_noun_phrase() -> None:
    found = list(docstrings())
    assert {"codec.py:1", "numcodecs_qpl._core.pages: compress_pages"} <= {place for place, _ in found}
    bad = [f"{place}: {text}" for place, text in found if OPENING.match(text)]
    assert not bad, "\n".join(bad)


def test_no_docstring_help_or_message_has_a_phrase_that_readers_stumble_over() -> None:
    found = [*docstrings(), *messages()]
    assert any("invalid address {}: expected unix:PATH" in text for _, text in found)
    bad = [f"{place}: {text}" for place, text in found if PHRASES.search(text)]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    "line",
    [
        "Whether the last trailer stands before a member's beginning too.",
        "What it writes, any gzip reads.",
        "Those that are not installed.",
        "'foo' is no address; one is unix:PATH",
        "the error says so",
        "and does the same once more",
    ],
)
def test_a_bad_line_is_found(line: str) -> None:
    assert OPENING.match(line) or PHRASES.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "Return True if the file exists.",
        "Size of a block.",
        "there is no folder",
        "it is no longer open",
        "Issue a call.",
    ],
)
def test_a_good_line_is_not_found(line: str) -> None:
    assert not OPENING.match(line)
    assert not PHRASES.search(line)
