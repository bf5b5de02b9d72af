"""Feed a fuzz target by atheris: coverage-guided, from its corpus.

    PYTHONPATH=tests/support:tests/fuzz python -P tests/fuzz/run.py gzip --seconds 60

New inputs go to ``build/fuzz-corpus/TARGET``. An input that breaks the target goes to ``build/fuzz-corpus`` as
``TARGET-crash-*``, and the program ends with an error. ``--minimize FOLDER`` writes the smallest set of inputs that has
the coverage of the committed corpus and of all inputs found.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
FOUND = FOLDER.parents[1] / "build/fuzz-corpus"
TARGETS = ("gzip", "zlib", "deflate", "pages", "encode")
MAX_SIZE = 2000
"""Bytes of the largest input: also of those that are committed."""


def main() -> None:
    """Command line of this program."""
    parser = argparse.ArgumentParser(description="Fuzz one of the package's readers or writers.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of libFuzzer; 0 takes a new one")
    parser.add_argument("--minimize", type=Path, metavar="FOLDER", help="do not fuzz: write the least corpus")
    options, rest = parser.parse_known_args()
    found, corpus = FOUND / options.target, CORPUS / options.target
    # To minimize, libFuzzer starts itself by its first argument, a shell command, with options of its own: `rest`.
    arguments = [f"{sys.executable} -P {__file__} {options.target}", f"-max_len={MAX_SIZE}", "-timeout=20"]
    arguments += ["-rss_limit_mb=2048"]
    found.mkdir(parents=True, exist_ok=True)
    if rest:
        arguments[1:] = rest
    elif options.minimize:
        options.minimize.mkdir(parents=True, exist_ok=True)
        arguments += ["-merge=1", *map(str, (options.minimize, corpus, found))]
    else:
        arguments += [f"-max_total_time={options.seconds}", "-print_final_stats=1", f"-seed={options.seed}"]
        arguments += [f"-artifact_prefix={FOUND}/{options.target}-", str(found), str(corpus)]
    fuzz(options.target, arguments)


def fuzz(target: str, arguments: list[str]) -> None:
    """Run libFuzzer with its own `arguments`."""
    run: Callable[[bytes], None]
    repair: Callable[[str, bytes], bytes]

    def once(data: bytes) -> int:
        try:
            run(data)
        except SkipError:
            return -1
        return 0

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = atheris.Mutate(data or b"\0", max_size)
        if random.Random(seed).randrange(2):
            changed = repair(target, changed)
        return bytes(changed[:max_size])

    atheris.Setup(arguments, once, custom_mutator=mutate)
    with atheris.instrument_imports(include=["numcodecs_qpl"]):
        from targets import TARGETS as RUNS
        from targets import SkipError, repair
    run = RUNS[target]
    atheris.Fuzz()


if __name__ == "__main__":
    main()
