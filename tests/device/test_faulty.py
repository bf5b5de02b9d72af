"""A device that fails at random, in a process of its own: what goes wrong there ends it with a signal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import emulated_iaa
import pytest

PROGRAM = Path(__file__).parents[1] / "support/faulty.py"


def run(*arguments: str, **settings: int) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", str(PROGRAM), *arguments],
        # Large pieces of memory are given back to the kernel when they are freed: a device that still writes there ends
        # the process.
        env={**emulated_iaa.environment(**settings), "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    print(done.stdout)
    return done.stdout


@pytest.mark.parametrize(
    "settings",
    [{"size": 8}, {"size": 64}, {"size": 2, "devices": 2, "queues": 2, "engines": 2}],
    ids=["small queue", "large queue", "several queues"],
)
def test_whatever_fails_every_block_is_right_and_counted_once(settings: dict[str, int]) -> None:
    # In fewer batches a kind of fault may not come to its caller, by chance, which the program does not let pass. Each
    # kind came to it at least 9 times in 3000, with three seeds and these settings.
    out = run("--batches", "3000", "--seed", "1", **settings)
    assert out.startswith("3000 batches on the emulated IAA, seed 1:\n")


# tools/test_sanitized.sh runs each of the three with both paths.
@pytest.mark.parametrize(("how", "path"), [("hang", "auto"), ("lost", "hardware"), ("hold", "auto")])
def test_a_device_that_stops_answering_spoils_nothing_and_is_used_no_more(how: str, path: str) -> None:
    out = run("--lose", how, "--path", path, "--batches", "200", "--seed", "1", size=8)
    assert out.startswith("200 batches on the emulated IAA, seed 1:\n")
