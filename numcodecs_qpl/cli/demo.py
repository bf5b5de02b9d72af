"""The command ``numcodecs-qpl demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl.cli.common import OK, examples, failed, missing, unusable_settings

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands

DEMO_NEEDS = ("zarr", "xarray", "kerchunk", "h5netcdf", "h5py", "pvlib", "rich")
DEMO_INSTALL = 'pip install "numcodecs-qpl[demo]"'
"""Packages of the extra "demo", and the command that installs them."""


def add_demo(commands: Commands) -> None:
    """Describe ``numcodecs-qpl demo`` to argparse."""
    command = commands.add_parser(
        "demo",
        help="a real array through zarr, with QPL and the usual codecs, and a NetCDF4 file by reference",
        description="Write a real array (monthly maps of how hazy the air is, 112 MB) to zarr stores, with QPL\n"
        "and with the usual codecs; read each back, compare it bit for bit, and show ratio and speed.\n"
        "Then read a NetCDF4 file (229 MB; zlib, shuffle) by reference with xarray, before and after\n"
        "numcodecs_qpl.enable().\n"
        f"What it needs is installed by: {DEMO_INSTALL}",
        epilog=examples("demo", "demo --quick", "demo --store stores"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--quick", action="store_true", help="take a small part of the data: a few seconds, but rougher speeds"
    )
    command.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        help="keep what is written in DIR, a new or empty folder (default: a temporary folder that is removed)",
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    if not_here := missing(*DEMO_NEEDS):
        return failed(f"the demo needs {not_here}: {DEMO_INSTALL}")
    try:
        from numcodecs_qpl import demo
    except ImportError as error:  # there, but not of the version that is needed
        return failed(f"the demo cannot use what is installed ({error}): {DEMO_INSTALL}")
    if wrong := unusable_settings():
        return failed(wrong)
    try:
        demo.run(arguments.store, quick=arguments.quick)
    except demo.DemoError as error:
        return failed(str(error))
    return OK
