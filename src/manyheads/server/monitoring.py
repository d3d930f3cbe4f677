"""The metrics for Prometheus at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from manyheads.version import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REPLACED, REFUSED, FAILED = "replaced", "refused", "failed"
"""The results of a reload: the new version is served; or the old one stays, because the new one is
not accepted, or because of an error."""


class Identity(NamedTuple):
    """What identifies the version of a model."""

    version: str
    embedding: str


class _Models(Collector):
    """The identity of each model's current version; a version that was replaced is gone."""

    def __init__(self) -> None:
        self.identities: dict[str, Callable[[], Identity]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the only metric."""
        labels = ["model", *Identity._fields]
        metric = GaugeMetricFamily("manyheads_model", "The served version (1).", labels=labels)
        for model, identity in self.identities.items():
            metric.add_metric([model, *identity()], 1)
        yield metric


class Monitoring:
    """The metrics of one application. Applications in the same process do not share them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        build = Gauge("manyheads_build", "The version.", ["version"], registry=self._registry)
        build.labels(__version__).set(1)
        ProcessCollector(registry=self._registry)
        self._models = _Models()
        self._registry.register(self._models)
        self._requests = Counter(
            "manyheads_requests", "Requests answered.", ["path", "method", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "manyheads_request_seconds", "Seconds from a request to its answer.", ["path"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._texts = Counter(
            "manyheads_texts", "Texts answered.", ["model"], registry=self._registry
        )
        self._reloads = Counter(
            "manyheads_reloads", "Reloads that ended.", ["model", "result"],
            registry=self._registry,
        )  # fmt: skip
        self._gauges = {
            name: Gauge(f"manyheads_{name}", text, ["model"], registry=self._registry)
            for name, text in (
                ("waiting_texts", "Queued texts."),
                ("computing_texts", "Texts that are being computed."),
                ("lost_lanes", "Lanes that hung or died and were replaced."),
                ("ready", "Whether the model is ready (0 or 1)."),
            )
        }

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = path, method, status
        if key not in self._known:
            # Kept, since looking them up by their labels takes longer than counting.
            found = self._requests.labels(path, method, str(status)), self._seconds.labels(path)
            self._known[key] = found
        count, duration = self._known[key]
        count.inc()
        duration.observe(seconds)

    def texts(self, model: str, count: int) -> None:
        """Count answered texts."""
        self._texts.labels(model).inc(count)

    def reload(self, model: str, result: str) -> None:
        """Count a reload."""
        self._reloads.labels(model, result).inc()

    def watch(
        self, model: str, identity: Callable[[], Identity], **values: Callable[[], float]
    ) -> None:
        """Register functions that return a model's identity and the values of its gauges."""
        self._models.identities[model] = identity
        for result in (REPLACED, REFUSED, FAILED):
            # From 0 on, so that the first one is an increase.
            self._reloads.labels(model, result)
        for name, value in values.items():
            self._gauges[name].labels(model).set_function(value)

    def page(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
