"""Running a server: reloads, keys, logs, readiness, signals, and what it needs installed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import load_file, save

from documents import replace_file
from manyheads.cli import main
from manyheads.errors import ModelError, RequestError
from manyheads.exporting import export_model
from manyheads.inference import LoadedModel, Predictor, Runtime, load_model
from manyheads.server import ServerSettings, create_app, model_names, registry, running, serve
from manyheads.server.connections import make_server
from manyheads.server.protection import LogFormatter
from manyheads.server.running import bind_socket
from manyheads.server.settings import make_settings
from manyheads.text import Batch
from serving import Gate, answer_of, becomes, connection, served_model, serving

TEXT = "the weather in London"


def predict(client: httpx.Client, text: str = TEXT) -> Any:
    response = client.post("/v1/predict", json={"texts": text})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the served model, which the test may change."""
    return Path(shutil.copytree(served_model(), tmp_path / "model"))


def change(model: Path, name: str, part: str) -> None:
    """Scale the weights of a file whose names contain a part."""
    weights = load_file(model / name)
    changed = {k: np.float32(1.5) * v if part in k else v for k, v in weights.items()}
    replace_file(model, name, save(changed))


@contextlib.contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    lines, logger = io.StringIO(), logging.getLogger("manyheads.server")
    handler = logging.StreamHandler(lines)
    handler.setFormatter(LogFormatter(form))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


# ------------------------------------------------------------------------------------- reloading


def test_a_new_version_replaces_the_old_one_without_losing_a_request(model: Path) -> None:
    with serving(model) as client, ThreadPoolExecutor(3) as pool:
        old = predict(client)["version"]
        stop = threading.Event()

        def ask() -> set[str]:
            seen = set()
            while not stop.is_set():
                seen.add(predict(client)["version"])
            return seen

        asking = [pool.submit(ask) for _ in range(2)]
        change(model, "heads.safetensors", "weight")
        response = client.post("/v1/models/tiny:reload")
        assert response.status_code == 200, response.text
        new = response.json()["version"]
        assert new != old
        assert predict(client)["version"] == new
        stop.set()
        assert set().union(*(seen.result(60) for seen in asking)) <= {old, new}
        assert client.get("/readyz").status_code == 200


def test_a_version_is_that_of_the_files_that_were_read(model: Path) -> None:
    def load(path: Path, threads: int | None) -> LoadedModel:
        loaded = load_model(path, Runtime(threads=1))
        change(model, "heads.safetensors", "weight")
        return loaded

    with serving(served_model()) as client:
        version = predict(client)["version"]
    models = registry.Registry({"tiny": model}, make_settings(), load)
    assert models.get().version == version
    assert models.close(60)


def test_the_old_version_is_freed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = threading.Event()
    monkeypatch.setattr(registry, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(registry, "return_freed_memory", trimmed.set)
    with serving(model) as client:
        predict(client)
        models = client.app.state.service.registry  # type: ignore[attr-defined]
        old = weakref.ref(models.get().predictor), weakref.ref(models.get().scheduler)
        assert client.post("/v1/models/tiny:reload").status_code == 200
        assert becomes(lambda: [part() for part in old] == [None, None])
        assert trimmed.wait(60)


def test_requests_that_the_old_version_accepted_are_answered_by_it(model: Path) -> None:
    gate = Gate()
    with serving(model, gate) as client, ThreadPoolExecutor(1) as pool:
        old = predict(client)["version"]
        gate.open.clear()
        waiting = pool.submit(predict, client)
        assert gate.entered.acquire(timeout=60)
        change(model, "heads.safetensors", "weight")
        reloading = threading.Thread(target=client.post, args=("/v1/models/tiny:reload",))
        reloading.start()
        gate.open.set()
        reloading.join(60)
        assert waiting.result(60)["version"] == old
        assert predict(client)["version"] != old


def test_a_version_that_embeds_differently_is_refused_unless_allowed(model: Path) -> None:
    with serving(model) as client:
        old = client.get("/v1/models").json()["data"][0]
        change(model, "model.safetensors", "word_embeddings")
        refused = client.post("/v1/models/tiny:reload")
        assert refused.status_code == 409
        error = refused.json()["error"]
        assert error["code"] == "reload_refused"
        assert error["message"] == (
            f"{model}: the embedding of the new version of model 'tiny' differs, so its vectors "
            "cannot be compared with those that clients have stored. Once the old vectors are no "
            "longer used, call POST /v1/models/tiny:reload?allow_new_embedding=true, or restart "
            "the server."
        )
        assert client.get("/v1/models").json()["data"][0] == old
        allowed = client.post("/v1/models/tiny:reload?allow_new_embedding=true")
        assert allowed.status_code == 200
        assert allowed.json()["embedding"] != old["embedding"]


def test_a_damaged_version_is_refused_and_the_old_one_stays(model: Path) -> None:
    with serving(model) as client:
        (model / "heads.safetensors").write_bytes(b"damaged")
        refused = client.post("/v1/models/tiny:reload")
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "model_unusable"
        predict(client)


def test_a_reload_is_refused_while_one_of_the_same_model_is_running(model: Path) -> None:
    gate = Gate()
    with ThreadPoolExecutor(3) as pool, serving({"one": model, "two": model}, gate) as client:
        models = client.app.state.service.registry  # type: ignore[attr-defined]
        gate.open.clear()
        first = pool.submit(client.post, "/v1/models/one:reload")
        assert gate.entered.acquire(timeout=60)
        refused = client.post("/v1/models/one:reload", timeout=5)
        assert refused.status_code == 409
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("reload_running", "name")
        assert error["message"] == (
            "a reload of model 'one' is running already. Wait until it is done; reload again if "
            "the files changed after it began."
        )
        other = pool.submit(client.post, "/v1/models/two:reload")
        # As SIGHUP does, after which no one would ask again.
        later = pool.submit(models.reload, "one")
        assert becomes(later.running)
        gate.open.set()
        assert first.result(60).status_code == other.result(60).status_code == 200
        assert later.result(60) is models.get("one")
        assert client.post("/v1/models/one:reload").status_code == 200


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
        change(model, "model.safetensors", "word_embeddings")
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


class Broken:
    """A backend that loads, but computes nothing."""

    name = "broken"

    def run(self, batch: Batch) -> Any:
        raise ModelError("the graph has no output 'embedding'")


def test_a_start_that_fails_at_a_later_model_leaves_no_thread(model: Path, tmp_path: Path) -> None:
    before = threading.enumerate()
    with pytest.raises(ModelError, match="there is no such model"):
        registry.Registry({"tiny": model, "gone": tmp_path / "gone"}, make_settings())
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert becomes(lambda: not any(thread.is_alive() for thread in left), 60)


def test_a_version_that_computes_nothing_leaves_no_thread_and_is_freed(model: Path) -> None:
    loaded: list[weakref.ref[Predictor]] = []

    def load(path: Path, threads: int | None) -> LoadedModel:
        model = load_model(path, Runtime(threads=1))
        if loaded:
            model.predictor.backend = Broken()
        loaded.append(weakref.ref(model.predictor))
        return model

    models = registry.Registry({"tiny": model}, make_settings(), load)
    assert models.get().scheduler.wait_ready(60)
    before = threading.enumerate()
    with logged("text") as lines, pytest.raises(ModelError, match="no output 'embedding'"):
        models.reload("tiny")
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []
    assert becomes(lambda: gc.collect() >= 0 and loaded[1]() is None, 5)
    assert lines.getvalue() == ""
    assert models.get().predictor is loaded[0]()
    assert models.close(60)


# ------------------------------------------------------------------------------ keys and the log


def test_requests_need_a_key_where_keys_are_set() -> None:
    with serving(served_model(), api_keys=("first-key", "second-key")) as client:
        with logged("json") as lines:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "first-key"}):
                refused = client.get("/v1/models", headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            for key in ("first-key", "second-key"):
                headers = {"authorization": f"Bearer {key}"}
                assert client.get("/v1/models", headers=headers).status_code == 200
            assert client.get("/metrics").status_code == 401
            assert client.post("/v1/models/tiny:reload").status_code == 401
            assert client.post("/v1/predict", content="x").status_code == 401
            assert client.get("/v1/unknown").status_code == 401
            page = client.get("/metrics", headers=headers).text
            for method, path, number in (
                ("GET", "/v1/models", 3), ("GET", "/metrics", 1), ("GET", "other", 1),
                ("POST", "/v1/models/{name}:reload", 1), ("POST", "/v1/predict", 1),
            ):  # fmt: skip
                labels = f'{{method="{method}",path="{path}",status="401"}}'
                assert f"manyheads_requests_total{labels} {number}.0" in page
            for path in ("/", "/livez", "/readyz"):
                assert client.get(path).status_code == 200
        assert "-key" not in lines.getvalue()
        assert "wrong" not in lines.getvalue()


def test_the_schema_says_which_requests_need_a_key() -> None:
    for keys in ((), ("key",)):
        with serving(served_model(), api_keys=keys) as client:
            schema = client.get("/openapi.json").json()
        needed = {path for path, has in schema["paths"].items() if "security" in str(has)}
        assert needed == (schema["paths"].keys() - {"/livez", "/readyz"} if keys else set())
        assert ("securitySchemes" in schema["components"]) is bool(keys)


def statuses(client: httpx.Client, *keys: str) -> list[int]:
    """The statuses of requests with these keys."""
    headers = [{"authorization": f"Bearer {key}"} for key in keys]
    return [client.get("/v1/models", headers=one).status_code for one in headers]


def test_keys_are_read_again_on_sighup_and_stay_where_the_file_is_faulty(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes("\ufefffirst\n\n second \n".encode())
    with serving(served_model(), api_keys=file) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        assert statuses(client, "first", "second", "third") == [200, 200, 401]
        file.write_text("second\nthird\n", encoding="utf-8")
        with logged("json") as lines:
            running.read_keys(service)
        entry = json.loads(lines.getvalue().splitlines()[0])
        assert (entry["event"], entry["file"], entry["keys"]) == ("keys read", str(file), 2)
        assert statuses(client, "first", "second", "third") == [401, 200, 200]
        for content, reason in (
            (b"first\nk\xe4y\n", f"{file} is not UTF-8: byte 0xe4 at offset 7"),
            (b" \n", f"{file} has no key; expected one key per line"),
            (None, f"{file}: cannot be read"),
        ):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            with logged("json") as lines:
                running.read_keys(service)
            entry = json.loads(lines.getvalue().splitlines()[0])
            assert (entry["level"], entry["event"]) == ("error", "keys not read")
            assert entry["error"].startswith(reason)
            assert statuses(client, "first", "second", "third") == [401, 200, 200]


def test_a_server_whose_file_of_keys_is_faulty_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(b"first\nk\xe4y\n")
    assert main(["serve", "model", "--port", "0", "--api-keys", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"error: {file} is not UTF-8: byte 0xe4 at offset 7; expected one key per line, as text "
        "in UTF-8. Save the file as UTF-8.\n"
    )


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
    assert "test_operations.py" in bug["frames"]
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


# ------------------------------------------------------------------------------------- readiness


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


# ---------------------------------------------------------------------------- the process itself


# Importing one of these fails as in an environment without it.
BLOCKER = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in set(ABSENT):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from manyheads.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without(*packages: str) -> str:
    return BLOCKER.replace("ABSENT", repr(packages))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no export on Python 3.10")
def test_the_command_serves_an_export_without_torch_reloads_and_finishes_on_sigterm(
    model: Path,
) -> None:
    data = served_model().parent.parent / "valid.jsonl"
    export_model(model, formats=["float32"], data=data, limit=100, threads=1)
    script = without("torch", "transformers", "sentence_transformers", "onnx", "sklearn")
    arguments = ["serve", f"exported={model}", "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NO_COLOR": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("Serving exported at http://127.0.0.1:"), process.stderr.read()
        url = line.split(" at ")[1].split(" ")[0]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            assert client.get("/v1/models").json()["data"][0]["backend"].startswith("onnx")
            predict(client)
            process.send_signal(signal.SIGHUP)
            line = process.stderr.readline()
            while '"reloaded"' not in line:
                assert line, "the server ended"
                line = process.stderr.readline()
            texts = [f"{TEXT} {i}" for i in range(500)]
            with ThreadPoolExecutor(1) as pool:
                last = pool.submit(client.post, "/v1/predict", json={"texts": texts})
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(httpx.TransportError):
                    # Accepted before the signal: answered. Otherwise the connection is refused.
                    assert len(last.result(60).json()["predictions"]) == 500
        assert process.wait(60) == 128 + signal.SIGTERM
        assert "Traceback" not in process.stderr.read()


# Its models call `computes` with the thread's name before each batch, and `loaded` after a load.
CHANGED = """
import atexit, os, sys, threading
from manyheads.cli import main
from manyheads.server import registry

def computes(thread):
    pass

def loaded(model, loads=[]):
    pass

PATCH

class Changed:
    name = "changed"
    def __init__(self, inner):
        self.inner = inner
    def run(self, batch):
        computes(threading.current_thread().name)
        return self.inner.run(batch)

def load(path, runtime, load=registry.load_model):
    model = load(path, runtime)
    model.predictor.backend = Changed(model.predictor.backend)
    loaded(model)
    return model

registry.load_model = load
atexit.register(print, "ended in order")
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def server_process(patch: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server of its own with a changed function, and kill it in the end if it still runs."""
    arguments = ["serve", str(served_model()), "--port", "0", "--threads", "1", "--timeout", "3600"]
    arguments += options
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(
            [sys.executable, "-c", CHANGED.replace("PATCH", patch), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "NO_COLOR": "1"},
        ))  # fmt: skip
        stack.callback(process.kill)  # before it is waited for
        yield process


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next lines of a process's standard output, sorted."""
    assert process.stdout is not None
    return sorted(process.stdout.readline() for _ in range(count))


def alive_at(serving_line: str) -> str:
    """Ask a server whether it lives; from then on its signals are its own. Returns its address."""
    assert serving_line.startswith("Serving"), serving_line
    url = serving_line.split(" at ")[1].split(" ")[0]
    assert httpx.get(f"{url}/livez", timeout=60, trust_env=False).status_code == 200
    return url


HANGS = """
def computes(thread):
    if thread.startswith("manyheads-lane"):
        os.write(1, b"hangs\\n")
        threading.Event().wait()
"""

RELOADS = """
def loaded(model, loads=[]):
    loads.append(model)
    if len(loads) == 2:
        os.write(1, b"reloads\\n")
        while True:
            model.predictor.predict(["Is everything ready?"])
"""


@pytest.mark.parametrize("patch", [HANGS, RELOADS], ids=["a lane", "a reload"])
def test_a_stopped_server_ends_at_once_where_a_thread_still_computes(patch: str) -> None:
    # While a library computes, an end in order would abort the process.
    with server_process(patch) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if patch is HANGS:
            serving_line, state = lines_of(process, 2)
            alive_at(serving_line)
        else:
            alive_at(*lines_of(process, 1))
            process.send_signal(signal.SIGHUP)
            (state,) = lines_of(process, 1)
        assert state in {"hangs\n", "reloads\n"}, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.stderr.read().endswith("}\nstopped: by SIGTERM\n")
        assert process.wait(60) == 128 + signal.SIGTERM


def test_withdrawn_keys_are_refused_while_a_reload_is_running(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("kept\nwithdrawn\n", encoding="utf-8")
    with server_process(RELOADS, "--api-keys", str(file)) as process:
        url = alive_at(*lines_of(process, 1))
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            assert statuses(client, "kept", "withdrawn") == [200, 200]
            process.send_signal(signal.SIGHUP)
            assert lines_of(process, 1) == ["reloads\n"]
            file.write_text("kept\n", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            assert becomes(lambda: statuses(client, "kept", "withdrawn") == [200, 401], 10)


LISTENS_TO_NO_PORT = """
import signal, socket

reloads = threading.Event()

def loaded(model, loads=[]):
    loads.append(model)
    if len(loads) == 1:
        os.kill(os.getpid(), signal.SIGHUP)
        return
    reloads.set()
    while True:
        model.predictor.predict(["Is everything ready?"])

class Taken(socket.socket):
    def listen(self, backlog):
        assert reloads.wait(60)
        raise OSError(98, "Address already in use")

socket.socket = Taken
"""


def test_a_server_that_fails_ends_at_once_where_a_reload_still_computes() -> None:
    with server_process(LISTENS_TO_NO_PORT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        assert "(Address already in use)" in process.stderr.read()
        assert process.wait(60) == 2


def test_a_server_that_fails_does_not_end_a_process_that_serves_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("manyheads.cli.serve.os._exit", ended.append)
    with serving(served_model()) as client:
        assert main(["serve", str(tmp_path / "none")]) == 2
        assert predict(client)
    assert not ended


EARLY = """
import signal

def loaded(model, loads=[]):
    loads.append(model)
    if len(loads) == 1:
        os.kill(os.getpid(), signal.SIGHUP)
    else:
        os.write(1, b"reloads\\n")
"""


def test_sighup_while_a_server_loads_its_models_reloads_them_afterwards() -> None:
    with server_process(EARLY) as process:
        assert process.stderr is not None
        state, serving_line = sorted(lines_of(process, 2), reverse=True)
        assert state == "reloads\n", process.stderr.read()
        alive_at(serving_line)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_sighup_before_a_server_loads_its_models_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "manyheads.server.serve", lambda *a, **k: os.kill(os.getpid(), signal.SIGHUP)
    )
    assert main(["serve", "model"]) == 0


LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_signal_before_the_loop_runs_causes_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> asyncio.AbstractEventLoop:
        raise KeyboardInterrupt

    settings = ServerSettings()
    server = make_server(create_app({}, settings), settings)
    monkeypatch.setattr(server.config, "get_loop_factory", lambda: interrupted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(KeyboardInterrupt):
            server.run([])
        gc.collect()
    assert caught == []


def ask_livez(raw: socket.socket) -> bytes:
    raw.sendall(LIVEZ)
    return answer_of(raw)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_request_that_arrives_as_the_server_stops_is_answered(is_new: bool) -> None:
    stopping, arrived = threading.Event(), threading.Event()
    with serving(served_model()) as client, connection(client) as idle:
        server = client.server  # type: ignore[attr-defined]

        async def tick(counter: int) -> bool:
            # The event loop is busy when the server has to stop, and reads nothing before.
            if server.should_exit:
                stopping.set()
                assert arrived.wait(60)
            return bool(server.should_exit)

        server.on_tick = tick
        assert b"connection: close" not in ask_livez(idle)
        server.should_exit = True
        assert stopping.wait(60)
        with contextlib.ExitStack() as stack:
            # The system has accepted a new connection, the server has not.
            raw = stack.enter_context(connection(client)) if is_new else idle
            raw.sendall(LIVEZ)
            arrived.set()
            assert b"connection: close" in answer_of(raw)
            assert raw.recv(1) == b""


def test_stopping_answers_the_requests_that_were_accepted() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        with serving(served_model(), gate) as client:
            gate.open.clear()
            waiting = pool.submit(predict, client)
            assert gate.entered.acquire(timeout=60)
        assert waiting.result(60)["predictions"][0]["text"] == TEXT


def test_without_the_extra_the_error_names_the_installation() -> None:
    script = without("fastapi", "uvicorn", "prometheus_client", "httpx", "orjson")
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", "model"],
        capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: the server needs the package fastapi. Run, in a checkout: "
        'pip install -e ".[serve]"; or with a wheel of manyheads: pip install "FILE.whl[serve]".\n'
    )


def test_several_models_are_served_by_name() -> None:
    with serving({"one": served_model(), "two": served_model()}) as client:
        assert predict(client)["model"] == "one"
        answer = client.post("/v1/predict", json={"texts": TEXT, "model": "two"})
        assert answer.json()["model"] == "two"


def test_models_of_the_command_line_are_named_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_names(["runs/tickets/best", "b=runs/other"]) == {
        "tickets": Path("runs/tickets/best"),
        "b": Path("runs/other"),
    }
    monkeypatch.chdir(tmp_path)
    Path("runs/lr=3e-3").mkdir(parents=True)
    assert model_names(["runs/lr=3e-3", "b=runs/lr=3e-3"]) == {
        "lr=3e-3": Path("runs/lr=3e-3"),
        "b": Path("runs/lr=3e-3"),
    }
    with pytest.raises(RequestError, match="two models have the name 'a'"):
        model_names(["a", "x/a"])
    with pytest.raises(RequestError, match="'x/y' is not a name"):
        model_names(["x/y=z"])


def test_invalid_settings_are_named() -> None:
    with pytest.raises(RequestError, match="port is 70000; expected less than or equal to 65535"):
        make_settings(port=70000)
    with pytest.raises(RequestError, match=r"no setting 'prot' \(did you mean \"port\""):
        make_settings(prot=1)
    with pytest.raises(RequestError, match="host is ''; expected string should have at least 1"):
        make_settings(host="")


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("*", "*"),
        ("https://Shop.example.com/", "https://shop.example.com"),
        ("HTTPS://shop.example.com:443", "https://shop.example.com"),
        ("http://shop.example.com:443", "http://shop.example.com:443"),
        ("http://[::1]:5173", "http://[::1]:5173"),
    ],
)
def test_an_origin_is_compared_as_browsers_write_it(given: str, origin: str) -> None:
    assert make_settings(cors_origins=(given,)).cors_origins == (origin,)


@pytest.mark.parametrize("given", ["", "null", "shop.example.com", "https://a/b", "https://a b"])
def test_an_origin_that_no_page_has_is_refused(given: str) -> None:
    with pytest.raises(
        RequestError, match=rf"cors_origins is '{given}'; expected \* or an origin,"
    ):
        make_settings(cors_origins=(given,))


def test_an_address_that_another_process_listens_on_is_named_with_its_port(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.enumerate()
    bind = running.bind_socket
    with contextlib.ExitStack() as stack:

        def bind_two(settings: ServerSettings) -> socket.socket:
            # Two servers start: neither listens while it loads its model.
            ours = bind(settings)
            port = ours.getsockname()[1]
            stack.enter_context(bind(make_settings(port=port))).listen()
            return ours

        monkeypatch.setattr(running, "bind_socket", bind_two)
        message = r"cannot listen on 127.0.0.1:0 \(Address already in use\); expected an address"
        with pytest.raises(RequestError, match=message):
            serve(model, port=0, threads=1)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert becomes(lambda: not any(thread.is_alive() for thread in left), 60)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_address_of_ipv6_stands_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(running, "_run", lambda server, listening: listening.close())
    serve(served_model(), host="::1", port=0, threads=1, report=lines.append)
    assert re.search(r" at http://\[::1\]:\d+ \(API", lines[0])
    with bind_socket(make_settings(host="::1", port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=rf"cannot listen on \[::1\]:{port} \("):
            bind_socket(make_settings(host="::1", port=port))


def test_answers_are_sent_without_delay() -> None:
    # asyncio sets TCP_NODELAY on a connection only if its socket states the protocol.
    with bind_socket(make_settings(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP
