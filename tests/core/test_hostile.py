"""Hostile input, in a process of its own: what goes wrong there ends it with a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support/hostile.py"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_hostile_input_gives_an_error_or_the_right_data_and_touches_no_other_memory(threads: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), "--inputs", "5000", "--seed", f"1{threads}"],
        env={**os.environ, "NUMCODECS_QPL_THREADS": threads},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)
    assert done.stdout.startswith("500")
