"""Loading a model's new version: what it replaces, what is refused, and what is freed."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from documents import scale_weights
from manyheads.errors import ModelError
from manyheads.inference import LoadedModel, Predictor, Runtime, load_model
from manyheads.server import registry
from manyheads.server.settings import make_settings
from manyheads.text import Batch
from serving import Gate, becomes, logged, predict, served_model, serving


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
        scale_weights(model, "heads.safetensors", "weight")
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
        scale_weights(model, "heads.safetensors", "weight")
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
        scale_weights(model, "heads.safetensors", "weight")
        reloading = threading.Thread(target=client.post, args=("/v1/models/tiny:reload",))
        reloading.start()
        gate.open.set()
        reloading.join(60)
        assert waiting.result(60)["version"] == old
        assert predict(client)["version"] != old


def test_a_version_that_embeds_differently_is_refused_unless_allowed(model: Path) -> None:
    with serving(model) as client:
        old = client.get("/v1/models").json()["data"][0]
        scale_weights(model, "model.safetensors", "word_embeddings")
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
