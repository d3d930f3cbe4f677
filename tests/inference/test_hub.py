"""Models pushed to a hub and loaded by name: what is sent, what is fetched, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyheads
from hub_server import Hub, running_hub
from manyheads.cli import main
from manyheads.errors import ModelError, RequestError
from manyheads.storage import add_files, is_hub_name, read_manifest, seal
from training_setup import sentences, settings

TEXTS = ["john lives in paris", "will it rain in york ?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> manyheads.TrainedModel:
    values = settings(tmp_path_factory.mktemp("hub"))
    values = {k: v for k, v in values.items() if k not in ("train_file", "valid_file")}
    return manyheads.train(sentences(8, 1), valid=sentences(4, 2), progress=False, **values)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_pushed_model_is_loaded_by_its_name_and_by_its_commit(
    model: manyheads.TrainedModel, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = manyheads.push(model, "me/mine")
    assert first == f"me/mine@{hub.commit_hash('me/mine', 1)}"
    manyheads.push(model, "me/mine")
    newest = manyheads.load("me/mine", threads=1)
    assert newest.path.name == hub.commit_hash("me/mine", 2)
    assert newest.predict(TEXTS) == model.predict(TEXTS)
    assert manyheads.load(first, threads=1).path.name == hub.commit_hash("me/mine", 1)
    # From the cache, without the hub.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    assert manyheads.load("me/mine", threads=1).predict(TEXTS) == model.predict(TEXTS)
    assert len(hub.requests) == before


def test_only_safetensors_json_and_the_card_are_pushed_and_fetched(
    model: manyheads.TrainedModel, hub: Hub, tmp_path: Path
) -> None:
    folder = model.save(tmp_path / "copy")
    add_files(read_manifest(folder), {"onnx/model.onnx": b"graph", "onnx/report.json": b"{}"})
    (folder / "code.py").write_text("raise SystemExit")
    manyheads.push(folder, "me/mine")
    sent = set(hub.repos["me/mine"][0])
    assert {"manyheads.json", "model.safetensors", "README.md"} <= sent
    assert all(n.endswith((".json", ".safetensors")) or n == "README.md" for n in sent)
    assert not any(name.startswith("onnx/") for name in sent)
    manyheads.load("me/mine", threads=1).predict(TEXTS)
    asked = {r.rpartition("/")[2] for r in hub.requests if r.startswith("GET")}
    assert all(name.endswith((".json", ".safetensors")) for name in asked)


def test_a_model_on_the_hub_with_other_files_is_refused_before_they_are_fetched(
    model: manyheads.TrainedModel, hub: Hub
) -> None:
    manyheads.push(model, "me/evil")
    files = hub.repos["me/evil"][0]
    values = json.loads(files["manyheads.json"])
    values["files"]["setup.py"] = {"size": 1, "sha256": "0" * 64}
    files["manyheads.json"] = json.dumps({**values, "sha256": seal(values)}).encode()
    before = len(hub.requests)
    with pytest.raises(ModelError, match=r"lists setup\.py; expected only safetensors and JSON"):
        manyheads.load("me/evil")
    assert {r.rpartition("/")[2] for r in hub.requests[before:]} == {"manyheads.json"}


def test_names_that_the_hub_does_not_have_and_refusals_are_explained(
    model: manyheads.TrainedModel, hub: Hub, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert main(["predict", "me/none", "a text"]) == 2
    assert "no folder me/none here, and the hub has no such model" in capsys.readouterr().err
    manyheads.push(model, "me/mine")
    with pytest.raises(ModelError, match="the hub has no such revision"):
        manyheads.load("me/mine@none")
    del hub.repos["me/mine"][0]["manyheads.json"]
    with pytest.raises(
        ModelError, match=r"no Manyheads model of this name; expected one with manyheads\.json"
    ):
        manyheads.load("me/mine")
    hub.refuses_writing = True
    assert main(["push", str(model.save_dir), "me/other"]) == 2
    assert "the hub answered 403" in capsys.readouterr().err
    with pytest.raises(RequestError, match=r"the name on the hub is 'mine'; expected user/name"):
        manyheads.push(model, "mine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot be reached"):
        manyheads.load("me/other")


def test_a_path_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/first").mkdir(parents=True)
    assert is_hub_name("runs/second")
    for path in ("runs/first", "model", "/a/b", "./a/b", "a/b/c", "../b", str(tmp_path / "x")):
        assert not is_hub_name(path)
