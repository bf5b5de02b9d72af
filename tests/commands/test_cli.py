"""The command line: what it prints, and the status it exits with."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from engine import needs_libqpl, without_libqpl
from misuse import misuse
from process import with_threads
from programs import environment

import numcodecs_qpl
from numcodecs_qpl import _core, cli
from numcodecs_qpl.cli import info
from numcodecs_qpl.cli.common import NO_HARDWARE
from numcodecs_qpl.cli.demo import DEMO_NEEDS
from numcodecs_qpl.host import devices as devices_module
from numcodecs_qpl.host.advice import device_advice, host_advice, queue_advice
from numcodecs_qpl.host.devices import Device, Host, WorkQueue, devices

PROGRAM = Path(sys.executable).with_name("numcodecs-qpl")


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], env=environment(**changes), capture_output=True, text=True)


def entry(text: str, name: str) -> str:
    """The text beside `name` in what `info` prints, on one line."""
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line[:15].strip() == name)
    words = [lines[start][15:]]
    for line in lines[start + 1 :]:
        if line[:15].strip() or not line:
            break
        words.append(line.strip())
    return " ".join(words)


def without_iaa() -> None:
    if _core.hardware_init_status() == 0:
        pytest.skip('this machine has an IAA, so that the path setting "hardware" is no problem here')


# ---- info ---------------------------------------------------------------------------------------


def test_info_tells_the_versions_that_are_installed() -> None:
    result = run("info")
    assert (result.returncode, result.stderr) == (0, "")
    assert entry(result.stdout, "numcodecs-qpl") == numcodecs_qpl.__version__ == version("numcodecs-qpl")
    assert entry(result.stdout, "libqpl") == (_core.libqpl_version() or "not in this build")
    assert entry(result.stdout, "Python") == platform.python_version()
    for library, number in _core.software_versions().items():
        assert entry(result.stdout, library) == number
    for package in ("numcodecs", "numpy", "zarr"):
        assert entry(result.stdout, package) == version(package)


def test_info_says_that_zarr_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(package: str) -> str:
        if package == "zarr":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert cli.main(["info"]) == 0
    assert entry(capsys.readouterr().out, "zarr") == "not installed"


class Machine:
    """A root folder with the files from which `info` learns about the machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/bus/pci/devices").mkdir(parents=True)
        self._pci("0000:00:01.0", "0x1af4", "0x1041")  # a network card

    def _pci(self, address: str, vendor: str, device: str) -> None:
        self._write(f"sys/bus/pci/devices/{address}", vendor=vendor, device=device)

    def _write(self, folder: str, **attributes: str) -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in attributes.items():
            (self.root / folder / name).write_text(f"{text}\n")

    def add_iaa(self, address: str = "0000:6f:02.0") -> None:
        self._pci(address, "0x8086", "0x0cfe")

    def load_driver(self) -> None:
        """The driver's device with one queue, which is disabled."""
        self._write("sys/bus/dsa/devices/iax1", state="enabled", pasid_enabled="1")
        self._write("sys/bus/dsa/devices/iax1/wq1.0", state="disabled", mode="shared", type="user", size="16")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without an IAA, on which libqpl is installed and finds no device."""
    monkeypatch.setattr(info, "host", lambda: devices_module.host(tmp_path))
    monkeypatch.setattr(info, "devices", lambda: devices(tmp_path))
    monkeypatch.setattr(_core, "libqpl_version", lambda: "1.9.0")
    answers(monkeypatch, "auto", "software", 503)
    return Machine(tmp_path)


def answers(monkeypatch: pytest.MonkeyPatch, setting: str, in_force: str, status: int | None) -> None:
    """Replace the answers of the core."""
    monkeypatch.setattr(_core, "get_path", lambda: setting)
    monkeypatch.setattr(_core, "path_in_force", lambda: in_force)
    monkeypatch.setattr(_core, "hardware_init_status", lambda: status)


def top(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the output of `info` above the versions, on one line."""
    return " ".join(capsys.readouterr().out.partition("\n\n")[0].split())


NOTHING_TO_DO = "No IAA in this machine. Everything runs in software. Nothing to do."


def test_info_on_a_machine_without_an_iaa_has_nothing_to_do(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{NOTHING_TO_DO}\n\n")
    assert "libqpl status" not in text
    assert "QPL_STS" not in text
    assert "driver" not in text


@pytest.mark.parametrize(("setting", "status"), [("auto", 501), ("software", None)])
def test_without_an_iaa_neither_libqpls_answer_nor_a_missing_libqpl_matters(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    status: int | None,
) -> None:
    answers(monkeypatch, setting, "software", status)
    assert cli.main(["info"]) == 0
    assert top(capsys) == NOTHING_TO_DO
    monkeypatch.setattr(_core, "libqpl_version", lambda: None)
    assert cli.main(["info"]) == 0
    assert top(capsys) == NOTHING_TO_DO


def test_info_without_a_list_of_pci_devices_does_not_claim_that_there_is_no_iaa(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(machine.root / "sys")
    assert cli.main(["info"]) == 0
    assert top(capsys) == (
        "Linux shows no list of PCI devices here, and no IAA. Everything runs in software. On a host with an IAA, run "
        "this there."
    )


def test_info_names_the_next_command_on_a_machine_with_an_iaa(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add_iaa()
    assert cli.main(["info"]) == 0
    unused = "1 IAA in this machine, not usable yet. Everything runs in software. Next: "
    assert top(capsys) == f"{unused}Linux's idxd driver is not loaded: `sudo modprobe idxd` on the host."
    machine.load_driver()
    assert cli.main(["info"]) == 0
    assert top(capsys) == f"{unused}wq1.0: it is disabled: `sudo accel-config enable-wq iax1/wq1.0`."


def test_info_counts_the_iaas(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add_iaa()
    machine.add_iaa("0000:f2:02.0")
    assert cli.main(["info"]) == 0
    assert top(capsys).startswith("2 IAAs in this machine, not usable yet.")


def test_info_says_that_libaccel_config_is_missing_before_it_looks_at_devices(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_core, "status_name", lambda status: "QPL_STS_INIT_LIBACCEL_NOT_FOUND")
    monkeypatch.setattr(_core, "hardware_advice", lambda status: "install libaccel-config")
    machine.add_iaa()
    machine.load_driver()
    assert cli.main(["info"]) == 0
    assert top(capsys).partition(" Next: ")[2] == "install libaccel-config."


def test_info_says_that_the_build_has_no_libqpl_on_a_machine_with_an_iaa(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add_iaa()
    monkeypatch.setattr(_core, "libqpl_version", lambda: None)
    answers(monkeypatch, "auto", "software", None)
    assert cli.main(["info"]) == 0
    said = top(capsys)
    assert said.startswith("1 IAA in this machine, not usable yet. Everything runs in software. Next: this build has")
    assert "build it with libqpl" in said


def test_info_says_that_the_setting_keeps_an_iaa_from_being_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add_iaa()
    answers(monkeypatch, "software", "software", None)
    assert cli.main(["info"]) == 0
    assert top(capsys) == (
        "1 IAA in this machine, not used. Everything runs in software. Next: the path setting is software: unset "
        "NUMCODECS_QPL_PATH to use an IAA."
    )


def test_info_says_that_an_iaa_is_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add_iaa()
    machine.load_driver()
    answers(monkeypatch, "auto", "hardware", 0)
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 IAA in this machine. Blocks run on hardware.\n\n")
    assert entry(text, "path in force") == "IAA"


@pytest.mark.parametrize("has_iaa", [True, False])
def test_hardware_that_is_demanded_and_missing_is_a_failure(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_iaa: bool
) -> None:
    def none_usable() -> str:
        raise _core.QplError("no device")

    if has_iaa:
        machine.add_iaa()
    answers(monkeypatch, "hardware", "hardware", 501)
    monkeypatch.setattr(_core, "path_in_force", none_usable)
    assert cli.main(["info"]) == 1
    out, err = capsys.readouterr()
    first = "1 IAA in this machine, not usable yet." if has_iaa else "No IAA in this machine."
    assert out.startswith(f"{first} Compressing and decompressing fail.\n")
    assert "Nothing to do" not in out
    assert err == f"numcodecs-qpl: error: {NO_HARDWARE}\n"


def test_info_fails_on_this_machine_where_hardware_is_demanded_and_missing() -> None:
    without_iaa()
    result = run("info", NUMCODECS_QPL_PATH="hardware")
    assert (result.returncode, result.stderr) == (1, f"numcodecs-qpl: error: {NO_HARDWARE}\n")
    assert entry(result.stdout, "path setting") == "hardware"
    assert entry(result.stdout, "path in force") == "none"
    assert entry(result.stdout, "numcodecs") == version("numcodecs")


@needs_libqpl
def test_info_shows_libqpls_answer_only_if_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    status = _core.hardware_init_status()
    assert status is not None
    name = _core.status_name(status)
    assert cli.main(["info", "--verbose"]) == 0
    assert entry(capsys.readouterr().out, "libqpl status").startswith(f"{status}, {name}")
    assert cli.main(["info"]) == 0
    assert name not in capsys.readouterr().out


@without_libqpl
@pytest.mark.parametrize("setting", ["auto", "software"])
def test_info_says_that_this_build_has_no_libqpl(setting: str) -> None:
    result = run("info", "--verbose", NUMCODECS_QPL_PATH=setting)
    assert (result.returncode, result.stderr) == (0, "")
    assert entry(result.stdout, "libqpl") == "not in this build"
    assert entry(result.stdout, "libqpl status") == "not in this build"
    assert entry(result.stdout, "path in force") == "software path"


@without_libqpl
def test_there_is_nothing_to_probe_without_libqpl() -> None:
    result = run("info", "--probe")
    assert result.returncode == 1
    assert result.stderr.startswith("numcodecs-qpl: error: no device can be probed: this build has no libqpl")
    assert entry(result.stdout, "libqpl") == "not in this build"


def test_nothing_is_probed_with_a_setting_that_is_invalid() -> None:
    result = run("info", "--probe", NUMCODECS_QPL_NUMA="junk")
    assert result.returncode == 1
    assert re.fullmatch(r"numcodecs-qpl: error: NUMCODECS_QPL_NUMA is 'junk'; it must be [^;]*\n", result.stderr)


def test_info_leaves_the_devices_alone_where_software_was_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked() -> int:
        raise AssertionError("libqpl was asked for a hardware job")

    answers(monkeypatch, "software", "software", None)
    monkeypatch.setattr(_core, "hardware_init_status", asked)
    assert cli.main(["info", "--verbose"]) == 0
    assert entry(capsys.readouterr().out, "libqpl status") == "not asked for a device"


def test_info_shows_everything_and_fails_with_a_message_where_the_path_setting_is_no_word_it_knows() -> None:
    result = run("info", NUMCODECS_QPL_PATH="junk")
    assert result.returncode == 1
    message = "NUMCODECS_QPL_PATH is 'junk'; it must be one of auto, hardware, software"
    assert result.stderr == f"numcodecs-qpl: error: {message}\n"
    assert entry(result.stdout, "path setting") == "not a valid setting"
    assert entry(result.stdout, "threads") == "1"


def test_info_shows_everything_and_fails_with_a_message_where_the_threads_are_no_number() -> None:
    result = run("info", NUMCODECS_QPL_THREADS="junk")
    assert result.returncode == 1
    said = r"numcodecs-qpl: error: NUMCODECS_QPL_THREADS is 'junk'; it must be a number from 1 to \d+\n"
    assert re.fullmatch(said, result.stderr)
    assert entry(result.stdout, "threads") == "not a valid setting"
    assert entry(result.stdout, "path setting") == "auto"


def test_info_tells_the_threads(capsys: pytest.CaptureFixture[str]) -> None:
    with with_threads(3):
        assert cli.main(["info"]) == 0
    assert entry(capsys.readouterr().out, "threads") == "3"


OPEN = WorkQueue(
    dev="wq1.0",
    state="enabled",
    mode="shared",
    type="user",
    name="iaa-user",
    size=16,
    max_transfer_size=2097152,
    block_on_fault=True,
    node="/dev/iax/wq1.0",
    node_exists=True,
    may_open=True,
    node_owner="root",
    node_group="iaa",
    node_mode="0660",
)
CLOSED = replace(
    OPEN, dev="wq1.1", mode="dedicated", name=None, size=8, block_on_fault=False, node="/dev/iax/wq1.1", may_open=False
)
ABSENT = WorkQueue("wq1.2", None, None, None, None, None, None, None, "/dev/iax/wq1.2", False, False, None, None, None)
FOUND = [
    Device("iax1", "enabled", 0, "0x100", True, (OPEN, CLOSED, ABSENT)),
    Device("iax3", None, -1, None, None, ()),
]
HOST = Host(iaas=("0000:6f:02.0",), driver=True, module=None, command_line="quiet")


def test_info_tells_each_device_and_queue(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(info, "devices", lambda: FOUND)
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert entry(text, "iax1") == "IAA, enabled, NUMA node 0, version 0x100"
    assert entry(text, "iax3") == "IAA, state unknown, no NUMA node, version unknown"
    assert entry(text, "wq1.0") == (
        "enabled, shared, type user, size 16, max transfer 2097152, block on fault on, name iaa-user, "
        "/dev/iax/wq1.0 open to this user"
    )
    assert entry(text, "wq1.1") == (
        "enabled, dedicated, type user, size 8, max transfer 2097152, block on fault off, name none, "
        "/dev/iax/wq1.1 not open to this user"
    )
    assert entry(text, "wq1.2") == (
        "state unknown, mode unknown, type unknown, size unknown, max transfer unknown, block on fault unknown, "
        "name none, /dev/iax/wq1.2 does not exist"
    )


def test_info_says_what_to_do_below_what_it_is_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = replace(FOUND[0], state="halted", pasid_enabled=False)
    monkeypatch.setattr(info, "devices", lambda: [device])
    monkeypatch.setattr(info, "host", lambda: HOST)
    assert cli.main(["info"]) == 0
    names = [line[:15].strip() for line in capsys.readouterr().out.splitlines()]
    names = [name for name in names[names.index("iax1") :] if name]
    assert names == ["iax1", "to do", "wq1.0", "wq1.1", "to do", "wq1.2"]


def test_info_keeps_to_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(info, "devices", lambda: FOUND)
    monkeypatch.setattr(info, "host", lambda: HOST)
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["info", "--verbose"])
    assert max(map(len, capsys.readouterr().out.splitlines())) < 80


def test_info_json_holds_what_the_library_says() -> None:
    result = run("info", "--json", NUMCODECS_QPL_THREADS="2")
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    status = _core.hardware_init_status()
    assert list(facts) == ["summary", "versions", "path", "threads", "numa", "iaas", "devices", "advice", "errors"]
    assert facts["versions"] == {
        "numcodecs-qpl": numcodecs_qpl.__version__,
        "libqpl": _core.libqpl_version(),
        **_core.software_versions(),
        "Python": platform.python_version(),
        **{package: version(package) for package in ("numcodecs", "numpy", "zarr")},
    }
    assert list(facts["path"]) == ["setting", "in_force", "hardware_init_status"]
    assert facts["path"]["setting"] == "auto"
    assert facts["path"]["in_force"] == ("hardware" if status == 0 else "software")
    assert facts["path"]["hardware_init_status"] == status
    assert facts["threads"] == 2
    iaas = devices_module.host().iaas
    assert facts["iaas"] == (None if iaas is None else list(iaas))
    assert len(facts["devices"]) == len(devices())
    assert facts["errors"] == []


def test_info_json_tells_each_device_and_queue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, "devices", lambda: FOUND)
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["devices"]
    assert {name: found[0][name] for name in ("dev", "state", "numa_node", "version")} == {
        "dev": "iax1",
        "state": "enabled",
        "numa_node": 0,
        "version": "0x100",
    }
    assert found[0]["queues"][0] == {
        "dev": "wq1.0",
        "state": "enabled",
        "mode": "shared",
        "type": "user",
        "name": "iaa-user",
        "size": 16,
        "max_transfer_size": 2097152,
        "block_on_fault": True,
        "node": "/dev/iax/wq1.0",
        "node_exists": True,
        "may_open": True,
        "node_owner": "root",
        "node_group": "iaa",
        "node_mode": "0660",
        "advice": [],
    }


@needs_libqpl
def test_info_json_has_the_advice_of_the_host_of_each_device_and_of_each_queue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = replace(FOUND[0], state="halted", pasid_enabled=False)
    monkeypatch.setattr(info, "devices", lambda: [device])
    monkeypatch.setattr(info, "host", lambda: HOST)
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (found,) = facts["devices"]
    assert facts["advice"][-1:] == host_advice(HOST, [device])
    assert found["advice"] == device_advice(device) != []
    assert [queue["advice"] for queue in found["queues"]] == [[], queue_advice(device, CLOSED), []]
    assert queue_advice(device, CLOSED) != []


def test_info_json_is_json_and_has_the_errors_where_settings_mean_nothing() -> None:
    result = run("info", "--json", NUMCODECS_QPL_PATH="junk", NUMCODECS_QPL_THREADS="junk")
    assert result.returncode == 1
    facts = json.loads(result.stdout)
    assert facts["path"]["in_force"] is None
    assert facts["path"]["hardware_init_status"] is None
    assert facts["threads"] is None
    assert len(facts["errors"]) == 2
    assert result.stderr == f"numcodecs-qpl: error: {'; '.join(facts['errors'])}\n"
    for variable in ("NUMCODECS_QPL_PATH", "NUMCODECS_QPL_THREADS"):
        assert f"{variable} is 'junk'" in result.stderr


# ---- The command line itself --------------------------------------------------------------------


def test_version_names_the_package_and_its_libraries() -> None:
    result = run("--version")
    assert result.returncode == 0
    versions = {**_core.software_versions(), "libqpl": _core.libqpl_version()}
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None)
    assert result.stdout == f"numcodecs-qpl {numcodecs_qpl.__version__} ({libraries})\n"


@pytest.mark.parametrize(
    "arguments", [(), *[(name,) for name in ("info", "demo", "bench", "receive", "relay", "send")]]
)
def test_every_help_has_an_example_and_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr()
    assert " ".join(["\n  numcodecs-qpl", *arguments]) in said.out.partition("\nexamples:")[2]
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.err == ""


def test_the_help_says_what_the_exit_status_means() -> None:
    assert run("--help").stdout.endswith("exit status: 0 for success, 1 for a failure, 2 for a wrong command line\n")


@pytest.mark.parametrize("arguments", [(), ("junk",), ("info", "junk"), ("demo", "--store")])
def test_a_wrong_command_line_is_told_with_its_usage_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    said = misuse(capsys, *arguments)
    assert said.startswith("usage: numcodecs-qpl")
    assert "error: " in said


def test_an_unknown_option_is_told_with_the_usage_of_the_command() -> None:
    result = run("info", "--junk")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: numcodecs-qpl info ")
    assert result.stderr.endswith("numcodecs-qpl info: error: unrecognized arguments: --junk\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("info",), ("--help",)])
def test_a_reader_who_has_gone_is_no_matter_for_a_message(arguments: tuple[str, ...], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    changed = environment(PYTHONUNBUFFERED=unbuffered)
    result = subprocess.run([PROGRAM, *arguments], env=changed, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert result.stderr == ""


def test_a_full_disk_is_told_and_not_taken_for_success() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([PROGRAM, "info"], env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("numcodecs-qpl: error: the output cannot be written: ")
    assert result.stderr.count("\n") == 1


def test_an_interrupt_ends_quietly_with_a_shells_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> list[Device]:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "devices", interrupt)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == ""


def test_info_needs_none_of_the_demos_packages() -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({DEMO_NEEDS!r}))\n"
        "from numcodecs_qpl.cli import main\n"
        "sys.exit(main(['info']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
