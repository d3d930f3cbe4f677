"""The server's log and its spans: what is in them, and what never is."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from manyheads.text import Batch
from serving import TEXT, Gate, becomes, logged, predict, served_model, serving


def test_texts_are_logged_only_if_asked() -> None:
    for log_texts in (False, True):
        with serving(served_model(), log_texts=log_texts) as client, logged("json") as lines:
            predict(client)
            client.post("/predict", json={"inputs": TEXT})
            client.post("/v1/embeddings", json={"input": ["", TEXT]})
            assert becomes(lambda lines=lines: lines.getvalue().count("\n") == 3)  # type: ignore[misc]
        records = [json.loads(line) for line in lines.getvalue().splitlines()]
        assert (TEXT in lines.getvalue()) is log_texts
        assert [record["status"] for record in records] == [200, 200, 422]
        assert records[0].keys() >= {"time", "id", "method", "path", "milliseconds", "model"}


class Faulty:
    """A backend with a bug, whose message names the text."""

    name = "faulty"

    def run(self, batch: Batch) -> Any:
        raise KeyError(f"unexpected {TEXT}")


def test_a_bug_is_a_500_whose_log_entry_has_the_place_but_no_text() -> None:
    with serving(served_model(), Gate()) as client, logged("json") as lines:
        predictor = client.app.state.service.registry.get().predictor  # type: ignore[attr-defined]
        predictor.backend = Faulty()
        response = client.post("/v1/predict", json={"texts": TEXT})
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "bug"
        assert becomes(lambda: lines.getvalue().count("\n") == 2)
    bug = json.loads(lines.getvalue().splitlines()[0])
    assert (bug["event"], bug["error"]) == ("bug", "KeyError")
    assert "test_log.py" in bug["frames"]
    assert response.headers["x-request-id"] == bug["id"]
    assert TEXT not in lines.getvalue()


def test_a_path_cannot_forge_a_line_of_the_log() -> None:
    with serving(served_model()) as client, logged("text") as lines:
        client.get("/%0a2026-01-01 info forged")
        assert becomes(lambda: "404" in lines.getvalue())
    (line,) = lines.getvalue().splitlines()
    assert r'path="/\n2026' in line


# --------------------------------------------------------------------------------------- tracing


def test_requests_and_batches_have_spans_that_are_linked() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(served_model(), tracer_provider=provider) as client:
        headers = {"traceparent": parent, "x-request-id": "mine"}
        client.post("/v1/predict", json={"texts": [TEXT, "Paris"]}, headers=headers)
        client.post("/v1/predict", json={"texts": ""})
        assert becomes(lambda: len(exporter.get_finished_spans()) == 3)
    batch, request, refused = exporter.get_finished_spans()
    assert (batch.name, request.name) == ("batch", "POST")
    assert request.parent is not None
    assert f"{request.context.trace_id:032x}" == parent.split("-")[1]
    assert [link.context.span_id for link in batch.links] == [request.context.span_id]
    assert dict(batch.attributes or {}) == {"manyheads.texts": 2}
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST", "http.route": "/v1/predict",
        "http.response.status_code": 200, "manyheads.id": "mine", "manyheads.model": "tiny",
        "manyheads.texts": 2,
    }  # fmt: skip
    assert (refused.attributes or {})["http.response.status_code"] == 422
