"""The emulated IAA itself: it does what the tests of the hardware path take for granted."""

from __future__ import annotations

import importlib.metadata
import subprocess

import emulated_iaa
import pytest

PREAMBLE = """
import os, sys, threading, time, zlib
import numpy as np
from blocks import DATA, RNG, WORDS, raw_deflate, wait_until
from emulated_iaa import Device, Fate, Opcode
from reference import Job, JobError, Path, compress, decompress, status_of

device = Device()

def compressed(**where):
    return device.served(Opcode.COMPRESS, **where)
"""


def run(script: str, *arguments: str, **settings: int | str | list[str]) -> str:
    return emulated_iaa.run(PREAMBLE + script, *arguments, **settings)


# ---- What it makes, and reads ----


def test_zlib_and_the_device_itself_inflate_what_the_device_compressed() -> None:
    run("""
for name, data in DATA.items():
    for size in (1, 2, 3, 100, 4095, 4096, 4097, 65536, 1 << 20):
        block = data[:size]
        for dynamic in (False, True):
            stream = compress(block, dynamic)
            assert zlib.decompress(stream, -15) == block, (name, size, dynamic)
            assert decompress(stream, size) == (0, block, zlib.crc32(block)), (name, size, dynamic)
""")


def test_dynamic_tables_take_two_descriptors_and_fixed_ones_one() -> None:
    run("""
compress(WORDS)
assert compressed() == 1
small = compress(WORDS, dynamic=True)
assert compressed() == 3
assert len(small) < len(compress(WORDS))
assert compressed() == 4
""")


def test_noise_becomes_stored_blocks_made_by_libqpl() -> None:
    run("""
for dynamic in (False, True):
    stream = compress(DATA["noise"][:4096], dynamic)
    assert len(stream) == 4101 and stream[0] & 7 == 1
""")


def test_matches_reach_back_4096_bytes() -> None:
    run("""
unit = RNG.bytes(4096)
assert len(compress(unit * 2)) < 5000
assert len(compress(unit + b"x" + unit)) > 8192
""")


def test_what_libqpl_compressed_in_software_the_device_inflates_and_the_other_way_round() -> None:
    run("""
software = Job(Path.SOFTWARE)
for data in DATA.values():
    for dynamic in (False, True):
        done = software.compress(data, dynamic)
        assert done.status == 0
        assert decompress(done.output, len(data))[:2] == (0, data)
        done = software.decompress(compress(data, dynamic), len(data))
        assert (done.status, done.output) == (0, data)
""")


def test_it_inflates_all_kinds_of_blocks_that_zlib_makes() -> None:
    run("""
for data in (WORDS[:4096], DATA["noise"][:4096], b"a" * 4096, b"", b"x"):
    for level in (0, 1, 9):
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE):
            assert decompress(raw_deflate(data, level=level, strategy=strategy), max(1, len(data)))[:2] == (0, data)
compressor = zlib.compressobj(wbits=-15)
stream = b"".join(compressor.compress(WORDS[i * 999 :][:999]) + compressor.flush(zlib.Z_FULL_FLUSH) for i in range(4))
assert decompress(stream + compressor.flush(), 9999)[:2] == (0, WORDS[: 4 * 999])
""")


def test_a_distance_of_4096_is_followed_and_a_farther_one_is_status_217() -> None:
    run("""
unit = RNG.bytes(4096)
assert decompress(raw_deflate(unit * 2), 8192)[:2] == (0, unit * 2)
far = RNG.bytes(4097)
assert decompress(raw_deflate(far * 2), 8194)[0] == 217
""")


def test_a_damaged_stream_is_answered_with_what_is_wrong() -> None:
    run("""
for stream, status in (
    ("07", 213),  # block type 3
    ("010100ffff00", 214),  # stored, length and complement differ
    ("63", 215),  # no end
    ("0101", 215),  # no length
    ("030200", 218),  # a match before any output
    ("fdff", 215),  # dynamic, the header is cut
):
    assert decompress(bytes.fromhex(stream), 100)[0] == status, stream
""")


def test_a_truncated_stream_is_status_215_wherever_it_is_cut() -> None:
    run("""
for dynamic in (False, True):
    stream = compress(WORDS[:300], dynamic)
    assert {decompress(stream[:cut], 300)[0] for cut in range(1, len(stream))} == {215}
""")


def test_damage_never_writes_outside_the_room_and_never_hangs() -> None:
    run("""
stream = bytearray(compress(WORDS[:2000], True))
for _ in range(3000):
    damaged = stream.copy()
    damaged[RNG.integers(len(stream))] ^= 1 << RNG.integers(8)
    decompress(bytes(damaged), 2000)  # asserts that nothing behind the room was touched
assert device.working == 0
""")


# ---- What it refuses ----


def test_more_than_the_maximum_transfer_is_status_319() -> None:
    run(
        """
compress(bytes(50_000))
assert status_of(bytes(70_000)) == 319
""",
        max_transfer=65536,
    )


def test_a_fault_reaches_libqpls_caller_as_its_status() -> None:
    run("""
stream = compress(WORDS)
for fault, status in (
    ("read_fault", 303),
    ("write_fault", 431),
    ("error:13", 213),
    ("error:30", 230),
    ("status:16", 316),
    ("status:17", 317),
    ("status:19", 319),
    ("status:32", 332),
):
    device.fault(f"any:1:9:{fault}")  # page faults are tried again
    assert status_of(WORDS) == status, fault
    device.clear_faults()
    device.fault(f"any:1:9:{fault}")
    assert decompress(stream, len(WORDS))[0] == status, fault
    device.clear_faults()
    assert status_of(WORDS) == 0, fault
""")


def test_libqpl_mends_one_page_fault_by_submitting_once_more() -> None:
    run("""
for number, fault in enumerate(("read_fault", "write_fault"), 1):
    device.fault(f"compress:1:1:{fault}")
    assert zlib.decompress(compress(WORDS), -15) == WORDS
    assert compressed() == 2 * number, fault
    device.clear_faults()
""")


def test_a_fault_strikes_the_nth_descriptor_of_its_operation_only() -> None:
    run("""
device.fault("compress:3:1:status:16")
stream = compress(WORDS)
assert [decompress(stream, 65536)[0] for _ in range(4)] == [0] * 4
assert [status_of(WORDS) for _ in range(4)] == [0, 316, 0, 0]
""")


def test_faults_at_random_strike_at_their_rate_and_again_with_the_same_seed() -> None:
    script = """
print(*(int(status_of(WORDS[:100]) == 316) for _ in range(1000)), sep="")
"""
    first = run(script, random="compress:100000:7:status:16")
    assert 50 < first.count("1") < 150
    assert run(script, random="compress:100000:7:status:16") == first
    assert run(script, random="compress:100000:8:status:16") != first


def test_a_text_that_is_no_fault_is_refused() -> None:
    run("""
for text in ("", "any", "any:1:1", "copy:1:1:hang", "any:0:1:hang", "any:1:1:burn", "any:1:1:error", "any:1:1:hang:3"):
    try:
        device.fault(text)
    except ValueError:
        continue
    raise AssertionError(text)
""")


@pytest.mark.parametrize(
    "setting", ["speed=3", "devices", "devices=x", "devices=9", "size=3", "size=512", "engines=0", "fault=any:1"]
)
def test_a_setting_that_is_none_stops_the_process_and_says_so(setting: str) -> None:
    name = setting.partition("=")[0]
    done = subprocess.run(
        ["python", "-c", f"import ctypes; ctypes.CDLL({emulated_iaa.LIBRARY!r})"],
        capture_output=True,
        text=True,
        env={**emulated_iaa.environment(), "EMULATED_IAA": setting},
    )
    assert done.returncode < 0
    assert done.stderr.startswith(f"emulated IAA: EMULATED_IAA: {name}: ")


def test_a_descriptor_that_libqpl_would_not_send_is_refused_with_the_status_of_its_fault() -> None:
    run("""
import ctypes, struct

compress(WORDS)  # libqpl has opened the queue
fifo = next(
    int(entry.name)
    for entry in os.scandir("/proc/self/fd")
    if os.path.lexists(entry) and "emulated-iaa-" in os.readlink(entry)
)
source, destination = ctypes.create_string_buffer(b"\\x03\\x00", 4096), ctypes.create_string_buffer(4096)
aecs = ctypes.create_string_buffer(2 * 0x1500)

def submit(opcode, *, flags=0, job_flags=0, size=2, room=4096, aecs_size=0x1500):
    memory = ctypes.create_string_buffer(128)
    record = (ctypes.addressof(memory) + 63) // 64 * 64
    os.write(fifo, struct.pack(
        "<IIQQQIHHQIIII", 0, opcode << 24 | flags, record, ctypes.addressof(source), ctypes.addressof(destination),
        size, 0, job_flags, ctypes.addressof(aecs), room, aecs_size, 0, 0,
    ))
    status = ctypes.c_uint8.from_address(record)
    wait_until(lambda: status.value)
    return status.value, ctypes.c_uint8.from_address(record + 1).value

DECOMPRESS, COMPRESS = Opcode.DECOMPRESS, Opcode.COMPRESS
assert submit(Opcode.NOOP) == (0x01, 0)
assert submit(DECOMPRESS, job_flags=0x1F) == (0x01, 0)
assert submit(0x50) == submit(0x44) == (0x10, 0)  # scan, CRC-64
assert submit(DECOMPRESS, job_flags=0x1F, size=2**21 + 1) == (0x13, 0)
assert submit(DECOMPRESS, job_flags=0x1F, room=2**21 + 1) == (0x13, 0)
assert submit(DECOMPRESS, job_flags=0x1F, size=0, room=0) == (0x13, 0)
assert submit(DECOMPRESS, job_flags=0) == (0x30, 0)
assert submit(DECOMPRESS, job_flags=0x3F) == (0x30, 0)  # big-endian
assert submit(COMPRESS, job_flags=2) == (0x11, 0)  # no AECS, no codes
assert submit(COMPRESS, job_flags=2, flags=1 << 16) == (0x0A, 30)  # codes of no length
assert submit(COMPRESS, job_flags=1, room=1279) == (0x0A, 25)  # a histogram does not fit
assert device.served(0x50) == 1
""")


# ---- Queues ----


@pytest.mark.parametrize("size", [1, 8, 256])
def test_a_queue_holds_as_many_descriptors_as_it_has_places(size: int) -> None:
    run(
        f"""
Job(Path.HARDWARE)  # libqpl opens the queue
assert device.waiting() == 0
device.set_busy(True)
assert device.waiting() == {size}
assert status_of(WORDS) == 5
assert device.waiting() == {size} and compressed() == 0
device.set_busy(False)
wait_until(lambda: device.waiting() == 0)
assert status_of(WORDS) == 0 and compressed() == 1
""",
        size=size,
    )


@pytest.mark.parametrize("size", [1, 8])
def test_libqpls_own_descriptors_fill_a_queue_and_one_more_is_busy(size: int) -> None:
    run(
        f"""
Job(Path.HARDWARE)  # libqpl opens the queue
device.hold(True)
threads = [threading.Thread(target=compress, args=(WORDS,)) for _ in range({size})]
for thread in threads:
    thread.start()
wait_until(lambda: device.waiting() == {size})
assert status_of(WORDS) == 5
device.hold(False)
for thread in threads:
    thread.join()
assert compressed() == {size}
""",
        size=size,
    )


def test_libqpl_takes_the_devices_in_turn_and_a_devices_next_queue_where_one_is_full() -> None:
    run(
        """
def work():
    for _ in range(6):
        while status_of(WORDS[:4096]):
            pass

for _ in range(24):
    compress(WORDS[:4096])
counts = [[compressed(device=d, queue=q) for q in range(3)] for d in range(2)]
assert [sorted(one) for one in counts] == [[0, 0, 12]] * 2, counts
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
counts = [compressed(device=d, queue=q) for d in range(2) for q in range(3)]
assert sum(counts) == 24 + 12 * 6 and min(counts) > 0, counts
assert compressed(device=2) == compressed(queue=3) == -1
""",
        devices=2,
        queues=3,
        size=1,
        engines=1,
        job_us=2000,
    )


@pytest.mark.parametrize("engines", [1, 3])
def test_as_many_descriptors_are_in_work_at_once_as_there_are_engines(engines: int) -> None:
    run(
        f"""
threads = [threading.Thread(target=compress, args=(WORDS,)) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert (device.most_working, device.working) == ({engines}, 0)
""",
        engines=engines,
        job_us=50_000,
    )


def test_a_job_takes_the_time_that_was_set() -> None:
    run(
        """
start = time.monotonic()
compress(WORDS)
assert time.monotonic() - start >= 0.2
""",
        job_us=200_000,
    )


@pytest.mark.parametrize("settings", [{"devices": 0}, {"queues": 0}])
def test_without_a_device_or_a_queue_libqpl_finds_none(settings: dict[str, int]) -> None:
    script = """
try:
    Job(Path.HARDWARE)
except JobError as error:
    print(error.status)
"""
    assert run(script, **settings) == "503\n"


def test_a_queue_that_fills_up_between_the_two_descriptors_of_a_job_is_busy() -> None:
    run("""
device.fault("compress:1:1:busy:0")
assert status_of(WORDS, True) == 5
assert compressed() == 1
device.set_busy(False)
""")


def test_a_busy_spell_ends_by_itself() -> None:
    run("""
device.fault("compress:1:1:busy:1000")
compress(WORDS)
wait_until(lambda: status_of(WORDS) == 0)
""")


def test_a_failing_queue_completes_with_status_332_and_a_refused_one_is_busy() -> None:
    run("""
Job(Path.HARDWARE)  # libqpl opens the queue
device.vanish(0, 0, Fate.FAILING)
assert status_of(WORDS) == 332
device.vanish(0, 0, Fate.SERVED)
assert status_of(WORDS) == 0
device.fault("compress:2:1:refused")
assert [status_of(WORDS) for _ in range(4)] == [0, 0, 5, 5]
""")


def test_a_lost_queue_reads_and_completes_nothing() -> None:
    run("""
device.fault("compress:2:1:lost")
compress(WORDS)
for _ in range(3):
    threading.Thread(target=status_of, args=(WORDS,), daemon=True).start()
    wait_until(lambda: device.working == 0)
wait_until(lambda: device.waiting() == 2)
time.sleep(0.05)
assert (device.waiting(), compressed()) == (2, 1)
os._exit(0)  # these threads wait
""")


def test_a_forked_child_cannot_submit() -> None:
    run("""
def ends():
    links = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry)]
    return sum("emulated-iaa-" in link for link in links)

compress(WORDS)
assert ends() == 2  # libqpl's and the device's
child = os.fork()
if child == 0:
    os._exit(ends())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
assert status_of(WORDS) == 0 and compressed() == 2
""")


def test_nothing_stays_in_the_file_system() -> None:
    run(
        """
compress(WORDS)
links = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if entry.is_symlink() and os.path.lexists(entry)]
fifos = [link.removesuffix(" (deleted)") for link in links if "emulated-iaa-" in link]
assert len(fifos) == 2 * 4  # libqpl's end and the device's
assert not any(os.path.exists(fifo) or os.path.exists(os.path.dirname(fifo)) for fifo in fifos)
""",
        devices=2,
        queues=2,
    )


# ---- Where it is ----


def test_it_is_not_installed() -> None:
    files = importlib.metadata.files("numcodecs-qpl")
    assert files
    assert not [str(file) for file in files if "accel" in file.name or "iaa" in file.parts]
