"""State of a service over HTTP: metrics and status."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import PATIENCE
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from relays import statistics
from scrape import connected, get

import numcodecs_qpl
from numcodecs_qpl import compress_pages
from numcodecs_qpl._core import path_in_force
from numcodecs_qpl.cli import monitor
from numcodecs_qpl.cli.monitor import Monitor
from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.errors import UnreachableError
from numcodecs_qpl.multifd.totals import COMPLETE, FAILED, Totals
from numcodecs_qpl.multifd.transport.address import Address

ROUTES = {"out": {"from": "none", "to": "qpl"}, "in": {"from": "qpl", "to": "none"}}
PREFIX = "numcodecs_qpl_relay_"


@pytest.fixture
def totals() -> Totals:
    """Sums of a service that has had four migrations and has one."""
    totals = Totals(ROUTES)
    totals.end(totals.begin("out", lambda: statistics(2**40 + 1, 3.5)), COMPLETE)
    totals.end(totals.begin("out", lambda: statistics(2, 0.5)), COMPLETE)
    totals.end(totals.begin("out", lambda: statistics(4, 4000.0)), FAILED, UnreachableError("cannot connect to x"))
    totals.begin("out", lambda: statistics(8))
    totals.end(totals.begin("in", lambda: statistics(16)), COMPLETE)
    totals.refuse("in")
    return totals


@pytest.fixture(params=["unix", "tcp"])
def served(request: pytest.FixtureRequest, folder: Path, totals: Totals) -> Iterator[Address]:
    """Address of the server."""
    where = Address(request.param, path=f"{folder}/s", host="127.0.0.1")
    with closing(Monitor(where, totals, ROUTES)) as serving:
        serving.start()
        yield serving.address


def samples(address: Address) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values of the metrics page by name and labels."""
    code, kind, text = get(address, "/metrics")
    assert code == 200
    assert kind is not None
    assert kind.startswith("text/plain; version=")
    found: list[Sample] = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(values) == len(found)
    return values


def value(values: Mapping[Any, float], name: str, **labels: str) -> float:
    return values[name, frozenset(labels.items())]


def test_bytes_packets_and_pages_are_sums_over_ended_and_running_migrations(served: Address) -> None:
    values = samples(served)
    passed = 2**40 + 1 + 2 + 4 + 8
    for name, factor in (("received_bytes", 1), ("sent_bytes", 2), ("packets", 3)):
        assert value(values, f"{PREFIX}{name}_total", route="out") == factor * passed
        assert value(values, f"{PREFIX}{name}_total", route="in") == factor * 16
    for kind, factor in (("normal", 4), ("zero", 5)):
        assert value(values, f"{PREFIX}pages_total", route="out", kind=kind) == factor * passed
        assert value(values, f"{PREFIX}pages_total", route="in", kind=kind) == factor * 16


def test_migrations_are_counted_by_outcome_and_cause(served: Address) -> None:
    values = samples(served)
    migrations = {labels: count for (name, labels), count in values.items() if name == f"{PREFIX}migrations_total"}
    assert {tuple(sorted(labels)): count for labels, count in migrations.items()} == {
        (("cause", ""), ("outcome", "complete"), ("route", "out")): 2,
        (("cause", "unreachable"), ("outcome", "failed"), ("route", "out")): 1,
        (("cause", ""), ("outcome", "complete"), ("route", "in")): 1,
    }
    assert value(values, f"{PREFIX}migrations_running", route="out") == 1
    assert value(values, f"{PREFIX}migrations_running", route="in") == 0
    assert value(values, f"{PREFIX}refused_connections_total", route="in") == 1
    assert value(values, f"{PREFIX}refused_connections_total", route="out") == 0


def test_durations_are_a_histogram(served: Address) -> None:
    values = samples(served)
    name = f"{PREFIX}migration_duration_seconds"

    def bucket(bound: str, outcome: str) -> float:
        return value(values, f"{name}_bucket", route="out", outcome=outcome, le=bound)

    assert [bucket(bound, "complete") for bound in ("1.0", "2.0", "5.0", "+Inf")] == [1, 1, 2, 2]
    assert [bucket(bound, "failed") for bound in ("3600.0", "+Inf")] == [0, 1]
    assert value(values, f"{name}_sum", route="out", outcome="complete") == 4.0
    assert value(values, f"{name}_count", route="out", outcome="complete") == 2


def test_routes_are_described_and_the_process_is_measured(served: Address) -> None:
    values = samples(served)
    assert value(values, f"{PREFIX}route_info", route="out", **{"from": "none", "to": "qpl"}) == 1
    assert value(values, "process_resident_memory_bytes") > 1 << 20


def test_blocks_are_those_of_the_process(served: Address) -> None:
    numcodecs_qpl.reset_stats()
    compress_pages(np.zeros((3, 4096), np.uint8))
    values = samples(served)
    done = numcodecs_qpl.stats()
    for path in ("hardware", "software"):
        for operation in ("compressed", "decompressed"):
            found = value(values, "numcodecs_qpl_blocks_total", path=path, operation=operation)
            assert found == done[path][operation]
    assert sum(done[path]["compressed"] for path in ("hardware", "software")) == 3
    assert value(values, "numcodecs_qpl_full_queues_total") == done["queues"]["full"]


def test_fallbacks_are_counted_by_reason(served: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    done = {**numcodecs_qpl.stats(), "fallback": {"QPL_STS_QUEUES_ARE_BUSY_ERR": 5}}
    monkeypatch.setattr("numcodecs_qpl._core.stats", lambda: done)
    assert value(samples(served), "numcodecs_qpl_fallback_blocks_total", reason="QPL_STS_QUEUES_ARE_BUSY_ERR") == 5


def test_the_status_is_json(served: Address) -> None:
    code, kind, text = get(served, "/status")
    assert (code, kind) == (200, "application/json")
    assert text.endswith("}\n")  # for a shell's prompt after curl
    found = json.loads(text)
    out = found["routes"]["out"]
    passed = 2**40 + 1 + 2 + 4 + 8
    at = out["last_failure"].pop("at")
    assert at.endswith("+00:00")
    assert out == {
        "from": "none",
        "to": "qpl",
        "running": 1,
        "ended": [
            {"outcome": "complete", "cause": None, "count": 2},
            {"outcome": "failed", "cause": "unreachable", "count": 1},
        ],
        "refused_connections": 0,
        "bytes_in": passed,
        "bytes_out": 2 * passed,
        "ratio": 0.5,
        "packets": 3 * passed,
        "pages": {"normal": 4 * passed, "zero": 5 * passed},
        "last_failure": {
            "migration": 3,
            "outcome": "failed",
            "cause": "unreachable",
            "error": "cannot connect to x",
        },
    }
    assert found["routes"]["in"]["last_failure"] is None
    assert found["migrations"] == [{"number": 4, "route": "out", **statistics(8)}]
    assert found["path"] == path_in_force()
    assert found["draining"] is False
    assert set(found["blocks"]) == set(numcodecs_qpl.stats())


def test_a_ratio_without_bytes_is_null() -> None:
    assert monitor.status(Totals(["out"]), {"out": {}})["routes"]["out"]["ratio"] is None


@pytest.mark.parametrize("page", ["/", "/metrics/", "/favicon.ico"])
def test_other_pages_are_not_found(served: Address, page: str) -> None:
    assert get(served, page) == (404, "text/plain", "There are /metrics and /status.\n")


def test_a_client_that_says_nothing_keeps_others_waiting_for_a_moment_only(
    served: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(served):
        assert get(served, "/status")[0] == 200
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "request_",
    [b"", b"\0\xff\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"GET /%ff HTTP/1.0\r\n\r\n", b"x" * 70000],
)
def test_junk_keeps_nobody_from_the_next_answer(
    served: Address, request_: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(served) as sock:
        sock.sendall(request_)
    assert get(served, "/status")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_a_request_that_fails_keeps_nobody_from_the_next_answer(
    served: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(monitor._Handler, "handle", lambda handler: 1 / 0)
        with connected(served) as sock:
            assert sock.recv(1) == b""
    assert get(served, "/status")[0] == 200


def test_closing_does_not_wait_for_a_client_that_does_not_end(
    served: Address, totals: Totals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(monitor._Handler, "timeout", PATIENCE)
    serving = Monitor(Address("tcp", host="127.0.0.1"), totals, ROUTES)
    serving.start()
    with connected(serving.address) as sock:
        sock.sendall(b"GET /status")
        serving.close()
        with pytest.raises(ConnectionRefusedError):
            connected(serving.address)


def test_closing_frees_the_address_and_leaves_no_thread(served: Address, totals: Totals) -> None:
    where = Address("tcp", host="127.0.0.1")
    before = threading.active_count()
    first = Monitor(where, totals, ROUTES)
    first.start()
    assert get(first.address, "/status")[0] == 200
    first.close()
    first.close()
    assert threading.active_count() == before
    second = Monitor(first.address, totals, ROUTES)  # never started
    second.close()
    with pytest.raises(ConnectionRefusedError):
        get(first.address, "/status")


def test_a_socket_that_was_passed_is_served(totals: Totals) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    with closing(Monitor(sock, totals, ROUTES)) as serving:
        serving.start()
        assert get(serving.address, "/status")[0] == 200


def test_an_address_that_cannot_be_served_is_an_error(totals: Totals) -> None:
    with pytest.raises(
        MultiFDError, match=r"^metrics cannot be served at tls:h:1: expected unix:PATH or tcp:HOST:PORT$"
    ):
        Monitor(Address("tls", host="h", port=1), totals, ROUTES)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(MultiFDError, match=r"^cannot listen on tcp:127\.0\.0\.1:\d+: Address already in use"),
    ):
        Monitor(Address("tcp", host="127.0.0.1", port=taken.getsockname()[1]), totals, ROUTES)


def test_without_prometheus_client_the_error_says_what_to_install(
    totals: Totals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MultiFDError, match=r"^metrics need prometheus-client: pip install prometheus-client$"):
        Monitor(Address("tcp", host="127.0.0.1"), totals, ROUTES)
