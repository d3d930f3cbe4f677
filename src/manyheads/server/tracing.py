"""OpenTelemetry spans, if it is installed and set up: one per request and one per batch.

A batch has texts of several requests, so its span has links to theirs instead of a parent. The
exporter is configured as for any other program, for instance with `opentelemetry-instrument`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Span(Protocol):
    """The part of a span that is used here."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Record a value."""

    def get_span_context(self) -> Any:
        """Return the context of the span, for links."""


class Tracing:
    """Starts spans; does nothing if OpenTelemetry is not installed, or not set up.

    Args:
        provider: an OpenTelemetry tracer provider. Default: the one of the process, if it has one
            by now.
    """

    def __init__(self, provider: Any = None) -> None:
        self._tracer: Any = None
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            return
        if provider is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return
        self._trace, self._propagate = trace, propagate
        self._tracer = trace.get_tracer("manyheads", tracer_provider=provider)

    @contextmanager
    def request(self, method: str, headers: Mapping[bytes, bytes]) -> Iterator[Span | None]:
        """Start the span of a request, as a child of the span in the client's `traceparent`."""
        if self._tracer is None:
            yield None
            return
        carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in headers.items()}
        with self._tracer.start_as_current_span(
            method,
            context=self._propagate.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": method},
        ) as span:
            yield span

    def context(self) -> Any:
        """Return the context of the current request's span, or None if it is not recorded."""
        if self._tracer is None:
            return None
        span = self._trace.get_current_span()
        return span.get_span_context() if span.is_recording() else None

    @contextmanager
    def batch(self, texts: int, contexts: Iterable[Any]) -> Iterator[None]:
        """Start the span of a batch, with links to its requests."""
        links = {one.span_id: one for one in contexts if one is not None}
        if self._tracer is None or not links:
            yield
            return
        with self._tracer.start_as_current_span(
            "batch",
            links=[self._trace.Link(one) for one in links.values()],
            attributes={"manyheads.texts": texts},
        ):
            yield
