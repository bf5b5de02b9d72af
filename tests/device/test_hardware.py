"""The hardware path, run and broken on the emulated IAA: what comes out, and which path did it.

Nothing in here says anything about the speed of an IAA.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import emulated_iaa
import numpy as np
import pytest
from blocks import DATA, compress, decompress

import numcodecs_qpl

PREAMBLE = """
import itertools, json, os, sys, threading, time, zlib
import numpy as np
from blocks import DATA, RNG, WORDS, compress, decompress, raw_deflate, status_of, wait_until
from emulated_iaa import Device, Fate, Opcode
import numcodecs_qpl
from numcodecs_qpl import QPL, CorruptDataError, QplError, _core, set_path, stats
from numcodecs_qpl._core.iaa import set_timeout

device = Device()
PAGES = DATA["words"][: 64 * 4096]
BUSY = "QPL_STS_QUEUES_ARE_BUSY_ERR"
TIMEOUT = "QPL_STS_INTL_HARDWARE_TIMEOUT"

def done():
    seen = stats()
    return {path: tuple(seen[path].values()) for path in ("hardware", "software")}

def inflate_pages(lengths, payload):
    ends = np.cumsum(lengths).tolist()
    pieces = [payload[end - length : end] for end, length in zip(ends, lengths.tolist())]
    return b"".join(p if len(p) == 4096 else zlib.decompress(p, -15) for p in pieces)

def round_trip(pages=PAGES, huffman="fixed"):
    lengths, payload = numcodecs_qpl.compress_pages(pages, 4096, huffman)
    assert inflate_pages(lengths, payload) == pages
    assert numcodecs_qpl.decompress_pages(payload, lengths) == pages
    return int((lengths == 4096).sum())  # pages that are kept as they are
"""


def run(script: str, *arguments: str, **settings: int | str | list[str]) -> str:
    return emulated_iaa.run(PREAMBLE + script, *arguments, **settings)


# ---- What comes out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["hardware", "auto"])
@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_hardware_software_and_zlib_read_what_each_other_wrote(container: str, path: str) -> None:
    run(f"""
wbits = {{"gzip": 31, "zlib": 15, "deflate": -15}}["{container}"]
set_path("{path}")
for huffman in ("fixed", "dynamic"):
    codec = QPL(container="{container}", huffman=huffman)
    for name, data in DATA.items():
        for size in (1, 2, 100, 4096, 65535, 65536, 65537, 200_000):
            part = data[:size]
            blocks = -(-size // 65536)
            numcodecs_qpl.reset_stats()
            by_hardware = codec.encode(part)
            assert done() == {{"hardware": (blocks, 0), "software": (0, 0)}}, (name, size)
            set_path("software")
            by_software = codec.encode(part)
            by_zlib = zlib.compressobj(6, zlib.DEFLATED, wbits)
            by_zlib = by_zlib.compress(part) + by_zlib.flush()
            out = bytearray(size)
            for encoded in (by_hardware, by_software, by_zlib):
                codec.decode(encoded, out)
                assert out == part, (name, size)
            set_path("{path}")
            for encoded in (by_hardware, by_software, by_zlib):
                numcodecs_qpl.reset_stats()
                out = bytearray(size)
                codec.decode(encoded, out)
                assert out == part, (name, size)
                # Only gzip has an index, and only ours is one of blocks.
                on_device = "{container}" == "gzip" and encoded is not by_zlib
                expected = {{"hardware": (0, blocks), "software": (0, 0)}}
                assert done() == (expected if on_device else {{"hardware": (0, 0), "software": (0, 1)}}), (name, size)
                assert stats()["fallback"] == {{}}
                assert bytes(codec.decode(encoded)) == part
            reader = zlib.decompressobj(wbits)
            assert reader.decompress(by_hardware) == part
            assert reader.eof and not reader.unused_data
""")


def test_the_bytes_do_not_depend_on_queues_engines_and_threads() -> None:
    script = """
set_path("hardware")
numcodecs_qpl.set_threads(int(sys.argv[1]))
for huffman in ("fixed", "dynamic"):
    print(QPL(huffman=huffman).encode(DATA["words"]).hex())
"""
    first = run(script, "1")
    assert len(first) > 100_000
    assert run(script, "1", size=1, engines=1) == first
    assert run(script, "4", size=8, engines=3, devices=2, queues=2) == first


def test_blocks_above_what_a_queue_takes_are_done_in_software_or_refused_where_hardware_is_demanded() -> None:
    run(
        """
assert _core.hardware_init_status() == 0
for container in ("gzip", "zlib", "deflate"):
    indexed = container == "gzip"  # without an index hardware has no part in reading
    codec = QPL(container, block_size=1 << 20)
    set_path("auto")
    numcodecs_qpl.reset_stats()
    served = [device.served(opcode) for opcode in (Opcode.COMPRESS, Opcode.DECOMPRESS)]
    encoded = codec.encode(DATA["words"])
    assert done() == {"hardware": (0, 0), "software": (1, 0)}
    out = bytearray(1 << 20)
    codec.decode(encoded, out)
    assert out == DATA["words"]
    assert stats()["fallback"] == {"QPL_STS_TRANSFER_SIZE_INVALID": 2 if indexed else 1}
    assert [device.served(opcode) for opcode in (Opcode.COMPRESS, Opcode.DECOMPRESS)] == served
    set_path("hardware")
    assert status_of(codec.encode, DATA["words"]) == 319
    assert status_of(codec.decode, encoded, out) == (319 if indexed else 0)
    codec = QPL(container)
    numcodecs_qpl.reset_stats()
    assert bytes(codec.decode(codec.encode(DATA["words"]))) == DATA["words"]
    assert done()["hardware"] == (16, 16 if indexed else 0)
""",
        max_transfer=100_000,
    )


def test_data_that_a_device_refuses_is_judged_by_software() -> None:
    run("""
far = RNG.bytes(4097)
pages = far * 2
stream = raw_deflate(pages)
for path in ("hardware", "auto"):
    set_path(path)
    numcodecs_qpl.reset_stats()
    assert numcodecs_qpl.decompress_pages(stream, [len(stream)], len(pages)) == pages
    assert done() == {"hardware": (0, 0), "software": (0, 1)}
    assert stats()["fallback"] == {"QPL_STS_BAD_DIST_ERR": 1}
    lengths, payload = numcodecs_qpl.compress_pages(PAGES)
    for broken, name in (
        (b"\\xff" * 100, "QPL_STS_INVALID_BLOCK_TYPE"),
        (payload[: int(lengths[0]) - 9], "QPL_STS_BAD_EOF_ERR"),
    ):
        numcodecs_qpl.reset_stats()
        try:
            numcodecs_qpl.decompress_pages(broken, [len(broken)])
        except CorruptDataError as error:
            assert str(error) == f"page 0 of 1 cannot be inflated: its {len(broken)} bytes are damaged"
        else:
            raise AssertionError("no error")
        assert done() == {"hardware": (0, 0), "software": (0, 1)}
        assert stats()["fallback"] == {name: 1}, stats()
""")


# ---- Queues, and what is in flight ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 8, 64])
def test_batches_smaller_and_larger_than_the_queue(size: int) -> None:
    run(
        """
for count in (1, 7, 8, 9, 63, 64, 65, 200):
    pages = (DATA["words"][: 50 * 4096] + DATA["noise"][: 75 * 4096] + DATA["zeros"])[: count * 4096]
    for path, huffman in itertools.product(("hardware", "auto"), ("fixed", "dynamic")):
        set_path(path)
        numcodecs_qpl.reset_stats()
        kept = round_trip(pages, huffman)
        seen = stats()
        assert done()["hardware"][0] + done()["software"][0] == count
        assert sum(done()["software"]) == seen["fallback"].get(BUSY, 0)
        assert set(seen["fallback"]) <= {BUSY}
        if path == "hardware":
            assert done() == {"hardware": (count, count - kept), "software": (0, 0)}, (done(), count)
""",
        size=size,
    )


def test_a_full_queue_sends_blocks_to_software_while_others_run_on_hardware() -> None:
    run(
        """
set_path("auto")
round_trip()
assert min(done()["hardware"]) > 0 and min(done()["software"]) > 0
assert stats()["fallback"] == {BUSY: sum(done()["software"])}
""",
        size=4,
        engines=1,
        job_us=2000,
    )


def test_a_block_that_finds_the_queues_full_is_tried_three_times_more() -> None:
    run("""
set_path("auto")
_core.hardware_init_status()
device.set_busy(True)
round_trip()
assert stats()["fallback"] == {BUSY: 128}
assert stats()["queues"] == {"full": 4 * 128}
""")


def test_blocks_of_two_descriptors_do_not_keep_each_other_from_the_second() -> None:
    run(
        """
set_path("hardware")
for _ in range(5):
    numcodecs_qpl.compress_pages(PAGES, huffman="dynamic")
assert done()["hardware"][0] == 5 * 64
assert 2 * 5 * 64 <= device.served(Opcode.COMPRESS) < 4 * 5 * 64
""",
        size=8,
        engines=2,
    )


def test_64_blocks_on_eight_engines_take_nearer_to_8_jobs_than_to_64() -> None:
    run(
        """
set_path("hardware")
start = time.monotonic()
lengths, payload = numcodecs_qpl.compress_pages(PAGES)
taken = time.monotonic() - start
assert inflate_pages(lengths, payload) == PAGES
assert device.most_working == 8
assert 8 <= taken / 0.020 < 36, taken
assert done() == {"hardware": (64, 0), "software": (0, 0)}
""",
        engines=8,
        job_us=20_000,
    )


def test_the_blocks_of_one_chunk_are_in_flight_together() -> None:
    run(
        """
set_path("hardware")
encoded = QPL().encode(DATA["words"])
assert device.most_working == 8
assert bytes(QPL().decode(encoded)) == DATA["words"]
assert done() == {"hardware": (16, 16), "software": (0, 0)}
""",
        engines=8,
        job_us=20_000,
    )


def test_eight_threads_share_the_queues() -> None:
    for path in ("hardware", "auto"):
        run(
            f"""
set_path("{path}")
failures = []
def work(number):
    try:
        for _ in range(20):
            round_trip(DATA["words"][number * 4096 : (number + 9) * 4096], ("fixed", "dynamic")[number % 2])
    except Exception as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert failures == []
total = 8 * 20 * 9
seen = done()
assert [seen["hardware"][i] + seen["software"][i] for i in (0, 1)] == [total, total]
assert "{path}" == "auto" or seen["software"] == (0, 0)
assert min(seen["hardware"]) > 0
""",
            size=16,
            devices=2,
        )


def test_other_python_threads_run_while_a_batch_is_in_flight() -> None:
    run(
        """
set_path("hardware")
turns = []
def count():
    while not stop.is_set():
        turns.append(time.monotonic())
        time.sleep(0.001)
stop = threading.Event()
thread = threading.Thread(target=count)
thread.start()
wait_until(lambda: len(turns) > 3)
start = time.monotonic()
numcodecs_qpl.compress_pages(PAGES)
end = time.monotonic()
stop.set()
thread.join()
assert sum(start < turn < end for turn in turns) > 20, (start, end, turns)
""",
        engines=1,
        job_us=10_000,
    )


def test_a_numa_node_without_a_device_is_not_used() -> None:
    run(
        """
set_path("auto")
numcodecs_qpl.set_numa(5)
round_trip()
assert done()["hardware"] == (0, 0)
assert sum(stats()["fallback"].values()) == 128
numcodecs_qpl.set_numa("any")
round_trip()
assert done()["hardware"] == (64, 64)
""",
        numa_node=1,
    )


# ---- What fails -------------------------------------------------------------------------------------------------

FAULTS = """
# By fault of the emulated IAA: libqpl's name for it.
FAULTS = {
    "read_fault": "QPL_STS_INTL_PAGE_FAULT",
    "write_fault": "QPL_STS_INTL_W_PAGE_FAULT",
    "error:13": "QPL_STS_INVALID_BLOCK_TYPE",
    "status:16": "QPL_STS_INTL_UNSUPPORTED_OPCODE",
    "status:17": "QPL_STS_INTL_INVALID_OP_FLAG",
    "status:19": "QPL_STS_TRANSFER_SIZE_INVALID",
    "status:32": "QPL_STS_INTL_INVALID_UR_CA_RESPONSE",
}
"""


def test_a_block_that_fails_on_hardware_is_done_in_software_and_counted() -> None:
    run(
        FAULTS
        + """
set_path("auto")
for (i, work), fault, nth in itertools.product(enumerate(("compress", "decompress")), FAULTS, (1, 32, 64)):
    numcodecs_qpl.reset_stats()
    # Page faults are tried again, by libqpl and by us: with one engine, the same descriptor each time.
    times = 64 if nth == 64 else 1
    device.fault(f"{work}:{nth}:{times}:{fault}")
    round_trip()
    device.clear_faults()
    failed = stats()["fallback"]
    hardware, software = done()["hardware"], done()["software"]
    what = work, fault, nth, failed
    assert hardware[i] + software[i] == 64 and hardware[1 - i] == 64 and software[1 - i] == 0, what
    if "_fault" in fault and times == 1:
        assert failed == {} and software[i] == 0, what
    else:
        assert failed == {FAULTS[fault]: software[i]} and software[i] >= 1, what
round_trip()
""",
        engines=1,
    )


def test_a_block_that_fails_is_an_error_that_names_it_where_hardware_is_demanded() -> None:
    run(
        FAULTS
        + """
set_path("hardware")
lengths, payload = numcodecs_qpl.compress_pages(PAGES)
for work, fault, nth in itertools.product(("compress", "decompress"), FAULTS, (1, 32, 64)):
    if (work, fault) == ("decompress", "error:13"):
        continue  # an analytics error of inflating is one of the data: the next test is about it
    device.fault(f"{work}:{nth}:200:{fault}")
    try:
        numcodecs_qpl.compress_pages(PAGES)
        numcodecs_qpl.decompress_pages(payload, lengths)
    except QplError as error:
        assert error.name == FAULTS[fault], (work, nth, error)
        assert "page " in str(error)
    else:
        raise AssertionError(f"no error: {work}, {fault}, {nth}")
    device.clear_faults()
    round_trip()
assert done()["software"] == (0, 0) and stats()["fallback"] == {}
"""
    )


def test_a_page_that_a_device_falsely_calls_damaged_is_read_in_software_also_where_hardware_is_demanded() -> None:
    run("""
set_path("hardware")
lengths, payload = numcodecs_qpl.compress_pages(PAGES)
for nth in (1, 32, 64):
    numcodecs_qpl.reset_stats()
    device.fault("decompress:%d:1:error:13" % nth)
    assert numcodecs_qpl.decompress_pages(payload, lengths) == PAGES
    device.clear_faults()
    assert done() == {"hardware": (0, 63), "software": (0, 1)}
    assert stats()["fallback"] == {"QPL_STS_INVALID_BLOCK_TYPE": 1}
""")


def test_one_page_fault_costs_no_block_again_and_again() -> None:
    run(
        """
set_path("hardware")
for _ in range(20):
    device.fault("any:3:1:read_fault")
    device.fault("any:9:1:write_fault")
    round_trip()
    device.clear_faults()
assert stats()["fallback"] == {}
""",
        engines=1,
    )


def test_a_job_that_was_refused_between_its_two_descriptors_does_no_harm_to_the_next_block() -> None:
    """libqpl 1.9.0 would make that one with the codes of the other, and call it OK."""
    run("""
set_path("auto")
other = bytes(255 - byte for byte in WORDS)
for data, dynamic in ((other, True), (other, False), (WORDS[:4096], True)):
    numcodecs_qpl.reset_stats()
    device.fault("compress:1:1:busy:0")
    assert zlib.decompress(compress(WORDS, True), -15) == WORDS
    assert stats()["fallback"] == {BUSY: 1}
    device.clear_faults()
    device.set_busy(False)
    wait_until(lambda: device.waiting() == 0)
    for _ in range(3):
        assert zlib.decompress(compress(data, dynamic), -15) == data
    assert done() == {"hardware": (3, 0), "software": (1, 0)}
""")


def test_busy_queues_are_an_error_where_hardware_is_demanded_and_they_stay_so() -> None:
    run("""
set_path("hardware")
stream = compress(WORDS)
set_timeout(0.3)
device.set_busy(True)
assert status_of(compress, WORDS) == status_of(decompress, stream, len(WORDS)) == 5
device.set_busy(False)
wait_until(lambda: device.waiting() == 0)
numcodecs_qpl.reset_stats()
round_trip()
assert done() == {"hardware": (64, 64), "software": (0, 0)}
""")


# ---- A device that goes away ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("huffman", "nth"), [("fixed", 1), ("dynamic", 30), ("fixed", 64)])
def test_a_device_that_is_lost_in_mid_batch_loses_no_block(huffman: str, nth: int) -> None:
    run(
        f"""
set_path("auto")
set_timeout(0.5)
device.fault("compress:{nth}:1:lost")
round_trip(huffman="{huffman}")
seen = done()
assert seen["hardware"][0] + seen["software"][0] == 64 and seen["software"][1] == 64
assert seen["software"][0] > 0
assert stats()["fallback"] == {{TIMEOUT: seen["software"][0]}}
assert _core.path_in_force() == "software"
assert "stopped answering" in _core.hardware_advice(_core.hardware_init_status())
try:
    set_path("hardware")
except QplError as error:
    assert "stopped answering" in str(error)
else:
    raise AssertionError("hardware that was lost")
""",
        size=64,
        engines=2,
    )


def test_a_device_that_is_lost_is_an_error_where_hardware_is_demanded() -> None:
    run("""
set_path("hardware")
set_timeout(0.5)
device.fault("compress:30:1:lost")
assert status_of(numcodecs_qpl.compress_pages, PAGES) == 334
assert status_of(numcodecs_qpl.compress_pages, PAGES) == 503
set_path("software")
round_trip()
""")


def test_what_a_device_writes_too_late_harms_nobody() -> None:
    """The jobs take longer than anyone waits for them, and end after the caller's memory has other uses."""
    run(
        """
set_path("auto")
set_timeout(0.2)
pages = PAGES[: 16 * 4096]
lengths, payload = np.empty(16, np.uint32), np.zeros(16 * 4096, np.uint8)
size = _core.compress_pages_into(pages, lengths, payload)
assert stats()["fallback"] == {TIMEOUT: 16}
assert inflate_pages(lengths, payload[:size].tobytes()) == pages
before = payload.copy()
assert device.served(Opcode.COMPRESS) == 0
wait_until(lambda: device.served(Opcode.COMPRESS) == 16)
assert np.array_equal(payload, before)
round_trip(pages)
""",
        engines=8,
        job_us=2_000_000,
    )


def test_memory_that_a_device_writes_to_too_late_is_never_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is given back is gone, and a late write is the end
    run(
        """
set_path("auto")
set_timeout(0.2)
encoded = QPL(container="zlib", block_size=1 << 20).encode(DATA["words"])
assert zlib.decompress(encoded) == DATA["words"]
assert stats()["fallback"] == {TIMEOUT: 1}
assert device.served(Opcode.COMPRESS) == 0
wait_until(lambda: device.served(Opcode.COMPRESS) == 1)
""",
        job_us=2_000_000,
    )


def test_a_queue_that_takes_nothing_more_sends_everything_to_software() -> None:
    run("""
set_path("auto")
device.fault("compress:20:1:refused")
round_trip()
assert done()["hardware"][0] > 0
assert stats()["fallback"] == {BUSY: sum(done()["software"])}
""")


def test_a_queue_that_fails_every_job_sends_everything_to_software() -> None:
    run("""
set_path("auto")
round_trip()
numcodecs_qpl.reset_stats()
device.vanish(0, 0, Fate.FAILING)
round_trip()
assert done() == {"hardware": (0, 0), "software": (64, 64)}
assert stats()["fallback"] == {"QPL_STS_INTL_INVALID_UR_CA_RESPONSE": 128}
""")


# ---- Processes --------------------------------------------------------------------------------------------------


def test_a_forked_child_works_in_software_or_says_why_it_does_not_and_its_parent_goes_on() -> None:
    run("""
set_path("auto")
round_trip()
child = os.fork()
if child == 0:
    try:
        numcodecs_qpl.reset_stats()
        round_trip()
        assert done() == {"hardware": (0, 0), "software": (64, 64)}
        assert stats()["fallback"] == {}
        try:
            set_path("hardware")
        except QplError as error:
            assert "forked" in str(error) and "spawn" in str(error)
        else:
            raise AssertionError("the parent's hardware")
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
round_trip()
assert done() == {"hardware": (128, 128), "software": (0, 0)}
""")


def test_a_child_of_a_process_that_has_not_used_hardware_opens_the_devices_itself() -> None:
    run("""
child = os.fork()
if child == 0:
    try:
        set_path("hardware")
        round_trip()
        assert done()["hardware"] == (64, 64)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""")


def test_a_fork_while_threads_are_at_work_on_hardware_hangs_nobody() -> None:
    run(
        """
set_path("auto")
stop = threading.Event()
def work():
    while not stop.is_set():
        round_trip(PAGES[: 8 * 4096])
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        try:
            round_trip()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
""",
        size=8,
    )


# ---- What the user sees -----------------------------------------------------------------------------------------


def info(*arguments: str, **settings: int | str) -> subprocess.CompletedProcess[str]:
    environment = emulated_iaa.environment(**settings)
    return subprocess.run(
        ["numcodecs-qpl", "info", *arguments], capture_output=True, text=True, env=environment, timeout=60
    )


@pytest.mark.skipif(Path("/sys/bus/dsa").exists(), reason="this machine has the idxd driver, and may have an IAA")
def test_info_never_calls_the_emulated_iaa_an_iaa() -> None:
    done = info("--probe")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert "path in force emulated IAA (a device that Linux does not show)" in text
    assert text.count("32 of 32 blocks done on hardware, and correct") == 4
    facts = json.loads(info("--json").stdout)
    assert facts["path"]["in_force"] == "hardware"
    assert facts["summary"] == "Blocks run on an emulated IAA (a device that Linux does not show)."


def test_info_probe_runs_blocks_both_ways_and_tells_what_came() -> None:
    done = info("--probe", "--json", size=2)
    assert (done.returncode, done.stderr) == (0, "")
    trials = json.loads(done.stdout)["probe"]
    assert [trial["work"] for trial in trials] == [
        f"{work}, {huffman} tables" for huffman in ("fixed", "dynamic") for work in ("compress", "inflate")
    ]
    assert all(trial["passed"] and trial["on_hardware"] == trial["blocks"] == 32 for trial in trials)


def test_info_probe_fails_and_says_what_with_where_a_device_fails() -> None:
    done = info("--probe", fault="decompress:5:1:status:16")
    assert done.returncode == 1
    assert "inflate, fixed tables: the device failed on page 4 of 32" in done.stderr
    assert "QPL_STS_INTL_UNSUPPORTED_OPCODE" in done.stderr
    assert "compress, dynamic tables: 32 of 32 blocks done on hardware" in " ".join(done.stdout.split())


def test_info_probe_fails_where_there_is_no_device() -> None:
    done = info("--probe", devices=0)
    assert done.returncode == 1
    assert "the hardware path cannot be used" in done.stderr


def test_what_hardware_wrote_is_what_this_process_reads_on_the_software_path() -> None:
    numcodecs_qpl.set_path("auto")
    script = """
set_path("hardware")
print(compress(DATA["words"][:70_000], sys.argv[1] == "True").hex())
print(decompress(bytes.fromhex(sys.argv[2]), 70_000))
"""
    data = DATA["words"][:70_000]
    for dynamic in (False, True):
        stream, back = run(script, str(dynamic), compress(data, dynamic).hex()).splitlines()
        assert decompress(bytes.fromhex(stream), len(data)) == data
        assert back == repr(data)
        assert np.abs(len(stream) / 2 / len(compress(data, dynamic)) - 1) < 0.3
