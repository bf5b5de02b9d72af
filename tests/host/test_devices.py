"""Devices and work queues, read from trees that look like those of Linux's idxd driver."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from numcodecs_qpl.host.devices import Device, Host, WorkQueue, devices, host

DEVICE = {"state": "enabled", "numa_node": "0", "version": "0x100", "pasid_enabled": "1"}
QUEUE = {"state": "enabled", "mode": "shared", "type": "user", "name": "iaa-user", "size": "16"}
QUEUE |= {"max_transfer_size": "2097152", "block_on_fault": "1"}


def make(root: Path, device: str, queues: dict[str, dict[str, str]], **attributes: str) -> Path:
    """An accelerator as in sysfs: under its PCI device, with a link from the bus."""
    home = root / "sys/devices/pci0000:e7/0000:e7:02.0" / device
    home.mkdir(parents=True)
    for name, text in {**DEVICE, **attributes}.items():
        (home / name).write_text(f"{text}\n")
    bus = root / "sys/bus/dsa/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / device).symlink_to(home)
    for queue, changes in queues.items():
        (home / queue).mkdir()
        for name, text in {**QUEUE, **changes}.items():
            (home / queue / name).write_text(f"{text}\n")
        (bus / queue).symlink_to(home / queue)
    return home


def make_node(root: Path, queue: str, mode: int = 0o666) -> Path:
    node = root / "dev/iax" / queue
    node.parent.mkdir(parents=True, exist_ok=True)
    node.touch()
    node.chmod(mode)
    return node


@pytest.fixture
def ordinary_user_root() -> Iterator[Path]:
    """A folder for a tree, and an effective user who is not root, whom permissions do not bind."""
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    root.chmod(0o755)
    superuser = os.geteuid() == 0
    try:
        yield root
    finally:
        if superuser:
            os.seteuid(0)
        shutil.rmtree(root)


def become_ordinary() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


def only(root: Path) -> tuple[Device, WorkQueue]:
    (device,) = devices(root)
    (queue,) = device.queues
    return device, queue


def test_a_system_without_the_driver_has_no_devices(tmp_path: Path) -> None:
    assert devices(tmp_path) == []


def test_this_system_can_be_asked() -> None:
    assert isinstance(devices(), list)


def test_an_enabled_shared_queue_that_the_user_may_open_is_told_in_full(tmp_path: Path) -> None:
    make(tmp_path, "iax1", {"wq1.0": {}})
    node = make_node(tmp_path, "wq1.0", 0o660)
    queue = WorkQueue(
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
        node_owner=node.owner(),
        node_group=node.group(),
        node_mode="0660",
    )
    assert devices(tmp_path) == [Device("iax1", "enabled", 0, "0x100", True, (queue,))]


def test_a_disabled_device_and_its_queues_are_told_as_disabled(tmp_path: Path) -> None:
    make(tmp_path, "iax1", {"wq1.0": {"state": "disabled", "type": "none", "name": "", "size": "0"}}, state="disabled")
    device, queue = only(tmp_path)
    assert device.state == "disabled"
    assert (queue.state, queue.type, queue.name, queue.size) == ("disabled", "none", None, 0)
    assert (queue.node_exists, queue.may_open) == (False, False)
    assert (queue.node_owner, queue.node_group, queue.node_mode) == (None, None, None)


def test_a_dedicated_queue_is_told_as_dedicated(tmp_path: Path) -> None:
    make(tmp_path, "iax1", {"wq1.0": {"mode": "dedicated"}})
    assert only(tmp_path)[1].mode == "dedicated"


def test_a_queue_of_the_kernel_is_told_as_the_kernels(tmp_path: Path) -> None:
    make(tmp_path, "iax1", {"wq1.0": {"type": "kernel"}})
    assert only(tmp_path)[1].type == "kernel"


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o222])
def test_a_node_that_this_user_may_not_read_and_write_is_told_as_closed(ordinary_user_root: Path, mode: int) -> None:
    make(ordinary_user_root, "iax1", {"wq1.0": {}})
    make_node(ordinary_user_root, "wq1.0", mode)
    become_ordinary()
    queue = only(ordinary_user_root)[1]
    assert (queue.node_exists, queue.may_open) == (True, False)


def test_a_node_that_this_user_may_read_and_write_is_told_as_open(ordinary_user_root: Path) -> None:
    make(ordinary_user_root, "iax1", {"wq1.0": {}})
    make_node(ordinary_user_root, "wq1.0", 0o666)
    become_ordinary()
    assert only(ordinary_user_root)[1].may_open


def test_a_node_of_a_user_and_a_group_without_names_is_told_with_their_numbers(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files to others")
    make(tmp_path, "iax1", {"wq1.0": {}})
    os.chown(make_node(tmp_path, "wq1.0"), 3_999_999, 3_999_998)
    queue = only(tmp_path)[1]
    assert (queue.node_owner, queue.node_group) == ("3999999", "3999998")


def test_a_device_without_pasids_and_a_queue_that_does_not_block_are_told_as_such(tmp_path: Path) -> None:
    make(tmp_path, "iax1", {"wq1.0": {"block_on_fault": "0"}}, pasid_enabled="0")
    device, queue = only(tmp_path)
    assert (device.pasid_enabled, queue.block_on_fault) == (False, False)


def test_devices_and_queues_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for device in ("iax11", "iax3", "iax1"):
        make(tmp_path, device, {f"wq{device[3:]}.{number}": {} for number in (10, 2, 0)})
    found = devices(tmp_path)
    assert [device.dev for device in found] == ["iax1", "iax3", "iax11"]
    assert [queue.dev for queue in found[2].queues] == ["wq11.0", "wq11.2", "wq11.10"]


def test_what_else_is_on_the_bus_is_no_device(tmp_path: Path) -> None:
    home = make(tmp_path, "iax1", {"wq1.0": {}})
    for name in ("dsa0", "engine1.0", "group1.0", "iax!wq1.0"):
        (tmp_path / "sys/bus/dsa/devices" / name).mkdir()
        (home / name).mkdir()
    assert [device.dev for device in devices(tmp_path)] == ["iax1"]
    assert [queue.dev for queue in devices(tmp_path)[0].queues] == ["wq1.0"]


@pytest.mark.parametrize("name", ["state", "numa_node", "version", "pasid_enabled"])
def test_a_missing_file_of_a_device_is_a_none(tmp_path: Path, name: str) -> None:
    (make(tmp_path, "iax1", {}) / name).unlink()
    assert getattr(devices(tmp_path)[0], name) is None


@pytest.mark.parametrize("name", list(QUEUE))
def test_a_missing_file_of_a_queue_is_a_none(tmp_path: Path, name: str) -> None:
    (make(tmp_path, "iax1", {"wq1.0": {}}) / "wq1.0" / name).unlink()
    assert getattr(only(tmp_path)[1], name) is None


def test_a_file_that_cannot_be_read_is_a_none(tmp_path: Path) -> None:
    state = make(tmp_path, "iax1", {}) / "state"
    state.unlink()
    state.mkdir()  # to read it fails, for root too
    assert devices(tmp_path)[0].state is None


def test_a_number_that_is_none_and_text_that_is_no_text_do_no_harm(tmp_path: Path) -> None:
    home = make(tmp_path, "iax1", {}, numa_node="many")
    (home / "version").write_bytes(b"\xff\xfe\n")
    device = devices(tmp_path)[0]
    assert device.numa_node is None
    assert device.version == "\ufffd\ufffd"


def test_a_device_that_vanishes_under_the_look_does_no_harm(tmp_path: Path) -> None:
    shutil.rmtree(make(tmp_path, "iax1", {"wq1.0": {}}))  # the bus's link dangles now
    assert devices(tmp_path) == [Device("iax1", None, None, None, None, ())]


# ---- The host -----------------------------------------------------------------------------------


def make_modules(root: Path, release: str, **lists: str) -> None:
    kernel = root / "proc/sys/kernel"
    kernel.mkdir(parents=True, exist_ok=True)
    (kernel / "osrelease").write_text(f"{release}\n")
    modules = root / "lib/modules" / release
    modules.mkdir(parents=True)
    for name, text in lists.items():
        (modules / f"modules.{name}").write_text(text)


def test_this_system_as_a_host_can_be_asked() -> None:
    assert isinstance(host(), Host)


def test_a_host_of_which_nothing_can_be_read_has_no_driver_and_tells_nothing_else(tmp_path: Path) -> None:
    assert host(tmp_path) == Host(iaas=None, driver=False, module=None, command_line=None)


def test_a_host_with_the_drivers_bus_has_the_driver(tmp_path: Path) -> None:
    (tmp_path / "sys/bus/dsa/devices").mkdir(parents=True)
    assert host(tmp_path).driver


def test_the_kernels_command_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text("quiet intel_iommu=on,sm_on\n")
    assert host(tmp_path).command_line == "quiet intel_iommu=on,sm_on"


def pci(root: Path, address: str, vendor: str, device: str) -> None:
    home = root / "sys/bus/pci/devices" / address
    home.mkdir(parents=True)
    (home / "vendor").write_text(f"{vendor}\n")
    (home / "device").write_text(f"{device}\n")


def test_the_iaas_of_the_pci_list_are_found_without_a_driver(tmp_path: Path) -> None:
    pci(tmp_path, "0000:f2:02.0", "0x8086", "0x0cfe")
    pci(tmp_path, "0000:6f:02.0", "0x8086", "0x1216")
    pci(tmp_path, "0000:6f:01.0", "0x8086", "0x0b25")  # a Data Streaming Accelerator
    pci(tmp_path, "0000:00:01.0", "0x1af4", "0x0cfe")  # another vendor
    (tmp_path / "sys/bus/pci/devices/0000:00:02.0").mkdir()  # gone while it is read
    assert host(tmp_path).iaas == ("0000:6f:02.0", "0000:f2:02.0")


def test_a_machine_without_an_iaa_and_one_without_a_pci_list_are_different(tmp_path: Path) -> None:
    assert host(tmp_path).iaas is None
    pci(tmp_path, "0000:00:01.0", "0x1af4", "0x1041")
    assert host(tmp_path).iaas == ()


@pytest.mark.parametrize(
    "lists",
    [
        {"dep": "kernel/a.ko:\nkernel/drivers/dma/idxd/idxd.ko.xz: kernel/drivers/dma/idxd/idxd_bus.ko.xz\n"},
        {"dep": "", "builtin": "kernel/drivers/dma/idxd/idxd.ko\n"},
    ],
)
def test_a_kernel_that_lists_the_driver_has_it(tmp_path: Path, lists: dict[str, str]) -> None:
    make_modules(tmp_path, "6.1.0-17-amd64", **lists)
    assert host(tmp_path).module is True


def test_a_kernel_that_does_not_list_the_driver_does_not_have_it(tmp_path: Path) -> None:
    make_modules(tmp_path, "6.1.0-17-amd64", dep="kernel/drivers/dma/idxd/idxd_bus.ko:\n", builtin="")
    assert host(tmp_path).module is False


def test_the_modules_of_another_kernel_tell_nothing(tmp_path: Path) -> None:
    make_modules(tmp_path, "6.1.0-17-amd64", dep="kernel/drivers/dma/idxd/idxd.ko:\n")
    (tmp_path / "proc/sys/kernel/osrelease").write_text("6.12.0\n")
    assert host(tmp_path).module is None
