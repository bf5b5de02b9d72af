"""Facts about the host of a measurement: machine, versions, and QPL's path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import zlib
from pathlib import Path
from typing import Any

from numcodecs_qpl import __version__, _core, get_path
from numcodecs_qpl.bench.contenders import isal_is_installed
from numcodecs_qpl.host.cpus import usable_cpus
from numcodecs_qpl.host.devices import devices, path_names


def cpu_model() -> str:
    """Return the name of the processor, or its architecture if Linux does not show the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def host_facts() -> dict[str, Any]:
    """Return facts about the host, for JSON."""
    return {
        "cpu": cpu_model(),
        "cpus": usable_cpus(),
        "load_average": os.getloadavg()[0],
        "kernel": platform.release(),
        "versions": {
            "numcodecs-qpl": __version__,
            "libqpl": _core.libqpl_version(),
            **_core.software_versions(),
            "Python": platform.python_version(),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            **{package: importlib.metadata.version(package) for package in ("numcodecs", "numpy")},
            "isal": importlib.metadata.version("isal") if isal_is_installed() else None,
        },
    }


def path_facts() -> dict[str, str]:
    """Return the path setting, the path in force, and its name for users."""
    path = _core.path_in_force()
    return {"setting": get_path(), "in_force": path, "name": path_names(devices())[path]}


def host_text() -> str:
    """Return one line about the host."""
    facts = host_facts()
    cpus = facts["cpus"]
    return f"{facts['cpu']}, {cpus} CPU{'s' * (cpus != 1)}; {_core.engine_versions()}, {path_facts()['name']}"
