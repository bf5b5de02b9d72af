"""The fuzzer's corpus, through its targets, without the fuzzer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import damage
import oracle
import pytest
import seeds
import targets
from process import with_threads

FILES = sorted(file for file in seeds.CORPUS.rglob("*") if file.is_file())


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with with_threads():
        yield


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_an_input_of_the_corpus_breaks_no_target(file: Path) -> None:
    try:
        targets.TARGETS[file.parent.name](file.read_bytes())
    except targets.SkipError:
        pytest.fail("the target skips this input, so the corpus must not have it")


def test_the_corpus_is_small_and_has_as_many_files_as_seeds() -> None:
    """Not the same bytes: another Python or zlib compresses otherwise."""
    assert len(FILES) <= 200
    assert max(file.stat().st_size for file in FILES) <= seeds.LARGEST
    for target in targets.TARGETS:
        found = {file.read_bytes() for file in FILES if file.parent.name == target}
        made = {content for _, content in seeds.seeds(target) if len(content) <= seeds.LARGEST}
        assert len(found) >= max(10, len(made)), f"{target}: run tests/fuzz/seeds.py"


@pytest.mark.parametrize("target", ["gzip", "zlib", "pages"])
def test_a_repaired_input_is_one_that_the_oracle_accepts(target: str) -> None:
    for name, content in seeds.seeds(target):
        assert len(targets.repair(target, content)) >= len(content), name
    if target != "pages":
        broken = bytearray(dict(seeds.seeds(target))["zlib level 6"])
        broken[-4:] = bytes(4)
        whole = targets.repair(target, bytes(broken))
        assert oracle.READERS[target](whole) == damage.TEXT
