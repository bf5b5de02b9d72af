"""The line of progress of the commands."""

from __future__ import annotations

import re
import sys

import pytest
from programs import environment
from terminal import on_terminal

SHOW = """
import sys, time
from numcodecs_qpl.cli.migration import progress
with progress(lambda: sys.argv[1]):
    time.sleep(0.6)
"""
WIDTH = 80


BAR = """
import time
from numcodecs_qpl.progress import progress_bar
with progress_bar() as bar:
    bar.add_task("codec", total=2, completed=1)
    time.sleep(0.6)
"""


def shown(text: str, program: str = SHOW) -> list[str]:
    """Return the content of the line after each write."""
    _, sent = on_terminal([sys.executable, "-c", program, text], environment(TERM="xterm-256color", COLUMNS=str(WIDTH)))
    drawn, _, end = sent.decode().rpartition("\r\n")
    assert end.endswith("\x1b[1A\x1b[2K")  # nothing remains
    assert "\n" not in drawn
    plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", drawn)
    return [line for line in plain.split("\r") if line]


@pytest.mark.parametrize("text", ["checking guest", "checking [/guest]", "checking [bold]guest"])
def test_the_text_is_shown_as_it_is(text: str) -> None:
    assert {line[2:] for line in shown(text)} == {text}


def test_a_long_text_stays_on_one_line_with_room_for_the_echo_of_ctrl_c() -> None:
    lines = shown("1234567 pages, " * 10)
    assert all(line.endswith("…") and len(line) + len("^C") <= WIDTH for line in lines)


def test_a_bar_leaves_room_for_the_echo_of_ctrl_c() -> None:
    assert all(line.startswith("codec") and len(line) + len("^C") <= WIDTH for line in shown("", BAR))
