"""Wrong command lines, refused in the test's process."""

from __future__ import annotations

import pytest

from numcodecs_qpl.cli import main


def misuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Call the command with words that must be refused with exit status 2; return what it writes to stderr."""
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err
