"""The command ``numcodecs-qpl demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl.cli.common import OK, examples, failed, missing, unusable_settings
from numcodecs_qpl.cli.signals import Signals, Terminated

if TYPE_CHECKING:
    from numcodecs_qpl.cli.common import Commands

DEMO_NEEDS = ("zarr", "xarray", "kerchunk", "h5netcdf", "h5py", "pvlib", "rich")
DEMO_INSTALL = f"pip install {' '.join(DEMO_NEEDS)}"
"""Packages of the extra "demo", and the command that installs them."""


def add_demo(commands: Commands) -> None:
    """Describe ``numcodecs-qpl demo`` to argparse."""
    command = commands.add_parser(
        "demo",
        help="write and read a real array with QPL and the usual codecs",
        description="Write a real array (monthly maps of how hazy the air is, 112 MB) to zarr\n"
        "stores, with QPL and with the usual codecs; read each back, compare it bit for\n"
        "bit, and show ratio and speed. Then read a NetCDF4 file (229 MB; zlib, shuffle)\n"
        "by reference with xarray, before and after numcodecs_qpl.enable().\n"
        f"It needs more packages:\n{DEMO_INSTALL}",
        epilog=examples("demo", "demo --quick", "demo --store stores"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--quick", action="store_true", help="take a small part of the data: a few seconds, and rougher speeds"
    )
    command.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        help="write to DIR, a new or empty folder, and keep it (default: a temporary folder that is removed)",
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    if not_here := missing(*DEMO_NEEDS):
        return failed(f"the demo needs {', '.join(not_here)}: pip install {' '.join(not_here)}")
    try:
        from numcodecs_qpl import demo
    except ImportError as error:  # a package of another version
        return failed(f"an installed package cannot be used ({error}): pip install --upgrade {' '.join(DEMO_NEEDS)}")
    if wrong := unusable_settings():
        return failed(wrong)
    try:
        with Signals() as signals:
            demo.run(arguments.store, quick=arguments.quick, check=signals.check)
    except demo.DemoError as error:
        return failed(str(error))
    except Terminated as error:
        return error.status
    return OK
