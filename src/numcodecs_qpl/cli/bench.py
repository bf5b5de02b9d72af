"""The command ``numcodecs-qpl bench``."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.bench.files import check_document, check_output
from numcodecs_qpl.bench.sample import CHUNK_SIZE, MOST, size_text
from numcodecs_qpl.bench.verdict import RULES
from numcodecs_qpl.cli.common import OK, examples, failed, missing, unusable_settings

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands

INSTALL = "pip install rich zarr matplotlib isal"

PLOT_SUFFIXES = (".pdf", ".png", ".svg")


def add_bench(commands: Commands) -> None:
    """Describe ``numcodecs-qpl bench`` to argparse."""
    command = commands.add_parser(
        "bench",
        help="measure codecs on your data, and recommend one",
        description="Measure codecs on your own data: QPL with each container and usable path,\n"
        "the codecs of numcodecs, and ISA-L's gzip, some of them after shuffle. Show\n"
        "ratio, speed of encoding and decoding, and CPU time. Then recommend a codec,\n"
        "QPL or another one. Every decoded chunk is compared bit for bit.\n"
        f"It needs more packages: {INSTALL}",
        epilog=f"rules of the recommendation:\n{_indented(RULES)}\n\n"
        + examples(
            "bench --quick",
            "bench temperature.zarr",
            "bench measurements.npy --chunk-size 256K --plot bench.png",
            "bench temperature.zarr --json bench.json",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "data",
        nargs="?",
        type=Path,
        metavar="DATA",
        help="a file (the array of a .npy file, the bytes of any other), or the folder of a zarr array or group, whose "
        "chunks are measured after its filters; default: two generated fields of numbers and a generated text",
    )
    how_long = command.add_mutually_exclusive_group()
    how_long.add_argument("--quick", action="store_true", help="a few seconds, on a small sample: rougher figures")
    how_long.add_argument(
        "--seconds", type=_seconds, metavar="S", help="time to measure in all (default: 30), in at least five rounds"
    )
    command.add_argument(
        "--sample",
        type=_size,
        metavar="SIZE",
        help=f"measure about SIZE of the data, spread evenly (default: 16M; up to {MOST >> 20}M)",
    )
    command.add_argument(
        "--chunk-size",
        type=_size,
        metavar="SIZE",
        help="cut a file into chunks of SIZE, such as 65536, 64K or 1M (default: 1M); not for a zarr store",
    )
    command.add_argument(
        "--json",
        nargs="?",
        const=Path("-"),
        type=Path,
        metavar="FILE",
        help="write all results to FILE, which ends with .json; without FILE, print them instead of text",
    )
    command.add_argument(
        "--plot", type=_plot_file, metavar="FILE", help="draw the results to FILE, which ends with .png, .svg or .pdf"
    )
    command.set_defaults(run=lambda arguments: _bench(arguments, command))


def _bench(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> int:
    only_json = arguments.json == Path("-")
    if arguments.json is not None and not only_json and arguments.json.suffix != ".json":
        command.error(f"argument --json: {arguments.json} does not end with .json (put the data before --json)")
    is_store = arguments.data is not None and arguments.data.is_dir()
    if is_store and arguments.chunk_size is not None:
        command.error(f"argument --chunk-size: {arguments.data} is a folder, and a zarr store has chunks of its own")
    if (
        arguments.data is not None
        and arguments.plot is not None
        and arguments.plot.resolve() == arguments.data.resolve()
    ):
        command.error(f"argument --plot: {arguments.plot} is the data")
    needs = ["rich", *["matplotlib"] * (arguments.plot is not None), *["zarr"] * is_store]
    if not_here := missing(*needs):
        return failed(f"this needs {', '.join(not_here)}: pip install {' '.join(not_here)}")
    try:
        from numcodecs_qpl.bench import run
    except ImportError as error:  # a package of another version
        return failed(f"an installed package cannot be used ({error}): pip install --upgrade {' '.join(needs)}")
    sample = arguments.sample or (run.QUICK_SAMPLE if arguments.quick else run.SAMPLE)
    wishes = run.Wishes(
        data=arguments.data,
        sample=sample,
        chunk_size=arguments.chunk_size or CHUNK_SIZE,
        seconds=0 if arguments.quick else arguments.seconds or run.SECONDS,
        rounds=run.QUICK_ROUNDS if arguments.quick else run.LEAST_ROUNDS,
        json=None if only_json else arguments.json,
        plot=arguments.plot,
        only_json=only_json,
    )
    try:
        if wishes.json is not None:
            check_document(wishes.json)
        if wishes.plot is not None:
            check_output(wishes.plot)
        if wrong := unusable_settings():
            return failed(wrong)
        run.run(wishes)
    except BenchError as error:
        return failed(str(error))
    return OK


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KM]?)(?:iB)?", text)
    size = int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]] if match else 0
    if not 1 <= size <= MOST:
        raise argparse.ArgumentTypeError(
            f"invalid size {text!r}: expected 1 to {size_text(MOST)}, such as 65536, 64K or 1M"
        )
    return size


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"invalid number of seconds {text!r}: expected a number above 0")
    return seconds


def _plot_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in PLOT_SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"invalid name {text!r}: expected one that ends with {', '.join(PLOT_SUFFIXES)}"
        )
    return path


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
