"""A path resolves to the best model, a checkpoint, a model folder, or an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from manyheads.errors import ModelError
from manyheads.inference import Runtime, load_model
from manyheads.storage import latest_checkpoint, resolve_model
from training_setup import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best epoch is the first of two."""
    with pytest.MonkeyPatch.context() as patched:
        scores = iter([0.9, 0.1])
        patched.setattr("manyheads.training.epoch_end.best_value", lambda *given: next(scores))
        result, _ = run(tmp_path_factory.mktemp("loaded"), num_epochs=2)
    return result.save_dir


TEXTS = ["John lives in Paris", "where is Mary?"]


def embeddings(model: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found = load_model(model, Runtime(threads=1)).predictor.predict(TEXTS, embed=True)
    return np.stack([one.embedding for one in found if one.embedding is not None])


def test_of_a_runs_folder_prediction_takes_the_best_and_evaluation_the_latest(
    trained: Path,
) -> None:
    assert resolve_model(trained) == trained / "best"
    assert resolve_model(trained, "latest") == trained / "mtl_epoch2.pt"
    assert load_model(trained, Runtime(threads=1)).path == str(trained / "best")
    latest = load_model(trained, Runtime(threads=1), prefer="latest")
    assert latest.path == str(trained / "mtl_epoch2.pt")


def test_the_model_that_a_path_means_is_the_model_that_is_loaded(trained: Path) -> None:
    best, first = embeddings(trained), embeddings(trained / "mtl_epoch1.pt")
    np.testing.assert_array_equal(best, first)
    np.testing.assert_array_equal(best, embeddings(trained / "best"))
    assert not np.allclose(best, embeddings(trained / "mtl_epoch2.pt"), atol=1e-6)


def test_a_checkpoint_alone_is_enough_to_predict(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "mtl_epoch1.pt", tmp_path / "alone.pt")
    np.testing.assert_array_equal(embeddings(tmp_path / "alone.pt"), embeddings(trained))
    loaded = load_model(tmp_path / "alone.pt", Runtime(threads=1))
    assert [spec.name for spec in loaded.predictor.specs] == ["classification", "ner"]
    assert list(loaded.config.tasks) == ["classification", "ner"]


def test_a_model_folder_alone_is_enough_to_predict(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "best", tmp_path / "model")
    np.testing.assert_array_equal(embeddings(tmp_path / "model"), embeddings(trained))


def test_without_a_best_model_the_latest_checkpoint_is_taken(tmp_path: Path) -> None:
    for name in ("mtl_epoch2.pt", "mtl_epoch10.pt", "mtl_step9.pt", "mtl_epoch11.pt.tmp", "x.pt"):
        (tmp_path / name).touch()
    assert resolve_model(tmp_path) == tmp_path / "mtl_epoch10.pt"
    for name in ("mtl_epoch2.pt", "mtl_epoch10.pt"):
        (tmp_path / name).unlink()
    (tmp_path / "mtl_step10.pt").touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "mtl_step10.pt"


def test_anything_but_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: there is no such model.*manyheads\.train"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    message = r"holds neither a model nor a checkpoint.*It holds: notes\.txt"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=r"notes\.txt"):
        load_model(tmp_path / "notes.txt")


def test_a_damaged_model_is_refused_as_a_whole(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "best", tmp_path / "best")
    weights = tmp_path / "best" / "heads.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=r"heads\.safetensors: has the SHA-256"):
        load_model(tmp_path)
