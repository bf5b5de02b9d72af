"""Advice on accelerators that cannot be used, from folders like those of Linux's idxd driver."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from numcodecs_qpl.host.advice import device_advice, host_advice, queue_advice
from numcodecs_qpl.host.devices import Device, Host, WorkQueue, devices, host

BUS = "sys/bus/dsa/devices"
WITH_SCALABLE_MODE = "BOOT_IMAGE=/vmlinuz quiet intel_iommu=on,sm_on"


def tree(root: Path, device: dict[str, str] | None = None, queue: dict[str, str] | None = None) -> Path:
    """A system with a usable queue wq1.0 of iax1, or what `device` and `queue` change about it."""
    home = root / BUS / "iax1"
    (home / "wq1.0").mkdir(parents=True)
    attributes = {"state": "enabled", "numa_node": "0", "version": "0x100", "pasid_enabled": "1"}
    for name, text in {**attributes, **(device or {})}.items():
        (home / name).write_text(f"{text}\n")
    attributes = {"state": "enabled", "mode": "shared", "type": "user", "name": "iaa", "size": "16"}
    attributes |= {"max_transfer_size": "2097152", "block_on_fault": "1"}
    for name, text in {**attributes, **(queue or {})}.items():
        (home / "wq1.0" / name).write_text(f"{text}\n")
    (root / "dev/iax").mkdir(parents=True)
    (root / "dev/iax/wq1.0").touch(0o600)
    command_line(root, WITH_SCALABLE_MODE)
    return root


def command_line(root: Path, text: str) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cmdline").write_text(f"{text}\n")


def kernel_with_modules(root: Path, text: str) -> None:
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/osrelease").write_text("6.1.0\n")
    (root / "lib/modules/6.1.0").mkdir(parents=True)
    (root / "lib/modules/6.1.0/modules.dep").write_text(text)


def only(root: Path) -> tuple[Device, WorkQueue]:
    (device,) = devices(root)
    (queue,) = device.queues
    return device, queue


def all_advice(root: Path) -> list[str]:
    found = devices(root)
    advice = host_advice(host(root), found)
    for device in found:
        advice += device_advice(device)
        for queue in device.queues:
            advice += queue_advice(device, queue)
    return advice


def sentence(root: Path) -> str:
    """The only advice."""
    (advice,) = all_advice(root)
    return advice


def test_there_is_nothing_to_say_for_a_queue_that_is_usable(tmp_path: Path) -> None:
    assert all_advice(tree(tmp_path)) == []


# ---- The host -----------------------------------------------------------------------------------


def with_an_iaa(root: Path) -> None:
    """An IAA in the list of PCI devices."""
    home = root / "sys/bus/pci/devices/0000:6f:02.0"
    home.mkdir(parents=True)
    (home / "vendor").write_text("0x8086\n")
    (home / "device").write_text("0x0cfe\n")


@pytest.mark.parametrize("driver", [True, False])
@pytest.mark.parametrize("pci", [True, False])
def test_there_is_nothing_to_do_without_an_iaa(tmp_path: Path, driver: bool, pci: bool) -> None:
    if driver:
        (tmp_path / BUS / "dsa0").mkdir(parents=True)
    if pci:
        (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    assert all_advice(tmp_path) == []


def test_a_driver_that_is_not_loaded_is_to_be_loaded(tmp_path: Path) -> None:
    with_an_iaa(tmp_path)
    kernel_with_modules(tmp_path, "kernel/drivers/dma/idxd/idxd.ko: kernel/drivers/dma/idxd/idxd_bus.ko\n")
    assert sentence(tmp_path) == "Linux's idxd driver is not loaded: `sudo modprobe idxd`"


def test_a_kernel_without_the_driver_is_to_be_replaced(tmp_path: Path) -> None:
    with_an_iaa(tmp_path)
    kernel_with_modules(tmp_path, "kernel/drivers/dma/ioat/ioatdma.ko:\n")
    assert sentence(tmp_path).startswith(
        "the running kernel has no idxd driver: install a kernel of version 5.18 or later"
    )


def test_where_the_modules_cannot_be_read_the_driver_is_to_be_loaded_on_the_host(tmp_path: Path) -> None:
    with_an_iaa(tmp_path)
    assert sentence(tmp_path) == "Linux's idxd driver is not loaded: `sudo modprobe idxd` on the host"


def test_an_iaa_that_the_driver_does_not_show_is_to_be_looked_at(tmp_path: Path) -> None:
    with_an_iaa(tmp_path)
    (tmp_path / BUS / "dsa0").mkdir(parents=True)
    assert sentence(tmp_path).startswith(
        "the idxd driver is loaded, and /sys/bus/dsa/devices has no IAA: `lspci -k -s 0000:6f:02.0` shows"
    )


@pytest.mark.parametrize(
    "line", ["quiet", "intel_iommu=on", "intel_iommu=sm_on", "intel_iommu=on iommu=sm_on", "x_intel_iommu=on,sm_on"]
)
def test_without_pasids_scalable_mode_is_to_be_asked_for_on_the_kernels_command_line(tmp_path: Path, line: str) -> None:
    command_line(tree(tmp_path, {"pasid_enabled": "0"}), line)
    assert sentence(tmp_path) == (
        "programs can use iax1 only with the IOMMU in scalable mode: add intel_iommu=on,sm_on to the kernel's command "
        "line, then reboot"
    )


def test_scalable_mode_is_to_be_asked_for_where_the_device_does_not_tell_whether_it_has_pasids(tmp_path: Path) -> None:
    command_line(tree(tmp_path), "quiet")
    (tmp_path / BUS / "iax1/pasid_enabled").unlink()
    assert "add intel_iommu=on,sm_on to the kernel's command line" in sentence(tmp_path)


def test_there_is_nothing_to_say_where_the_kernel_has_scalable_mode_on_by_itself(tmp_path: Path) -> None:
    command_line(tree(tmp_path), "quiet")
    assert all_advice(tmp_path) == []


@pytest.mark.parametrize("line", [WITH_SCALABLE_MODE, "intel_iommu=sm_on,on", "intel_iommu=on quiet intel_iommu=sm_on"])
def test_without_pasids_in_spite_of_the_command_line_the_bios_and_the_log_are_to_be_looked_at(
    tmp_path: Path, line: str
) -> None:
    command_line(tree(tmp_path, {"pasid_enabled": "0"}), line)
    assert sentence(tmp_path).startswith(
        "pasid_enabled is 0 for iax1, so no program can use it: enable VT-d in the BIOS"
    )


def test_all_devices_without_pasids_are_named_in_one_sentence(tmp_path: Path) -> None:
    device, _ = only(tree(tmp_path, {"pasid_enabled": "0"}))
    (advice,) = host_advice(host(tmp_path), [device, replace(device, dev="iax3")])
    assert "for iax1, iax3," in advice


# ---- A device -----------------------------------------------------------------------------------


def test_a_disabled_device_is_to_be_enabled_before_its_queues(tmp_path: Path) -> None:
    tree(tmp_path, {"state": "disabled"}, {"state": "disabled"})
    assert sentence(tmp_path) == (
        "it is disabled: `sudo accel-config enable-device iax1`, then its queues with `enable-wq`"
    )


def test_a_halted_device_is_to_be_reset(tmp_path: Path) -> None:
    tree(tmp_path, {"state": "halted"}, {"state": "disabled"})
    assert sentence(tmp_path).startswith("it halted after an error, which `sudo dmesg | grep idxd` shows: reboot")


def test_an_enabled_device_without_queues_is_to_be_disabled_and_given_one(tmp_path: Path) -> None:
    tree(tmp_path, queue={"state": "disabled", "type": "none", "size": "0"})
    assert sentence(tmp_path).startswith(
        "none of its queues is set up: `sudo accel-config disable-device iax1`, then add engines"
    )


def test_a_new_device_is_to_be_set_up_and_enabled(tmp_path: Path) -> None:
    tree(tmp_path, {"state": "disabled"}, {"state": "disabled", "type": "none", "size": "0"})
    first, second = all_advice(tmp_path)
    assert first.startswith("none of its queues is set up: add engines")
    assert second.startswith("it is disabled")


def test_there_is_nothing_to_set_up_on_a_device_that_shows_no_queues(tmp_path: Path) -> None:
    device, _ = only(tree(tmp_path))
    assert device_advice(replace(device, queues=())) == []


# ---- A queue ------------------------------------------------------------------------------------


def test_a_queue_that_nobody_set_up_is_no_matter_beside_one_that_is(tmp_path: Path) -> None:
    device, queue = only(tree(tmp_path))
    other = replace(queue, dev="wq1.1", state="disabled", type="none", size=0, node_exists=False, may_open=False)
    device = replace(device, queues=(queue, other))
    assert device_advice(device) == queue_advice(device, other) == []


def test_a_disabled_queue_is_to_be_enabled(tmp_path: Path) -> None:
    tree(tmp_path, queue={"state": "disabled"})
    assert sentence(tmp_path) == "it is disabled: `sudo accel-config enable-wq iax1/wq1.0`"


def test_a_dedicated_queue_is_to_be_set_up_anew_as_a_shared_one(tmp_path: Path) -> None:
    tree(tmp_path, queue={"mode": "dedicated"})
    assert sentence(tmp_path) == (
        "it is dedicated (libqpl takes only shared queues): `sudo accel-config disable-wq iax1/wq1.0`, then "
        "`sudo accel-config config-wq iax1/wq1.0 --mode=shared --type=user --driver-name=user --name=iaa "
        "--threshold=15 --priority=10`, then `sudo accel-config enable-wq iax1/wq1.0`"
    )


def test_a_queue_of_the_kernel_is_to_be_set_up_anew_for_programs(tmp_path: Path) -> None:
    tree(tmp_path, queue={"type": "kernel"})
    assert sentence(tmp_path).startswith(
        "it is of type kernel (for the kernel itself, not for programs): `sudo accel-config disable-wq iax1/wq1.0`"
    )


def test_a_queue_of_no_type_is_to_be_set_up_without_being_disabled_first(tmp_path: Path) -> None:
    tree(tmp_path, queue={"state": "disabled", "type": "none"})
    assert sentence(tmp_path).startswith(
        "it has no type: `sudo accel-config config-wq iax1/wq1.0 --mode=shared --type=user"
    )


def test_a_dedicated_queue_of_the_kernel_is_to_be_set_up_anew_once(tmp_path: Path) -> None:
    tree(tmp_path, queue={"mode": "dedicated", "type": "kernel"})
    said = sentence(tmp_path)
    assert said.startswith("it is dedicated (libqpl takes only shared queues) and it is of type kernel (")
    assert said.count("config-wq") == 1


def test_no_queue_is_to_be_enabled_on_a_device_that_is_not(tmp_path: Path) -> None:
    tree(tmp_path, {"state": "disabled"}, {"state": "disabled", "mode": "dedicated"})
    device, queue = only(tmp_path)
    (advice,) = queue_advice(device, queue)
    assert "config-wq" in advice
    assert "enable-wq" not in advice


def test_a_missing_node_is_to_be_handed_into_the_container(tmp_path: Path) -> None:
    (tree(tmp_path) / "dev/iax/wq1.0").unlink()
    assert sentence(tmp_path).startswith(
        "/dev/iax/wq1.0 does not exist, though the queue is enabled: start the container with --device=/dev/iax/wq1.0"
    )


def closed(root: Path, group: str, mode: str) -> str:
    """Advice on a node of root and `group` that this user may not open."""
    device, queue = only(tree(root))
    node = replace(queue, may_open=False, node_owner="root", node_group=group, node_mode=mode)
    (advice,) = queue_advice(device, node)
    return advice


def test_a_node_of_root_alone_is_to_be_given_to_a_group(tmp_path: Path) -> None:
    said = closed(tmp_path, "root", "0600")
    assert said.startswith("this user may not open /dev/iax/wq1.0 (root:root, mode 0600): open it to a group of yours")
    assert "`sudo chgrp GROUP /dev/iax/wq1.0` and `sudo chmod 660 /dev/iax/wq1.0`" in said


def test_nobody_is_told_to_join_roots_group(tmp_path: Path) -> None:
    assert "usermod" not in closed(tmp_path, "root", "0660")


@pytest.mark.parametrize("mode", ["0600", "0640", "0620"])
def test_a_node_whose_group_may_not_read_and_write_is_to_be_opened_to_it(tmp_path: Path, mode: str) -> None:
    said = closed(tmp_path, "iaa", mode)
    assert "chmod 660" in said
    assert "usermod" not in said


def test_the_group_of_a_node_that_is_open_to_it_is_to_be_joined(tmp_path: Path) -> None:
    said = closed(tmp_path, "iaa", "0660")
    assert said.endswith("(root:iaa, mode 0660): join its group with `sudo usermod -aG iaa USER`, then log in again")


# ---- All of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["host", "device", "queue"])
def test_there_is_nothing_to_say_of_what_the_system_does_not_tell(of: str) -> None:
    queue = WorkQueue(
        "wq1.0", None, None, None, None, None, None, None, "/dev/iax/wq1.0", False, False, None, None, None
    )
    device = Device("iax1", None, None, None, None, (queue,))
    says: dict[str, Callable[[], list[str]]] = {
        "host": lambda: host_advice(Host(iaas=None, driver=True, module=None, command_line=None), [device]),
        "device": lambda: device_advice(device),
        "queue": lambda: queue_advice(device, queue),
    }
    assert says[of]() == []


# accel-config's man pages, version 3.5.3
OPTIONS: dict[str, set[str]] = {
    "config-engine": {"--group-id"},
    "config-wq": {
        "--group-id",
        "--wq-size",
        "--priority",
        "--block-on-fault",
        "--threshold",
        "--type",
        "--name",
        "--driver-name",
        "--mode",
        "--max-batch-size",
        "--max-transfer-size",
        "--ats-disable",
    },
    "enable-device": set(),
    "disable-device": set(),
    "enable-wq": set(),
    "disable-wq": {"--force"},
    "save-config": {"--saved-file"},
    "load-config": {"--config-file", "--enable", "--forced", "--log"},
}


def in_the_man_pages(text: str) -> bool:
    """Return True if `text` has commands of accel-config, and all of them and their options are in the man pages."""
    found = re.findall(r"sudo accel-config ([a-z-]+)([^`\n]*)", text.replace("\\\n", ""))
    return bool(found) and all(
        command in OPTIONS and set(re.findall(r"--[a-z-]+", rest)) <= OPTIONS[command] for command, rest in found
    )


def test_the_advice_has_only_commands_and_options_of_accel_configs_man_pages(tmp_path: Path) -> None:
    queues = [{"mode": "dedicated"}, {"state": "disabled"}, {"state": "disabled", "size": "0"}]
    for number, queue in enumerate(queues):
        for state in ("enabled", "disabled"):
            root = tmp_path / f"{number}-{state}"
            root.mkdir()
            assert in_the_man_pages(" ".join(all_advice(tree(root, {"state": state}, queue))))


def test_the_page_has_only_commands_and_options_of_accel_configs_man_pages() -> None:
    page = Path(__file__).parents[2] / "docs/iaa.md"
    assert in_the_man_pages(page.read_text())
    assert not in_the_man_pages(page.read_text().replace("--threshold=", "--treshold="))
    assert not in_the_man_pages(page.read_text().replace("enable-wq", "activate-wq"))
