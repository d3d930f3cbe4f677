"""The Python API."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import manyheads
from manyheads.api.arguments import as_config
from manyheads.errors import ConfigError, ManyheadsError, RequestError
from manyheads.tasks import ClassResult, TaggingResult
from training_setup import config, sentences, settings, write_records


def test_train_load_predict_and_evaluate_work_together(tmp_path: Path) -> None:
    result = manyheads.train(config(tmp_path), num_epochs=2)
    assert result.best == tmp_path / "saved" / "best"
    assert len(result.history) == 2
    model = manyheads.load(result.save_dir, threads=1)
    (prediction,) = model.predict(["John lives in Paris"], embed=True)
    assert isinstance(prediction.results["classification"], ClassResult)
    assert isinstance(prediction.results["ner"], TaggingResult)
    assert prediction.embedding is not None
    report = manyheads.evaluate(result.save_dir)
    assert report.evaluation["tasks"].keys() == {"classification", "ner"}
    data = write_records(tmp_path / "more.jsonl", sentences(4, 9))
    assert manyheads.evaluate(result.best, data, tasks=["ner"]).evaluation["records"] == 4
    again = manyheads.train(config(tmp_path, num_epochs=2), resume=True)
    assert again.best_epoch == result.best_epoch
    with pytest.raises(ManyheadsError, match="another run"):
        manyheads.train(config(tmp_path))
    assert len(manyheads.train(config(tmp_path), overwrite=True, report=True).history) == 1
    assert "<html" in (tmp_path / "saved" / "report.html").read_text(encoding="utf-8")
    errors = tmp_path / "errors.jsonl"
    wrong = manyheads.evaluate(tmp_path / "saved", data, errors=errors)
    lines = errors.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= wrong.evaluation["records"]
    assert all('"where"' in line for line in lines)


def _file(folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(folder)), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["file", "text", "mapping", "config", "nothing"])
def test_a_configuration_comes_in_any_form_with_settings_over_it(tmp_path: Path, form: str) -> None:
    values = settings(tmp_path)
    forms: dict[str, Any] = {
        "file": _file(tmp_path),
        "text": str(_file(tmp_path)),
        "mapping": values,
        "config": config(tmp_path),
        "nothing": None,
    }
    over: dict[str, Any] = {"lr": 0.25, "epochs": 7, "tasks.ner.decoder": "crf"}
    made = as_config(forms[form], {**(values if form == "nothing" else {}), **over})
    assert made == config(tmp_path, **over)
    assert (made.learning_rate, made.num_epochs, made.tasks["ner"].decoder) == (0.25, 7, "crf")


def test_a_configuration_without_settings_is_taken_as_it_is(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert as_config(made, {}) is made


@pytest.mark.parametrize("form", ["file", "mapping"])
def test_a_run_with_settings_that_are_refused_since_is_resumed(tmp_path: Path, form: str) -> None:
    best = manyheads.train(config(tmp_path)).best
    path, values = _file(tmp_path), {**settings(tmp_path), "hold_out": 0.2}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    given = values if form == "mapping" else path
    assert manyheads.train(config=given, resume=True, num_epochs=1).best == best
    with pytest.raises(ConfigError, match="so nothing is held out"):
        manyheads.train(config=given, overwrite=True)


def test_data_are_read_as_a_configuration_with_settings_that_are_refused_since_says(
    tmp_path: Path,
) -> None:
    values = {**settings(tmp_path), "hold_out": 0.2, "keep_best_per_task": True}
    assert manyheads.check(config=values).files
    tasks = {"classification": {"kind": "classification"}}
    data = sentences(24, 9)
    found = manyheads.suspects(data, config=values, tasks=tasks, progress=False)
    assert found.tasks == {"classification": "classification"}


def test_wrong_settings_and_wrong_kinds_of_configuration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key `batchsize`.*batch_size"):
        manyheads.train(config(tmp_path), batchsize=3)
    with pytest.raises(RequestError, match="records are of the type int; expected a list of dicts"):
        manyheads.train(7)


def test_every_public_name_is_there_and_others_are_not() -> None:
    for name in manyheads.__all__:
        assert getattr(manyheads, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = manyheads.tarin


def test_no_public_name_is_that_of_a_room_whose_import_would_replace_it() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(manyheads.__path__)}
    assert not rooms & set(manyheads.__all__)


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, manyheads; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_on_windows_the_import_says_what_to_do() -> None:
    code = "import sys; sys.platform = 'win32'; import manyheads"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("On Windows, install it in WSL 2.\n")
