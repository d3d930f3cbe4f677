"""A model from elsewhere: files that its configuration names are not opened unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from manyheads.errors import DataError, ModelError
from manyheads.evaluation import evaluate
from manyheads.exporting import export_model
from manyheads.inference import Runtime
from manyheads.storage import LAYOUT, json_bytes, seal
from training_setup import run, write_records

ONE_THREAD = Runtime(threads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, which tests do not change."""
    return run(tmp_path_factory.mktemp("project"))[0].save_dir


def name_data(folder: Path, name: str) -> None:
    """Have a model's configuration name other validation data."""
    manifest = json.loads((folder / LAYOUT.manifest).read_bytes())
    manifest["config"]["valid_file"] = name
    manifest["sha256"] = seal(manifest)
    (folder / LAYOUT.manifest).write_bytes(json_bytes(manifest))


def test_a_run_in_its_own_folder_is_evaluated_on_its_data(trained: Path) -> None:
    for model in (trained, trained / "best"):
        assert evaluate(model, runtime=ONE_THREAD, drift=False).evaluation["records"] == 8


def test_a_run_that_moved_with_its_data_is_evaluated_too(trained: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(trained.parent, tmp_path / "moved"))
    name_data(moved / "saved" / "best", str(moved / "valid.jsonl"))
    assert evaluate(moved / "saved" / "best", runtime=ONE_THREAD, drift=False).data


def test_a_foreign_models_paths_are_not_opened(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "best", tmp_path / "downloads" / "model" / "best")
    private = write_records(tmp_path / "private.jsonl", [])
    name_data(folder, str(private))
    with pytest.raises(ModelError, match=r"names .*private\.jsonl.*\(MODEL, .*private\.jsonl"):
        evaluate(folder, runtime=ONE_THREAD, drift=False)
    with pytest.raises(DataError, match=r"names .*private\.jsonl.*MODEL, data=.*private\.jsonl"):
        export_model(folder, threads=1)
    data = trained.parent / "valid.jsonl"
    assert evaluate(folder, data=data, runtime=ONE_THREAD, drift=False).evaluation["records"] == 8


def test_a_data_set_on_a_hub_is_not_fetched_unless_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "manyheads.data.readers.hub.read_dataset", lambda *_: pytest.fail("the hub was asked")
    )
    folder = shutil.copytree(trained, tmp_path / "saved") / "best"
    name_data(folder, "datasets:someone/logs")
    with pytest.raises(ModelError, match=r"names datasets:someone/logs.*MODEL, 'datasets:"):
        evaluate(folder, runtime=ONE_THREAD, drift=False)
    with pytest.raises(DataError, match=r"names datasets:someone/logs"):
        export_model(folder, threads=1)
