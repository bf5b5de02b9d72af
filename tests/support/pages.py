"""Pages of the documentation: their code blocks, and a way to run those in Python.

Run as a script with the path of a page it runs the page's Python as a reader would: in one session, from top to bottom.
"""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


class Code(NamedTuple):
    """A block of code: the word behind its fence, the code, and the lines of the page that are before it."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Code]:
    """The fenced blocks of a page, those in lists too, in their order."""
    tokens = MarkdownIt().parse(page.read_text())
    return [
        Code((token.info.split() or [""])[0], token.content, token.map[0] + 1)
        for token in tokens
        if token.type == "fence" and token.map
    ]


def spans(page: Path) -> list[str]:
    """Return the texts between single backticks in a page."""
    tokens = MarkdownIt().parse(page.read_text())
    return [child.content for token in tokens for child in token.children or () if child.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    tokens = [child for token in MarkdownIt().parse(page.read_text()) for child in token.children or ()]
    return [str(token.attrs[name]) for token in tokens for name in ("href", "src") if name in token.attrs]


def run(page: Path) -> None:
    """Run a page's blocks of the languages ``python`` and ``pycon``; the latter have to show what they show there."""
    session: dict[str, Any] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner()
    for code in blocks(page):
        if code.language == "python":
            # The empty lines give a traceback the page's line numbers.
            exec(compile("\n" * code.line + code.text, page, "exec"), session)
        elif code.language == "pycon":
            example = doctest.DocTestParser().get_doctest(code.text, {}, page.name, str(page), code.line)
            example.globs = session
            runner.run(example, clear_globs=False)
    if runner.summarize(verbose=False).failed:
        sys.exit(1)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
