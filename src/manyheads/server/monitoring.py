"""The metrics for Prometheus at /metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from manyheads.version import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Monitoring:
    """The metrics of one application. Applications in the same process do not share them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        build = Gauge("manyheads_build", "The version.", ["version"], registry=self._registry)
        build.labels(__version__).set(1)
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

    def watch(self, model: str, **values: Callable[[], float]) -> None:
        """Register functions that return the values of a model's gauges."""
        for name, value in values.items():
            self._gauges[name].labels(model).set_function(value)

    def page(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
