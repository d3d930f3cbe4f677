"""`manyheads init`, `manyheads demo` and the output of `manyheads train FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manyheads.cli import main
from manyheads.config import load_config
from manyheads.data.demo import SETTINGS, TEXTS
from training_setup import encoder_folder, sentences, write_records


def test_init_writes_a_commented_configuration_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "in/data.jsonl", sentences(30, 1))
    assert main(["init", "in/data.jsonl", "--set", "learning_rate=3e-4"]) == 0
    assert capsys.readouterr().out.endswith("Train with it: manyheads train config.yaml\n")
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "# Peak learning rate of the encoder. Default: 5e-05.\nlearning_rate: 0.0003\n" in text
    assert "  classification:  # field `label`: 2 different texts in 30 records\n" in text
    assert load_config("config.yaml").files == ("in/data.jsonl",)
    assert main(["init", "in/data.jsonl"]) == 2
    assert "config.yaml: the file exists. Replace it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run\udce9.yaml", "run\nmore: 1.yaml"])
def test_a_configuration_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "data.jsonl", sentences(30, 1))
    assert main(["init", "data.jsonl", "--out", name]) == 0
    assert load_config(name).files == ("data.jsonl",)
    assert f"# Trained by: manyheads train {name!a}\n" in Path(name).read_text("utf-8")


def test_init_shows_classes_that_seem_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("text,labels\n" + "a,p\nb,q\nc,p|q\n" * 2, encoding="utf-8")
    assert main(["init", "x.csv"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "`labels` has the class 'p|q', whose parts are classes too" in out
    assert "--label-separator '|'" in out


def test_train_shows_the_tasks_first_and_ends_with_scores_and_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [one | {"stars": i % 5} for i, one in enumerate(sentences(30, 2))]
    write_records(tmp_path / "data.jsonl", records)
    assert main(["train", "data.jsonl"]) == 2
    question = capsys.readouterr().err
    assert "--task stars=classification:stars or --task stars=regression:stars" in question
    settings = ["--epochs", "1", "--model-name", str(encoder_folder()), "--max-length", "32"]
    tasks = ["--task", "stars=classification", "--task", "slots=tagging:ner"]
    assert main(["train", "data.jsonl", *tasks, *settings]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Tasks found in 30 records\n")
    assert "not used: `label`, 2 different texts in 30 records" in out
    assert "  stars: " in out
    assert "of the texts get the right class" in out
    assert '  manyheads predict saved_model "your own text"' in out


def test_the_demonstration_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    records = json.loads(Path(SETTINGS["train_file"]).read_text(encoding="utf-8"))
    short = tmp_path / "short.json"
    short.write_text(json.dumps(records[:20]), encoding="utf-8")
    settings = {
        "train_file": short, "valid_file": short, "num_epochs": 1, "model_name": encoder_folder(),
        "max_length": 32,
    }  # fmt: skip
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert main(["demo", *given]) == 0
    out = capsys.readouterr().out
    assert all(f"{text}\nIn words: classification: " in out for text in TEXTS)
    assert (tmp_path / "saved_model_demo/best").is_dir()
    longer = [part.replace("num_epochs=1", "num_epochs=2") for part in given]
    assert main(["demo", *longer]) == 2
    assert "Continue that run with --resume" in capsys.readouterr().err
    assert main(["demo", *longer, "--resume"]) == 0
    assert [*(tmp_path / "saved_model_demo").glob("*epoch2.pt")]
