"""Prometheus metrics of a service. This module needs prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from numcodecs_qpl import _core
from numcodecs_qpl.multifd.totals import DURATIONS, Durations, RouteTotals, Totals

RELAY = "numcodecs_qpl_relay"
BOUNDS = (*map(str, DURATIONS), "+Inf")


class ServiceCollector(Collector):
    """Metrics of a service, computed for each request.

    Parameters
    ----------
    totals : Totals
        Sums of the service.
    routes : mapping
        Labels that describe a route, by its name.
    """

    def __init__(self, totals: Totals, routes: Mapping[str, Mapping[str, str]]) -> None:
        self._totals = totals
        self._routes = routes

    def collect(self) -> Iterator[Metric]:
        """Take one snapshot, so that all values of a route belong to the same moment."""
        routes = self._totals.snapshot().routes
        yield self._info()
        yield _running(routes)
        yield _ended(routes)
        yield _durations(routes)
        for name, text, attribute in (
            ("received_bytes", "Bytes received from the sources, on all connections.", "bytes_in"),
            ("sent_bytes", "Bytes sent to the next hop, on all connections.", "bytes_out"),
            ("packets", "Packets of pages that were passed on.", "packets"),
            ("refused_connections", "Connections that were refused.", "refused"),
        ):
            counter = CounterMetricFamily(f"{RELAY}_{name}", text, labels=["route"])
            for route, totals in routes.items():
                counter.add_metric([route], getattr(totals, attribute))
            yield counter
        yield _pages(routes)
        yield from _blocks()

    def _info(self) -> Metric:
        info = InfoMetricFamily(f"{RELAY}_route", "Methods and addresses of a route.", labels=["route"])
        for route, labels in self._routes.items():
            info.add_metric([route], dict(labels))
        return info


def registry(totals: Totals, routes: Mapping[str, Mapping[str, str]]) -> CollectorRegistry:
    """Return a registry with the metrics of a service and those of this process (CPU, memory, open files)."""
    made = CollectorRegistry()
    made.register(ServiceCollector(totals, routes))
    ProcessCollector(registry=made)
    return made


def _running(routes: Mapping[str, RouteTotals]) -> Metric:
    gauge = GaugeMetricFamily(f"{RELAY}_migrations_running", "Running migrations.", labels=["route"])
    for route, totals in routes.items():
        gauge.add_metric([route], totals.running)
    return gauge


def _ended(routes: Mapping[str, RouteTotals]) -> Metric:
    counter = CounterMetricFamily(
        f"{RELAY}_migrations", "Migrations that have ended.", labels=["route", "outcome", "cause"]
    )
    for route, totals in routes.items():
        for (outcome, cause), count in totals.ended.items():
            counter.add_metric([route, outcome, cause], count)
    return counter


def _durations(routes: Mapping[str, RouteTotals]) -> Metric:
    histogram = HistogramMetricFamily(
        f"{RELAY}_migration_duration_seconds",
        "Time from the main connection to the end of a migration.",
        labels=["route", "outcome"],
    )
    for route, totals in routes.items():
        for outcome, durations in totals.durations.items():
            histogram.add_metric([route, outcome], _buckets(durations), durations.seconds)
    return histogram


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    return [(bound, float(count)) for bound, count in zip(BOUNDS, accumulate(durations.counts), strict=True)]


def _pages(routes: Mapping[str, RouteTotals]) -> Metric:
    counter = CounterMetricFamily(
        f"{RELAY}_pages", "Pages that were passed on: with their bytes, or as all zeros.", labels=["route", "kind"]
    )
    for route, totals in routes.items():
        counter.add_metric([route, "normal"], totals.normal_pages)
        counter.add_metric([route, "zero"], totals.zero_pages)
    return counter


def _blocks() -> Iterator[Metric]:
    """Yield the counts of this process, over all routes."""
    done = _core.stats()
    blocks = CounterMetricFamily(
        "numcodecs_qpl_blocks",
        "Blocks (pages of the method qpl) that were compressed or decompressed, by the path that did it.",
        labels=["path", "operation"],
    )
    for path, counts in (("hardware", done["hardware"]), ("software", done["software"])):
        blocks.add_metric([path, "compressed"], counts["compressed"])
        blocks.add_metric([path, "decompressed"], counts["decompressed"])
    yield blocks
    fallback = CounterMetricFamily(
        "numcodecs_qpl_fallback_blocks",
        "Blocks that software did instead of a device, by libqpl's name of the reason.",
        labels=["reason"],
    )
    for reason, count in done["fallback"].items():
        fallback.add_metric([reason], count)
    yield fallback
    yield CounterMetricFamily(
        "numcodecs_qpl_full_queues", "Times that all work queues were found full.", value=done["queues"]["full"]
    )
