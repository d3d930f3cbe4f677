"""The commands on a tiny trained model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import forked
from command_line import Run, python
from forked import messages, run_script
from manyheads.cli import main
from tiny import tiny_encoder_folder

SRC = Path(__file__).parents[2] / "src"
NAMES = ("john", "mary", "peter", "anna")
PLACES = ("paris", "berlin", "london", "rome")


def records(people: tuple[str, ...], places: tuple[str, ...]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for person in people:
        for place in places:
            tags = ["B-PER", "O", "O", "B-LOC"]
            made.append({"tokens": [person, "lives", "in", place], "ner": tags, "label": "told"})
            tags = ["O", "O", "B-PER", "O", "B-LOC"]
            asked = ["where", "is", person, "in", place]
            made.append({"tokens": asked, "ner": tags, "label": "asked"})
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a small model of two tasks, trained from the command line."""
    folder = tmp_path_factory.mktemp("run")
    tiny_encoder_folder(folder / "encoder")
    for name, people, places in (
        ("train", NAMES, PLACES),
        ("valid", NAMES[:2], ("york", *PLACES[:1])),
    ):
        text = json.dumps(records(people, places))
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "config.yaml").write_text(
        f"model_name: {folder / 'encoder'}\ntrain_file: {folder / 'train.json'}\n"
        f"valid_file: {folder / 'valid.json'}\nmax_length: 32\nnum_epochs: 4\nseed: 1\n"
        "learning_rate: 3e-3\nhead_learning_rate: 3e-2\nprecision: float32\nthreads: 1\n",
        encoding="utf-8",
    )
    arguments = [str(folder / "config.yaml"), "--save_dir", str(folder / "saved_model")]
    assert main(["train", *arguments]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_the_folder_of_the_model(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def test_training_leaves_a_checkpoint_an_epoch_and_the_best_model(trained: Path) -> None:
    names = {path.name for path in (trained / "saved_model").iterdir()}
    assert {f"mtl_epoch{n}.pt" for n in (1, 2, 3, 4)} | {"best", "metrics.jsonl"} <= names


def test_a_run_is_not_trained_over_by_mistake(run: Run) -> None:
    before = Path("saved_model/mtl_epoch4.pt").read_bytes()
    result = run("train")
    assert result.status == 2
    assert "saved_model: the folder holds another run" in result.err
    assert "--resume" in result.err
    assert "--overwrite" in result.err
    assert Path("saved_model/mtl_epoch4.pt").read_bytes() == before


def test_resuming_a_finished_run_reports_that_it_is_finished(run: Run) -> None:
    result = run("train", "--resume")
    assert result.status == 0, result.err
    assert "finished" in result.err
    assert result.out.startswith("Best model: epoch ")


def test_evaluation_takes_the_latest_checkpoint_and_the_validation_data(run: Run) -> None:
    result = run("evaluate")
    assert result.status == 0
    assert result.err.startswith("note: scored saved_model/mtl_epoch4.pt")
    assert result.out.startswith("Evaluation of 8 records\n")
    report = json.loads(run("evaluate", "--json", "-").out)
    assert report["model"].endswith("mtl_epoch4.pt")
    assert report["records"] == 8
    assert set(report["tasks"]) == {"classification", "ner"}
    assert 0 <= report["frame_accuracy"] <= 1


def test_evaluation_takes_any_model_file_and_task(run: Run) -> None:
    options = ["--file", "train.json", "--task", "ner", "--json", "r.json", "--batch-tokens", "32"]
    result = run("evaluate", "saved_model/best", *options, "--device", "cpu", "--threads", "1")
    learned = "the model was trained on the texts of 32 of the 32 records, whose answers say little"
    assert (result.status, result.err) == (0, f"warning: {learned} about those for new texts\n")
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert (list(report["tasks"]), report["records"]) == (["ner"], 32)
    assert f"{report['tasks']['ner']['f1']:.4f}" in result.out
    assert report["tasks"]["ner"]["f1"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--task", "nre"], "the model has no task 'nre' (did you mean \"ner\"?)"),
        (["evaluate", "--file", "absent.json"], "absent.json: there is no such file"),
        (["evaluate", "absent"], "absent: there is no such model"),
        (["evaluate", "config.yaml"], "config.yaml"),
        (["evaluate", "--device", "tpu"], "tpu"),
        (["evaluate", "--backend", "nonsense"], "nonsense"),
        (["predict", "--backend", "nonsense", "a"], "nonsense"),
        (["predict", "--task", "nre", "a"], "task 'nre' is not one of the model's (did you mean"),
        (["predict", "--model", "absent", "a"], "absent: there is no such model"),
        (["predict", "encoder", "a"], "encoder: the folder holds neither a model nor a checkpoint"),
        (["info", "absent.pt"], "absent.pt: there is no such model"),
    ],
)
def test_an_impossible_request_ends_with_one_message(
    run: Run, arguments: list[str], message: str
) -> None:
    result = run(*arguments)
    assert result.status == 2, result.err
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_prediction_answers_in_the_documented_lines(run: Run) -> None:
    result = run("predict", "john lives in paris")
    assert (result.status, result.err) == (0, "")
    assert re.fullmatch(
        r"In words: classification: (told|asked) .* %; ner: .*\n"
        r'Classification: [01]\nNER Tags: \[\("john", \d\), \("lives", \d\), \("in", \d\), '
        r'\("paris", \d\)\]\n',
        result.out,
    )


@pytest.mark.parametrize("model", ["saved_model", "saved_model/best", "saved_model/mtl_epoch1.pt"])
def test_every_form_of_a_model_predicts_and_embeds(run: Run, model: str) -> None:
    text = "  Mary\tlives in  ROME 🎈 "
    result = run("predict", model, "--format", "jsonl", "--embed", text, "anna")
    assert result.status == 0, result.err
    first, second = map(json.loads, result.out.splitlines())
    assert (first["text"], second["text"]) == (text, "anna")
    assert len(first["embedding"]) == 32
    assert set(first["classification"]) == {"label", "id", "score"}
    for entity in first["ner"]["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]


def test_raw_text_and_its_tokens_get_the_same_entities(run: Run) -> None:
    rows = [{"text": "john lives in paris"}, {"tokens": ["john", "lives", "in", "paris"]}]
    Path("two.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = run("predict", "--file", "two.jsonl", "--format", "jsonl")
    assert result.status == 0, result.err
    first, second = map(json.loads, result.out.splitlines())
    assert first["ner"]["entities"] == second["ner"]["entities"]


def test_info_describes_a_model(run: Run) -> None:
    result = run("info")
    assert (result.status, result.err) == (0, "")
    for words in (
        "saved_model/best (model folder)",
        "ner: O, B-LOC, I-LOC",
        "asked, told",
        "embedding_max_length",
        "torch",
    ):
        assert words in result.out
    told = json.loads(run("info", "saved_model/best", "--json", "-").out)
    assert told["tasks"]["classification"]["labels"] == ["asked", "told"]
    assert told["metrics"]["records"] == 8
    assert "heads.safetensors" in told["files"]
    checkpoint = run("info", "saved_model/mtl_epoch2.pt").out
    assert checkpoint.startswith("saved_model/mtl_epoch2.pt (checkpoint, 2 epochs and ")


def test_a_damaged_model_is_shown_and_then_refused(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree("saved_model/best", broken)
    heads = bytearray((broken / "heads.safetensors").read_bytes())
    heads[-1] ^= 1
    (broken / "heads.safetensors").write_bytes(heads)
    result = run("info", str(broken))
    assert result.status == 2
    assert "classification" in result.out
    assert "heads.safetensors: has the SHA-256" in result.err


def test_info_about_a_folder_needs_no_framework() -> None:
    done = python(
        """
        import sys
        from manyheads.cli import main
        status = main(["info"])
        print("torch" in sys.modules, "transformers" in sys.modules, status)
        """
    )
    assert done.stdout.splitlines()[-1] == "False False 0"


def test_a_launcher_predicts_for_lines_of_standard_input(trained: Path) -> None:
    lines = "john lives in paris\nwhere is mary in rome\n"
    (trained / "input").write_text(lines, encoding="utf-8")
    out = forked.run(trained, run_script, str(SRC / "predict.py"), "--threads", "1")
    assert len(re.findall(r"^Classification: [01]$", out, re.MULTILINE)) == 2
    assert messages(trained) == ""
