"""The command line: what it prints, and the status it exits with."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from engine import needs_libqpl, without_libqpl
from programs import environment

import numcodecs_qpl
from numcodecs_qpl import _core, cli
from numcodecs_qpl.advice import device_advice, host_advice, queue_advice
from numcodecs_qpl.cli import info
from numcodecs_qpl.cli.demo import DEMO_NEEDS
from numcodecs_qpl.devices import Device, Host, WorkQueue, devices

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


@needs_libqpl
def test_info_tells_the_path_in_force_and_why() -> None:
    text = run("info").stdout
    status = _core.hardware_init_status()
    assert status is not None
    assert entry(text, "path setting") == "auto"
    assert entry(text, "path in force") == ("software path" if status else "IAA")
    assert f"status is {status}, {_core.status_name(status)}" in entry(text, "because")
    if status:
        assert _core.hardware_advice(status) in entry(text, "because")


@without_libqpl
@pytest.mark.parametrize("setting", ["auto", "software"])
def test_info_says_that_this_build_has_no_libqpl(setting: str) -> None:
    result = run("info", NUMCODECS_QPL_PATH=setting)
    assert (result.returncode, result.stderr) == (0, "")
    assert entry(result.stdout, "libqpl") == "not in this build"
    assert entry(result.stdout, "path in force") == "software path"
    assert "this build has no libqpl" in entry(result.stdout, "because")
    assert "to do" not in result.stdout


@without_libqpl
def test_there_is_nothing_to_probe_without_libqpl() -> None:
    result = run("info", "--probe")
    assert result.returncode == 1
    assert result.stderr.startswith("numcodecs-qpl: error: there is nothing to probe: this build has no libqpl")
    assert entry(result.stdout, "libqpl") == "not in this build"


@needs_libqpl
def test_info_says_that_the_software_path_was_asked_for() -> None:
    result = run("info", NUMCODECS_QPL_PATH="software")
    assert (result.returncode, result.stderr) == (0, "")
    assert entry(result.stdout, "path setting") == "software"
    assert entry(result.stdout, "path in force") == "software path"
    assert "the setting says so" in entry(result.stdout, "because")


def test_info_leaves_the_devices_alone_where_software_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> int:
        raise AssertionError("libqpl was asked for a hardware job")

    monkeypatch.setattr(_core, "hardware_init_status", asked)
    monkeypatch.setattr(_core, "get_path", lambda: "software")
    monkeypatch.setattr(_core, "path_in_force", lambda: "software")
    assert cli.main(["info"]) == 0


def test_info_shows_everything_and_says_what_will_fail_where_hardware_is_forced_and_missing() -> None:
    without_iaa()
    result = run("info", NUMCODECS_QPL_PATH="hardware")
    assert (result.returncode, result.stderr) == (0, "")
    assert entry(result.stdout, "path setting") == "hardware"
    assert entry(result.stdout, "path in force") == "none: compressing and decompressing will fail"
    assert _core.hardware_advice(_core.hardware_init_status()) in entry(result.stdout, "because")
    assert entry(result.stdout, "threads") == "1"
    assert entry(result.stdout, "numcodecs") == version("numcodecs")


@needs_libqpl
def test_info_says_iaa_where_one_can_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_core, "hardware_init_status", lambda: 0)
    monkeypatch.setattr(_core, "path_in_force", lambda: "hardware")
    monkeypatch.setattr(_core, "get_path", lambda: "auto")
    monkeypatch.setattr(info, "devices", lambda: FOUND)
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert entry(text, "path in force") == "IAA"
    assert entry(text, "because") == "an IAA can be used: libqpl's hardware init status is 0, QPL_STS_OK"


def test_info_shows_everything_and_fails_with_a_message_where_the_path_setting_is_no_word_it_knows() -> None:
    result = run("info", NUMCODECS_QPL_PATH="junk")
    assert result.returncode == 1
    message = "NUMCODECS_QPL_PATH is 'junk'; it must be one of auto, hardware, software"
    assert result.stderr == f"numcodecs-qpl: error: {message}\n"
    assert entry(result.stdout, "because") == message
    assert entry(result.stdout, "threads") == "1"


@pytest.mark.parametrize("word", ["junk", "0", "-1", "1.5"])
def test_info_shows_everything_and_fails_with_a_message_where_the_threads_are_no_number(word: str) -> None:
    result = run("info", NUMCODECS_QPL_THREADS=word)
    assert result.returncode == 1
    said = rf"numcodecs-qpl: error: NUMCODECS_QPL_THREADS is '?{word}'?; it must be (a number from )?1 to \d+\n"
    assert re.fullmatch(said, result.stderr)
    assert entry(result.stdout, "threads") == "not a valid setting"
    assert entry(result.stdout, "path setting") == "auto"


def test_info_tells_both_settings_that_mean_nothing() -> None:
    result = run("info", NUMCODECS_QPL_PATH="junk", NUMCODECS_QPL_THREADS="junk")
    assert "NUMCODECS_QPL_PATH" in result.stderr
    assert "NUMCODECS_QPL_THREADS" in result.stderr


def test_info_tells_the_threads() -> None:
    assert entry(run("info", NUMCODECS_QPL_THREADS="3").stdout, "threads") == "3"


def test_info_says_that_there_are_no_devices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, "devices", list)
    assert cli.main(["info"]) == 0
    assert entry(capsys.readouterr().out, "devices").startswith("none: ")


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
HOST = Host(driver=True, module=None, command_line="quiet", dsa=())


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
    host = [*info._libqpl_advice(_core.hardware_init_status()), *host_advice(HOST, [device])]
    to_do = ["to do"] * len(host) if _core.libqpl_version() else []
    assert names == ["iax1", "to do", "wq1.0", "wq1.1", "to do", "wq1.2", *to_do]


def test_info_keeps_to_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(info, "devices", lambda: FOUND)
    monkeypatch.setattr(info, "host", lambda: HOST)
    cli.main(["info"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_info_json_holds_what_the_library_says() -> None:
    result = run("info", "--json", NUMCODECS_QPL_THREADS="2")
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    status = _core.hardware_init_status()
    assert list(facts) == ["versions", "path", "threads", "numa", "devices", "advice", "errors"]
    assert facts["versions"] == {
        "numcodecs-qpl": numcodecs_qpl.__version__,
        "libqpl": _core.libqpl_version(),
        **_core.software_versions(),
        "Python": platform.python_version(),
        **{package: version(package) for package in ("numcodecs", "numpy", "zarr")},
    }
    assert list(facts["path"]) == ["setting", "in_force", "why", "hardware_init_status"]
    assert facts["path"]["setting"] == "auto"
    assert facts["path"]["in_force"] == ("hardware" if status == 0 else "software")
    assert ("this build has no libqpl" if status is None else _core.status_name(status)) in facts["path"]["why"]
    assert facts["path"]["hardware_init_status"] == status
    assert facts["threads"] == 2
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


@needs_libqpl
def test_info_says_to_install_libaccel_config_where_libqpl_finds_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = next(number for number in range(1000) if _core.status_name(number) == "QPL_STS_INIT_LIBACCEL_NOT_FOUND")
    monkeypatch.setattr(_core, "hardware_init_status", lambda: status)
    monkeypatch.setattr(_core, "path_in_force", lambda: "software")
    monkeypatch.setattr(_core, "get_path", lambda: "auto")
    assert cli.main(["info", "--json"]) == 0
    advice = json.loads(capsys.readouterr().out)["advice"]
    assert advice[0] == _core.hardware_advice(status)
    assert "install libaccel-config" in advice[0]


def test_info_json_is_json_and_has_the_errors_where_settings_mean_nothing() -> None:
    result = run("info", "--json", NUMCODECS_QPL_PATH="junk", NUMCODECS_QPL_THREADS="junk")
    assert result.returncode == 1
    facts = json.loads(result.stdout)
    assert facts["path"]["in_force"] is None
    assert facts["path"]["hardware_init_status"] is None
    assert facts["threads"] is None
    assert len(facts["errors"]) == 2


# ---- The command line itself --------------------------------------------------------------------


def test_version_names_the_package_and_its_libraries() -> None:
    result = run("--version")
    assert result.returncode == 0
    versions = {**_core.software_versions(), "libqpl": _core.libqpl_version()}
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None)
    assert result.stdout == f"numcodecs-qpl {numcodecs_qpl.__version__} ({libraries})\n"


@pytest.mark.parametrize("arguments", [(), ("info",), ("demo",), ("bench",), ("receive",), ("relay",)])
def test_every_help_has_an_example_and_keeps_to_100_columns(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert " ".join(["\n  numcodecs-qpl", *arguments]) in result.stdout.partition("\nexamples:")[2]
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_the_help_says_what_the_exit_status_means() -> None:
    assert run("--help").stdout.endswith(
        "exit status: 0 if all went well, 1 if something failed, 2 if the command line is wrong\n"
    )


@pytest.mark.parametrize("arguments", [(), ("junk",), ("info", "--junk"), ("info", "junk"), ("demo", "--store")])
def test_a_wrong_command_line_is_told_with_its_usage_and_status_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("usage: numcodecs-qpl")
    assert "error: " in result.stderr


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
