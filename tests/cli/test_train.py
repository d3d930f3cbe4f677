"""`train`: options over the configuration, and its help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import manyheads
from command_line import Run
from manyheads.cli.help import MOST_USED
from manyheads.cli.options import FLAT_FIELDS, overrides_of
from manyheads.config import Config, key_groups
from manyheads.errors import RequestError
from manyheads.training.distill import SAVE_DIR


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[SimpleNamespace]:
    """Replace training by a function that records its calls."""
    calls: list[SimpleNamespace] = []

    def train(config: Config, *, resume: bool, overwrite: bool, reporter: Any) -> SimpleNamespace:
        calls.append(SimpleNamespace(config=config, resume=resume, overwrite=overwrite))
        best_of = {"ner": Path("out/best-ner")} if config.keep_best_per_task else {}
        return SimpleNamespace(
            best=Path("out/best"), best_epoch=2, best_score=0.5, best_of=best_of, summary=()
        )

    module = ModuleType("manyheads.training.loop")
    module.__dict__["train"] = train
    monkeypatch.setitem(sys.modules, "manyheads.training.loop", module)
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("batch_size: 4\nlearning_rate: 2e-5\n", encoding="utf-8")
    return calls


def test_training_names_the_best_model_of_each_task(
    run: Run, trained: list[SimpleNamespace]
) -> None:
    mapping = "{classification: 1, ner: 3}"
    options = ["--keep-best-per-task", "true", "--best-metric", "weighted"]
    result = run("train", "config.yaml", *options, "--best-weights", mapping)
    assert result.status == 0, result.err
    assert result.out.splitlines()[1:] == ["Best model for ner: out/best-ner"]
    assert trained[0].config.best_weights == {"classification": 1, "ner": 3}


def test_an_option_overrides_the_configuration(run: Run, trained: list[SimpleNamespace]) -> None:
    result = run("train", "config.yaml", "--lr", "3e-5", "--epochs", "7", "--resume")
    assert result.status == 0, result.err
    assert result.out == "Best model: epoch 2, score 0.5000, out/best\n"
    (call,) = trained
    assert (call.config.batch_size, call.config.learning_rate, call.config.num_epochs) == (
        4,
        3e-5,
        7,
    )
    assert (call.resume, call.overwrite) == (True, False)


@pytest.mark.parametrize(
    "flag", ["--save_dir", "--save-dir", "--checkpoint_dir", "--checkpoint-dir"]
)
def test_a_field_has_one_option_under_all_its_names(
    run: Run, trained: list[SimpleNamespace], flag: str
) -> None:
    assert run("train", flag, "2024", f"{flag}=2025").status == 0
    assert trained[0].config.save_dir == "2025"


def test_the_help_has_every_key_with_the_schema_s_meaning_and_default(
    run: Run,
) -> None:
    text = "".join(run("train", "--help").out.split())
    for group in key_groups():
        for key in group.keys:
            if key.name not in ("tasks", "files"):  # which are for the file, and have no flag
                name = key.name if "." in key.name else f"--{key.name.replace('_', '-')}"
                assert name in text
                assert "".join(key.help.removesuffix(".").split()) in text
    assert set(Config.model_fields) - set(FLAT_FIELDS) == {"tasks", "files", "refit"}


def test_the_help_groups_the_flags_and_begins_with_those_that_matter_first(
    run: Run,
) -> None:
    text = run("train", "--help").out
    titles = [group.title for group in key_groups()]
    places = [text.index(f"\n{title}") for title in (MOST_USED, "Options", *titles)]
    assert places == sorted(places)
    assert text.index("--train-file") < text.index("--resume") < text.index("--num-classes")


def test_the_help_has_the_defaults_of_a_run_on_files(run: Run) -> None:
    train, init = (" ".join(run(name, "--help").out.split()) for name in ("train", "init"))
    assert "Default: 3; with FILE, auto." in train
    assert "Default: linear; with FILE, crf." in train
    pooling = "[embedding, middle] for classification, [sentence] for others."
    assert f"Default: [sentence]; with FILE, {pooling}" in train
    assert f"Default: {pooling}" in init
    rates = "by the kinds of the tasks and the number of records"
    assert f"Peak learning rate of the heads. Default: 0.001; with FILE, {rates}." in train
    assert "the fewer records, the more epochs." in init
    assert "Default: auto." in init
    assert "Default: crf." in init
    assert f"Peak learning rate of the heads. Default: {rates}." in init
    assert "FILE," not in init
    for refused in ("--train-file", "--num-classes", "--num-ner-labels"):
        assert refused in train
        assert refused not in init


def test_the_help_of_distill_has_the_defaults_of_a_student(
    run: Run,
) -> None:
    text = " ".join(run("distill", "--help").out.split())
    assert f"Default: {SAVE_DIR}." in text
    assert "saved_model" not in text
    assert "Sentences in a batch. Default: that of TEACHER." in text


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_help_is_as_wide_as_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("train", "--help").out.splitlines()
    assert columns - 10 < max(map(len, lines)) <= columns


def test_a_setting_reaches_any_field_of_any_task(run: Run, trained: list[SimpleNamespace]) -> None:
    result = run("train", "--set", "tasks.ner.decoder=crf", "--set", "tasks.ner.labels=[PER, LOC]")
    assert result.status == 0, result.err
    task = trained[0].config.tasks["ner"]
    assert (task.decoder, task.labels) == ("crf", ("PER", "LOC"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "fast"], "`learning_rate` is 'fast'; expected a number at least 0"),
        (["--set", "lr"], "--set 'lr' sets nothing; expected KEY=VALUE"),
        (["--set", "=3"], "--set '=3' sets nothing"),
        (["--set", "lr=1", "--learning_rate", "2"], "--set lr sets learning_rate a second time"),
        (["--set", "tasks.ner.decodr=crf"], '`tasks.ner.decodr` (did you mean "decoder"?)'),
        (["--set", "sede=1"], 'unknown key `sede` (did you mean "seed"?)'),
        (["none.yaml"], "none.yaml: there is no such configuration file"),
    ],
)
def test_a_mistaken_setting_is_reported_before_anything_is_loaded(
    run: Run,
    trained: list[SimpleNamespace],
    arguments: Sequence[str],
    message: str,
) -> None:
    result = run("train", *arguments)
    assert (result.status, trained) == (2, [])
    assert message in result.err


def test_values_may_have_equals_signs_and_stay_as_they_are() -> None:
    assert overrides_of({"seed": None, "save_dir": "x"}, ["train_file=a=b.json"]) == {
        "save_dir": "x",
        "train_file": "a=b.json",
    }


def test_the_configuration_is_the_launcher_s_or_that_of_the_working_directory(
    run: Run, trained: list[SimpleNamespace], tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("batch_size: 9", encoding="utf-8")
    assert run("train").status == 0
    assert run(command="train", default_config=other).status == 0
    assert run("config.yaml", command="train", default_config=other).status == 0
    assert [call.config.batch_size for call in trained] == [4, 9, 4]


def test_without_any_configuration_the_message_says_how_to_name_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("train")
    assert result.status == 2
    assert result.err == (
        "error: no configuration and no data are named, and there is no config.yaml here; expected "
        "a YAML file, or labelled data. Name them: manyheads train CONFIG, or manyheads train FILE "
        "...\n"
    )
    with pytest.raises(
        RequestError, match=r"no config\.yaml here.* manyheads\.train\(CONFIG\), or"
    ):
        manyheads.train()
