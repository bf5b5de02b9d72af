"""Newer QEMUs, each with itself and with 7.2, through relays and into the receiver. test_qemu.py has 7.2 alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from commands import Command
from guest import Guest
from programs import need
from qemus import qemu
from way import DATA_AT, Way, assert_that_it_arrives, migrate, received_sha256, set_up

need("qemu-system-x86_64", "nasm")

NEWER = ("10.0", "newest")


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_qemu_to_itself_through_two_relays(
    tmp_path: Path, data: Path, firmware: dict[bool, Path], name: str
) -> None:
    with Way(tmp_path, firmware[True], data, dirty=True, qemu=qemu(name)) as way:
        assert_that_it_arrives(way, dirty=True)


@pytest.mark.parametrize("names", [("7.2", "newest"), ("newest", "7.2")], ids=" to ".join)
def test_one_qemu_to_another_through_two_relays(
    tmp_path: Path, data: Path, firmware: dict[bool, Path], names: tuple[str, str]
) -> None:
    source, destination = map(qemu, names)
    way = Way(
        tmp_path,
        firmware[True],
        data,
        dirty=True,
        qemu=source,
        guest={"machine": "pc-q35-7.2"},
        destination={"qemu": destination},
    )
    with way:
        assert_that_it_arrives(way, dirty=True)


@pytest.mark.parametrize(("name", "form"), [("10.0", "raw"), ("newest", "zarr")])
def test_a_newer_qemu_to_receive(tmp_path: Path, data: Path, firmware: dict[bool, Path], name: str, form: str) -> None:
    out = tmp_path / "out"
    arguments = ("--listen", f"unix:{tmp_path}/s", "--channels", "2", "--output", str(out), "--format", form)
    with (
        Guest(tmp_path, "source", firmware=firmware[True], data=(data, DATA_AT), qemu=qemu(name)) as source,
        Command("receive", *arguments) as end,
    ):
        set_up(source, 2, dirty=True)
        assert migrate(source, f"unix:{tmp_path}/s", dirty=True)["status"] == "completed"
        done = end.finish()
        assert (done.returncode, done.stderr) == (0, "")
        assert received_sha256(out, form) == source.ram_sha256()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["machine"] == "pc-q35-" + ".".join(qemu(name).version.split(".")[:2])


def test_an_arm_guest_arrives_and_runs_on_through_two_relays(tmp_path: Path) -> None:
    # Guest memory begins at 0x40000000. The same as firmware.asm with DIRTY.
    instructions = (
        0xD2A80800,  # start: movz x0, #0x4040, lsl #16
        0xD2A81801,  #        movz x1, #0x40c0, lsl #16
        0xB9401002,  # page:  ldr w2, [x0, #0x10]
        0x11000442,  #        add w2, w2, #1
        0xB9001002,  #        str w2, [x0, #0x10]
        0x91400400,  #        add x0, x0, #1, lsl #12
        0x5289C403,  #        movz w3, #20000
        0x71000463,  # wait:  subs w3, w3, #1
        0x54FFFFE1,  #        b.ne wait
        0xEB01001F,  #        cmp x0, x1
        0x54FFFF03,  #        b.lo page
        0x17FFFFF5,  #        b start
    )
    firmware = tmp_path / "firmware"
    firmware.write_bytes(struct.pack(f"<{len(instructions)}I", *instructions))
    page_size = ("--page-size", "4096")
    way = Way(
        tmp_path,
        firmware,
        first=page_size,
        second=page_size,
        dirty=True,
        qemu=qemu("newest", "aarch64"),
        guest={"machine": "virt", "more": ("-cpu", "cortex-a57")},
    )
    with way:
        assert_that_it_arrives(way, dirty=True)
