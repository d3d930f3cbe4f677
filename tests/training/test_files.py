"""Training from labelled files only: what is written, repeated, resumed and evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import manyheads
from files import contents_of
from manyheads.config import TaskConfig, make_config
from manyheads.data.hold_out import with_parts
from manyheads.data.own_files import located
from manyheads.errors import ConfigError, ModelError, RequestError
from manyheads.evaluation import in_words
from manyheads.tasks import Scheme, TaskSpec
from manyheads.training import distill_config, train
from manyheads.training.epochs import budget, is_improving
from manyheads.training.files import kept_until_ready, run_config
from manyheads.training.state import RunMismatch
from training_setup import Spy, encoder_folder, sentences, write_records


def fast(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model_name": str(encoder_folder()), "save_dir": str(folder / "saved"), "threads": 1,
        "precision": "float32", "num_epochs": 1, "max_length": 32, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data file and the run that was trained on it."""
    folder = tmp_path_factory.mktemp("files")
    path = write_records(folder / "data.jsonl", sentences(40, 3))
    manyheads.train(path, **fast(folder))
    return folder


def test_a_file_is_enough_and_the_run_keeps_both_parts_and_its_configuration(trained: Path) -> None:
    saved = trained / "saved"
    assert sorted(path.name for path in (saved / "data").iterdir()) == [
        "train.jsonl", "valid.jsonl",
    ]  # fmt: skip
    config = manyheads.load_config(saved / "config.yaml")
    assert config.files == (str(trained / "data.jsonl"),)
    assert {name: task.kind for name, task in config.tasks.items()} == {
        "classification": "classification", "ner": "tagging",
    }  # fmt: skip
    assert (config.schedule, config.tasks["ner"].decoder) == ("joint", "crf")
    assert [path.name for path in saved.glob("*.pt")] == ["mtl_epoch1.pt"]


def test_evaluate_scores_the_part_that_was_held_out(trained: Path) -> None:
    lines = (trained / "saved/data/valid.jsonl").read_text(encoding="utf-8").splitlines()
    report = manyheads.evaluate(trained / "saved")
    assert report.evaluation["records"] == len(lines)
    assert report.data == (str(trained / "saved/data/valid.jsonl"),)


def test_a_run_that_does_not_start_leaves_the_one_that_it_was_to_replace(tmp_path: Path) -> None:
    old = write_records(tmp_path / "old.jsonl", sentences(30, 3))
    manyheads.train(old, **fast(tmp_path))
    before = contents_of(tmp_path / "saved")
    new = write_records(tmp_path / "new.jsonl", sentences(30, 4))
    (tmp_path / "none").mkdir()
    settings = fast(tmp_path) | {"model_name": str(tmp_path / "none")}
    with pytest.raises(ModelError):
        manyheads.train(new, overwrite=True, **settings)
    assert contents_of(tmp_path / "saved") == before
    manyheads.train(new, overwrite=True, **fast(tmp_path))
    after = contents_of(tmp_path / "saved")
    assert set(after) == set(before)
    assert after["data/train.jsonl"] != before["data/train.jsonl"]


def test_what_a_killed_start_replaced_is_put_back_by_the_next(tmp_path: Path) -> None:
    old = write_records(tmp_path / "old.jsonl", sentences(30, 3))
    manyheads.train(old, **fast(tmp_path))
    saved = tmp_path / "saved"
    before = contents_of(saved)

    killed = kept_until_ready(saved, overwrite=True)
    killed.__enter__()
    for name in ("config.yaml", "data/train.jsonl", "data/valid.jsonl"):
        (saved / name).unlink()
        (saved / name).write_text("of the other run")
    with pytest.raises(RunMismatch):
        manyheads.train(old, **fast(tmp_path))
    assert contents_of(saved) == before


def test_a_run_that_was_moved_is_scored_on_the_part_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_records(tmp_path / "data.jsonl", sentences(30, 3))
    manyheads.train(path, **fast(tmp_path) | {"save_dir": "saved"})
    (tmp_path / "far").mkdir()
    (tmp_path / "saved").rename(tmp_path / "far/away")
    report = manyheads.evaluate("far/away")
    assert report.data == (str(tmp_path / "far/away/data/valid.jsonl"),)
    # Another run has taken its place.
    other = write_records(tmp_path / "other.jsonl", sentences(30, 9))
    manyheads.train(other, **fast(tmp_path) | {"save_dir": "saved"})
    student = distill_config(["far/away"], None, {})
    assert student.train_file == str(tmp_path / "far/away/data/train.jsonl")
    own = located(manyheads.load("far/away").config, "far/away/best")
    assert own.valid_file == str(tmp_path / "far/away/data/valid.jsonl")


def test_data_of_relative_paths_are_those_beside_the_run_and_not_others_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({
        "train_file": "train.jsonl", "valid_file": "valid.jsonl", "save_dir": "run",
        "tasks": {"intent": {"kind": "classification"}},
    })  # fmt: skip
    here, other = tmp_path / "here", tmp_path / "here/other"
    (here / "run").mkdir(parents=True)
    other.mkdir()
    for folder in (here, other):
        for name in ("train.jsonl", "valid.jsonl"):
            (folder / name).touch()
    for current, run in ((here, "run"), (other, "../run"), (tmp_path, "here/run")):
        monkeypatch.chdir(current)
        own = located(config, run)
        files = (own.train_file, own.valid_file)
        assert [Path(str(one)).resolve().parent for one in files] == [here, here]


def test_a_configuration_without_validation_data_holds_some_out(tmp_path: Path) -> None:
    path = write_records(tmp_path / "data.jsonl", sentences(30, 3))
    config = tmp_path / "config.yaml"
    config.write_text(f"train_file: {path.name}\ntasks: {{ner: {{kind: tagging}}}}\n")
    spy = Spy()
    run = manyheads.train(config, reporter=spy, **fast(tmp_path))
    assert spy.said("Held out")
    assert run.evaluate().data == (str(tmp_path / "saved/data/valid.jsonl"),)


def test_a_part_of_a_tasks_own_file_is_held_out_where_it_has_no_validation_data(
    tmp_path: Path,
) -> None:
    intents = write_records(tmp_path / "intents.jsonl", sentences(30, 3, fields=["label"]))
    tags = write_records(tmp_path / "tags.jsonl", sentences(20, 4, fields=["ner"]))
    valid = write_records(tmp_path / "valid.jsonl", sentences(9, 5, fields=["ner"]))
    settings = fast(tmp_path) | {
        "train_file": str(intents),
        "tasks": {
            "intent": {"kind": "classification"},
            "ner": {"kind": "tagging", "train_file": str(tags), "valid_file": str(valid)},
        },
    }
    spy = Spy()
    train(make_config(settings), reporter=spy)
    parts = tmp_path / "saved/data"
    kept = {path.name: path.read_text(encoding="utf-8").splitlines() for path in parts.iterdir()}
    assert sorted(kept) == ["intent.train.jsonl", "intent.valid.jsonl"]
    held_out = len(kept["intent.valid.jsonl"])
    assert 4 <= held_out <= 6
    assert held_out + len(kept["intent.train.jsonl"]) == 30
    labels = [json.loads(line)["label"] for line in kept["intent.valid.jsonl"]]
    assert min(labels.count(one) for one in ("question", "statement")) >= 2
    assert spy.said(f"Held out {held_out} of 30 records of {intents} for validation")
    report = manyheads.evaluate(tmp_path / "saved")
    assert report.data == (str(parts / "intent.valid.jsonl"), str(valid))
    assert report.evaluation["records"] == held_out + 9
    # The parts are kept, even if the file changes.
    write_records(intents, sentences(50, 6, fields=["label"]))
    spy = Spy()
    train(make_config(settings | {"num_epochs": 2}), resume=True, reporter=spy)
    assert spy.said("The data are those that the run was started with")
    assert spy.said("Resumed after step")
    again = {path.name: path.read_text(encoding="utf-8").splitlines() for path in parts.iterdir()}
    assert again == kept


def test_the_written_configuration_repeats_the_run(trained: Path, tmp_path: Path) -> None:
    path = trained / "saved/config.yaml"
    again = manyheads.train(path, save_dir=str(tmp_path / "again"))
    first = json.loads((trained / "saved/best/manyheads.json").read_text(encoding="utf-8"))
    second = json.loads((again.best / "manyheads.json").read_text(encoding="utf-8"))
    assert first["metrics"] == second["metrics"]


def test_a_resumed_run_keeps_its_parts_when_the_file_has_changed(tmp_path: Path) -> None:
    path = write_records(tmp_path / "data.jsonl", sentences(30, 4))
    manyheads.train([path], **fast(tmp_path))
    parts = tmp_path / "saved/data"
    before = {one.name: one.read_bytes() for one in parts.iterdir()}
    write_records(path, sentences(50, 5))
    spy = Spy()
    result = manyheads.train(
        [path], resume=True, reporter=spy, save_dir=str(tmp_path / "saved"), num_epochs=2
    )
    assert len(result.history) == 2
    assert spy.said("The data are those that the run was started with")
    assert {one.name: one.read_bytes() for one in parts.iterdir()} == before


def test_another_run_in_the_folder_is_not_touched(trained: Path) -> None:
    valid = trained / "saved/data/valid.jsonl"
    before = valid.read_bytes()
    with pytest.raises(RequestError, match="the folder holds another run"):
        manyheads.train(trained / "data.jsonl", **fast(trained, hold_out=0.4))
    assert valid.read_bytes() == before


def test_a_changed_configuration_keeps_its_comments(tmp_path: Path) -> None:
    path = write_records(tmp_path / "data.jsonl", sentences(30, 6))
    chosen = run_config([str(path)], fast(tmp_path), resume=False).config
    train(chosen)
    kept = tmp_path / "saved/config.yaml"
    text = kept.read_text(encoding="utf-8").replace("num_epochs: 1", "num_epochs: 1  # mine")
    kept.write_text(text, encoding="utf-8")
    manyheads.train(kept, overwrite=True)
    assert kept.read_text(encoding="utf-8") == text


def test_a_run_is_not_resumed_with_other_files(trained: Path, tmp_path: Path) -> None:
    for other in (tmp_path / "missing.jsonl", write_records(tmp_path / "other.jsonl", [])):
        with pytest.raises(
            RequestError, match=rf"other data than .*{other.name}; expected .*data\."
        ):
            manyheads.train(other, resume=True, **fast(trained))
    again = manyheads.train(trained / "data.jsonl", resume=True, **fast(trained))
    assert len(again.history) == 1


def test_a_run_is_resumed_with_its_own_files_and_whatever_its_tasks_are_called(
    tmp_path: Path,
) -> None:
    records = [{"text": f"word {n}", "a": "xy"[n % 2], "a_score": n % 5} for n in range(30)]
    data = write_records(tmp_path / "data.jsonl", records)
    tasks = "{a: {kind: classification}, a_score: {kind: regression}}"
    (tmp_path / "config.yaml").write_text(f"train_file: {data.name}\ntasks: {tasks}\n")
    overrides = {"save_dir": tmp_path}
    for paths in ([], [str(data)]):
        config = run_config(paths, overrides, resume=True).config
        assert [*with_parts(config).tasks] == ["a", "a_score"]
    with pytest.raises(RequestError, match=r"other data than .*x\.jsonl; expected .*data\.jsonl"):
        run_config(["x.jsonl"], overrides, resume=True)
    with pytest.raises(ConfigError, match="would share the column"):
        run_config([str(tmp_path / "config.yaml")], overrides, resume=False)


def test_a_run_on_records_is_resumed_with_the_tasks_that_it_was_started_with(
    tmp_path: Path,
) -> None:
    def records(first: int, end: int) -> list[dict[str, Any]]:
        return [{"text": f"word {n}", "intent": "xy"[n % 2]} for n in range(first, end)]

    def stop(epoch: object) -> None:
        raise KeyboardInterrupt

    task = {"kind": "classification", "field": "intent"}
    call = {"valid": records(30, 40), **fast(tmp_path, num_epochs=2)}
    with pytest.raises(KeyboardInterrupt):
        manyheads.train(records(0, 30), tasks={"intent": task}, on_epoch=stop, **call)
    other = {"intent": {**task, "dropout": 0.25}}
    with pytest.raises(RunMismatch, match=r"tasks\.intent\.dropout is 0\.25"):
        manyheads.train(records(0, 30), tasks=other, resume=True, **call)
    same = {"intent": TaskConfig(**task)}
    again = manyheads.train(records(0, 30), tasks=same, resume=True, **call)
    assert len(again.history) == 2


def test_auto_chooses_epochs_and_a_resumed_run_keeps_them(tmp_path: Path) -> None:
    path = write_records(tmp_path / "data.jsonl", sentences(24, 7))
    spy = Spy()
    settings = fast(tmp_path, num_epochs="auto", early_stopping=1, head_learning_rate=0.0)
    result = manyheads.train(path, reporter=spy, **settings, learning_rate=0.0)
    assert spy.said("Training for 40 epochs (`num_epochs: auto`)")
    assert len(result.history) == 2
    again = Spy()
    manyheads.train(path, resume=True, reporter=again, save_dir=str(tmp_path / "saved"))
    assert again.said("is finished; nothing is left to do")


def test_resuming_without_a_run_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no config\.yaml of a run to resume"):
        run_config([], {"save_dir": str(tmp_path)}, resume=True)


def test_a_configuration_and_data_together_are_refused() -> None:
    with pytest.raises(
        RequestError, match=r"a\.yaml is a configuration, and is given together with b\.jsonl"
    ):
        run_config(["a.yaml", "b.jsonl"], {}, resume=False)


def test_the_budget_falls_with_the_number_of_records() -> None:
    sizes = (1, 150, 300, 600, 3_394, 13_084, 1_000_000)
    assert [budget([n], fitted=False) for n in sizes] == [40, 40, 28, 20, 12, 8, 3]
    assert [budget([n], fitted=True) for n in sizes] == [6, 6, 6, 6, 6, 4, 3]
    assert budget([300, 900], fitted=False) == budget([600], fitted=False)


def test_a_run_that_still_improves_is_recognised() -> None:
    def of(*scores: float) -> bool:
        return is_improving([{"score": score} for score in scores])

    assert of(0.5, 0.6, 0.7)
    assert not of(0.5, 0.7, 0.702)
    assert not of(0.5, 0.8, 0.7)
    assert not of(0.5)


def test_scores_in_words_claim_no_share_that_is_only_nearly_reached() -> None:
    spec = TaskSpec("a", "classification", ("x", "y"))

    def said(accuracy: float) -> str:
        return in_words({"a": {"accuracy": accuracy}}, {"a": spec})[0].split(" of ")[0]

    assert [said(share) for share in (0.996, 0.004, 0.5, 1.0, 0.0)] == [
        "a: over 99 %", "a: under 1 %", "a: 50 %", "a: 100 %", "a: 0 %",
    ]  # fmt: skip


def test_scores_of_plain_tags_in_words_speak_of_words() -> None:
    spec = TaskSpec("pos", "tagging", ("NOUN", "VERB"), scheme=Scheme.PLAIN, decoder="linear")
    metrics = {"token_accuracy": 0.708, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert in_words({"pos": metrics}, {"pos": spec}) == [
        "pos: 71 % of the words get the right class"
    ]


def test_scores_in_words_name_the_weakest_labels() -> None:
    report = {"precision": 0.5, "recall": 0.5, "support": 4}
    reports = {"billing": report | {"f1": 0.5}, "other": report | {"f1": 0.95}}
    metrics = {"topic": {"accuracy": 0.9, "per_class": reports}}
    spec = TaskSpec("topic", "classification", ("billing", "other"))
    assert in_words(metrics, {"topic": spec}) == [
        "topic: 90 % of the texts get the right class; weakest: billing (F1 0.50 of 4)"
    ]
