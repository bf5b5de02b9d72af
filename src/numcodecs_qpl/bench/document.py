"""The results as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numcodecs_qpl.bench.files import FORMAT, write_output
from numcodecs_qpl.bench.host import host_facts, path_facts
from numcodecs_qpl.bench.measure import Measured, Result
from numcodecs_qpl.bench.verdict import Choice, Verdict


def document(measured: Sequence[tuple[Measured, Verdict]]) -> dict[str, Any]:
    """Return all facts about a run: sizes in bytes, times in seconds, speeds in MB (10**6 bytes) per second."""
    return {
        "format": FORMAT,
        "host": host_facts(),
        "path": path_facts(),
        "data_sets": [_data_set(one, verdict) for one, verdict in measured],
    }


def _data_set(measured: Measured, verdict: Verdict) -> dict[str, Any]:
    sample = measured.sample
    return {
        "name": sample.name,
        "bytes": sample.total_bytes,
        "chunks": sample.total_chunks,
        "sample": {"bytes": sample.size, "chunks": len(sample.chunks), "largest_chunk": sample.largest},
        "notes": list(sample.notes),
        "results": [_result(result) for result in measured.results],
        "left_out": measured.left_out,
        "noise": measured.noise,
        "verdict": {
            "front": list(verdict.front),
            "choices": {choice.rule: _choice(choice) for choice in verdict.choices},
            "sentences": list(verdict.sentences),
        },
    }


def _result(result: Result) -> dict[str, Any]:
    contender, figures = result.contender, result.figures()
    return {
        "name": contender.name,
        "call": contender.chain,
        "zarr_arguments": contender.zarr_arguments,
        "shuffle": contender.shuffle is not None,
        "family": contender.family,
        "path": contender.path,
        "on": contender.on,
        "container": contender.container,
        "threads": contender.threads,
        "any_gzip_reads_it": contender.gzip,
        "numcodecs_codec": contender.zarr3 is not None,
        "judged": contender.judged,
        "encoded_bytes": result.encoded,
        "ratio": figures.ratio,
        "blocks": result.counts or {},
        "encode": {**asdict(result.encode), "MB_per_s": figures.encode, "cpu_s_per_GB": figures.encode_cpu},
        "decode": {**asdict(result.decode), "MB_per_s": figures.decode, "cpu_s_per_GB": figures.decode_cpu},
    }


def _choice(choice: Choice) -> dict[str, str | list[str] | None]:
    return {
        "best": choice.best.name,
        "zarr": None if choice.usable is None else choice.usable.name,
        "as_good": None if choice.close is None else choice.close.name,
        "rivals": [one.name for one in choice.rivals],
    }


def write_document(path: Path, facts: dict[str, Any]) -> None:
    """Write `document`'s facts to a file."""
    write_output(path, lambda beside: beside.write_text(as_json(facts)))


def as_json(facts: dict[str, Any]) -> str:
    """Return the text of a document."""
    return json.dumps(facts, indent=2) + "\n"
