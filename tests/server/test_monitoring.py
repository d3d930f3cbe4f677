"""What monitors and load balancers see: metrics and readiness."""

from __future__ import annotations

import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from documents import scale_weights
from manyheads.server import running
from serving import TEXT, Gate, becomes, predict, served_model, serving


def test_metrics_show_the_served_version_and_the_results_of_reloads(model: Path) -> None:
    with serving(model) as client:
        service = client.app.state.service  # type: ignore[attr-defined]

        def shown() -> tuple[list[dict[str, str]], dict[str, float]]:
            metrics = {one.name: one for one in metrics_of(client)}
            reloads = metrics["manyheads_reloads"].samples
            return (
                [sample.labels for sample in metrics["manyheads_model"].samples],
                {s.labels["result"]: s.value for s in reloads if s.name.endswith("_total")},
            )

        def served() -> list[dict[str, str]]:
            (info,) = client.get("/v1/models").json()["data"]
            return [{"model": "tiny", **{key: info[key] for key in ("version", "embedding")}}]

        first = served()
        assert shown() == (first, {"replaced": 0, "refused": 0, "failed": 0})
        scale_weights(model, "model.safetensors", "word_embeddings")
        running.reload_models(service)
        assert shown() == (first, {"replaced": 0, "refused": 1, "failed": 0})
        client.post("/v1/models/tiny:reload?allow_new_embedding=true")
        assert served() != first
        assert shown() == (served(), {"replaced": 1, "refused": 1, "failed": 0})
        (model / "heads.safetensors").write_bytes(b"damaged")
        running.reload_models(service)
        assert shown() == (served(), {"replaced": 1, "refused": 1, "failed": 1})


@pytest.mark.skipif(sys.platform != "linux", reason="the process's metrics need Linux")
def test_the_documentation_lists_all_metrics_with_their_labels() -> None:
    page = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    table = page.partition("### Metrics")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, flags=re.MULTILINE)
    with serving(served_model()) as client:
        predict(client)
        found = {
            one.name + "_total" * (one.type == "counter"): set(one.samples[0].labels) - {"le"}
            for one in metrics_of(client)
            if not one.name.endswith("_created")
        }
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in rows} == found


def metrics_of(client: httpx.Client) -> list[Metric]:
    return list(text_string_to_metric_families(client.get("/metrics").text))


class Clock:
    """The scheduler's time, which the test can move ahead; threads still sleep by the real one."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def test_a_lane_that_hangs_makes_the_server_not_ready_until_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, gate = Clock(), Gate()
    monkeypatch.setattr("manyheads.server.scheduling.time", clock)
    with serving(served_model(), gate, timeout=3600) as client, ThreadPoolExecutor(1) as pool:

        def state() -> tuple[int, str | None, bool]:
            ready = client.get("/readyz")
            lost = 'manyheads_lost_lanes{model="tiny"} 1.0' in client.get("/metrics").text
            return ready.status_code, ready.json()["reason"], lost

        assert state() == (200, None, False)
        gate.open.clear()
        hanging = pool.submit(client.post, "/v1/predict", json={"texts": TEXT})
        assert gate.entered.acquire(timeout=60)
        clock.ahead += 60
        assert state() == (503, "tiny: 1 of 1 lanes do not answer", False)
        assert client.get("/livez").status_code == 200
        clock.ahead += 3600
        assert hanging.result(60).status_code == 503
        # The new lane comes to the gate with its first text.
        assert gate.entered.acquire(timeout=60)
        assert state() == (503, "tiny: 1 of 1 lanes are starting", True)
        gate.open.set()
        assert becomes(lambda: state() == (200, None, True))
        # The deadline of a request is of the real time.
        clock.ahead = 0.0
        predict(client)
