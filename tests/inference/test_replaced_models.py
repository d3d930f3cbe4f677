"""A model that another process replaces while it is read is loaded as the old or the new one."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import manyheads
from documents import rewrite_manifest, scale_weights
from manyheads.errors import ModelError
from manyheads.exporting import export_model
from manyheads.inference import Runtime, load_model
from manyheads.inference.backends import pytorch
from manyheads.storage import LAYOUT, atomic_folder, read_manifest
from training_setup import run, sentences, write_records

TEXTS = ["john lives in paris", "where is mary"]


def records(count: int, seed: int) -> list[Any]:
    """Sentences of three classes, from which a scope can be fitted."""
    found = sentences(count, seed)
    return [{**one, "label": "news"} if "weather" in one["tokens"] else one for one in found]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model."""
    folder = tmp_path_factory.mktemp("old")
    write_records(folder / "train.jsonl", records(60, 1))
    write_records(folder / "valid.jsonl", records(120, 2))
    result, _ = run(folder)
    return result.best


@pytest.fixture(scope="module")
def new(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with other heads, another scope and another calibration."""
    folder = Path(shutil.copytree(old, tmp_path_factory.mktemp("new") / "best"))
    for name in (LAYOUT.heads, read_manifest(folder).calibration["scope"]["file"]):
        scale_weights(folder, name)

    def cooler(values: dict[str, Any]) -> None:
        values["calibration"]["tasks"]["classification"]["scores"]["temperature"] *= 3

    rewrite_manifest(folder, cooler)
    return folder


@pytest.fixture
def served(old: Path, tmp_path: Path) -> Path:
    """A copy of the old model, which the test may replace."""
    return Path(shutil.copytree(old, tmp_path / "best"))


def replace(folder: Path, model: Path) -> None:
    """Write another model in a folder's place, as training does."""
    with atomic_folder(folder) as written:
        shutil.copytree(model, written, dirs_exist_ok=True)


def answers(model: Path) -> list[Any]:
    predictions = load_model(model, Runtime("torch", threads=1)).predictor.predict(TEXTS)
    return [[p.to_json() for p in predictions], [p.in_scope for p in predictions]]


def before(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], None]) -> None:
    """Perform an action before the first call of a function in the module of PyTorch's backend."""
    function, left = getattr(pytorch, name), [action]

    def called(*arguments: Any, **options: Any) -> Any:
        while left:
            left.pop()()
        return function(*arguments, **options)

    monkeypatch.setattr(pytorch, name, called)


@pytest.mark.parametrize("step", ["load_trained", "choose_compute", "read_scorings"])
def test_all_parts_of_a_model_are_of_the_same_one(
    step: str, old: Path, new: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers(old) != answers(new)
    before(monkeypatch, step, lambda: replace(served, new))
    assert answers(served) == answers(new)


def test_a_model_that_was_read_when_it_is_replaced_is_the_old_one(
    old: Path, new: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, "predictor_of_model", lambda: replace(served, new))
    assert answers(served) == answers(old)


def test_a_damaged_model_is_read_once(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = served / LAYOUT.heads
    heads.write_bytes(heads.read_bytes()[:-1] + b"?")
    read = []
    monkeypatch.setattr(
        "manyheads.inference.loading._load_in_torch",
        lambda source, *rest: read.append(source) or pytorch.load_trained(source),
    )
    with pytest.raises(ModelError, match=r"heads\.safetensors: has the SHA-256"):
        load_model(served, Runtime("torch", threads=1))
    assert len(read) == 1


def test_a_loaded_model_does_not_take_the_calibration_of_another(
    new: Path, served: Path, tmp_path: Path
) -> None:
    model = manyheads.load(served, backend="torch", threads=1)
    model.predict(TEXTS)
    replace(served, new)
    unseen = [
        {**one, "tokens": ["good", *one["tokens"]], "ner": ["O", *one["ner"]]}
        for one in records(60, 3)
    ]
    valid = write_records(tmp_path / "valid.jsonl", unseen)
    with pytest.raises(ModelError, match="another model than the one that was loaded"):
        manyheads.calibrate(model, valid, threads=1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no export on Python 3.10")
def test_graphs_are_not_added_to_another_model(new: Path, served: Path) -> None:
    def progress(step: str) -> None:
        if step == "writing onnx/manyheads.onnx":
            replace(served, new)

    with pytest.raises(ModelError, match="holds another model than when this began"):
        export_model(served, formats=["float32"], limit=100, threads=1, progress=progress)
    assert read_manifest(served) == dataclasses.replace(read_manifest(new), folder=served)
    assert not (served / "onnx").exists()
