"""The specification of our zarr v3 codec, as it can be proposed to zarr-extensions: it is true of the codec."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import zarr
from pages import ROOT, blocks

import numcodecs_qpl
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName
from numcodecs_qpl.zarr import QPL

FOLDER = ROOT / "docs/zarr-extensions/codecs/numcodecs_qpl.qpl"
SCHEMA: dict[str, Any] = json.loads((FOLDER / "schema.json").read_text())
OBJECT = SCHEMA["anyOf"][0]["properties"]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
NAME = "numcodecs_qpl.qpl"
DATA = np.arange(3000, dtype="<i4")


def in_zarr_json(folder: Path) -> dict[str, Any]:
    """The last codec in an array's metadata."""
    codec: dict[str, Any] = json.loads((folder / "zarr.json").read_text())["codecs"][-1]
    return codec


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_folder_schema_entry_point_and_metadata_have_one_name_that_zarr_allows() -> None:
    (point,) = entry_points(group="zarr.codecs", name=NAME)
    assert point.load() is QPL
    assert FOLDER.name == OBJECT["name"]["const"] == SCHEMA["anyOf"][1]["const"] == QPL().to_dict()["name"] == NAME
    assert re.fullmatch("[a-z][a-z0-9-_.]+", NAME)  # zarr's core specification 3.1, "Extension naming"


@pytest.mark.parametrize("huffman", ["dynamic", "fixed"])
@pytest.mark.parametrize("block_size", [1, 65536, 2**31 - 1])
@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_the_metadata_that_zarr_writes_is_valid(
    tmp_path: Path, container: ContainerName, block_size: int, huffman: Huffman
) -> None:
    codec = QPL(container=container, block_size=block_size, huffman=huffman)
    zarr.create_array(tmp_path, data=DATA[:50], compressors=codec)
    written = in_zarr_json(tmp_path)
    assert written["configuration"] == {"container": container, "block_size": block_size, "huffman": huffman}
    VALIDATOR.validate(written)


def test_the_defaults_are_the_codecs_and_a_part_of_the_configuration_is_enough() -> None:
    properties = OBJECT["configuration"]["properties"]
    parameters = inspect.signature(QPL).parameters
    assert {name: part["default"] for name, part in properties.items()} == {
        name: parameter.default for name, parameter in parameters.items()
    }
    for part in ({}, {"container": "zlib"}, {"block_size": 3}, {"huffman": "fixed"}):
        metadata: dict[str, Any] = {"name": NAME, "configuration": part}
        VALIDATOR.validate(metadata)
        assert QPL.from_dict(metadata) == QPL(**part)


@pytest.mark.parametrize("metadata", [NAME, {"name": NAME}], ids=str)
def test_a_name_alone_is_valid(metadata: Any) -> None:
    VALIDATOR.validate(metadata)


WRONG: list[dict[str, Any]] = [
    {},
    {"configuration": {}},
    {"name": "qpl"},
    {"name": "numcodecs.qpl"},
    {"name": NAME, "configuration": []},
    *(
        {"name": NAME, "configuration": configuration}
        for configuration in (
            {"container": "zip"},
            {"container": None},
            {"block_size": 0},
            {"block_size": 2**31},
            {"block_size": 1.5},
            {"block_size": "65536"},
            {"block_size": True},
            {"huffman": "static"},
            {"level": 1},
            {"id": "qpl"},
        )
    ),
]


@pytest.mark.parametrize("metadata", WRONG, ids=str)
def test_schema_and_codec_refuse_wrong_metadata(metadata: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(metadata)
    with pytest.raises((TypeError, ValueError)):
        QPL.from_dict(metadata)


def test_the_examples_of_the_page_are_valid_and_decoded() -> None:
    codecs, data = blocks(FOLDER / "README.md")
    codec = json.loads(codecs.text)["codecs"][-1]
    VALIDATOR.validate(codec)
    assert QPL.from_dict(codec).to_dict() == codec
    chunk, plain = bytes.fromhex(data.text), bytes(range(8)) * 4
    assert gzip.decompress(chunk) == plain
    assert numcodecs_qpl.QPL(block_size=16, huffman="fixed").encode(plain) == chunk
    assert np.frombuffer(chunk[16:28], "<u4").tolist() == [16, 16, 16]  # the index: block size, compressed sizes


@pytest.mark.parametrize(
    ("container", "other"),
    [
        ("gzip", {"name": "gzip", "configuration": {"level": 1}}),
        ("zlib", {"name": "numcodecs.zlib", "configuration": {"level": 1}}),
    ],
    ids=["gzip", "zlib"],
)
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
def test_another_codecs_name_in_the_metadata_opens_the_same_chunks(
    tmp_path: Path, container: ContainerName, other: dict[str, Any]
) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=(700,), compressors=QPL(container=container))
    metadata = json.loads((tmp_path / "zarr.json").read_text())
    metadata["codecs"][-1] = other
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    array = zarr.open_array(tmp_path, mode="r")
    assert not isinstance(array.compressors[0], QPL)
    assert np.array_equal(array[:], DATA)
