"""Training from a trained model continues its heads, adds new ones and keeps the others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import manyheads
from equal_runs import assert_equal, state_of, stop_at, weights
from manyheads import add_head, load
from manyheads.cli import main
from manyheads.config import Config, load_config
from manyheads.errors import ConfigError, ManyheadsError, RequestError
from manyheads.evaluation import evaluate
from manyheads.inference import Predictor
from manyheads.inference.backends.pytorch import load_trained
from manyheads.modeling import epoch_path, load_checkpoint, save_checkpoint
from manyheads.modeling.cpu.dropout import Dropout
from manyheads.storage import change_calibration, read_manifest
from manyheads.training import train
from scopes import store_scope
from training_setup import Killed, Spy, config, encoder_folder, prepared, sentences, write_records

TEXTS = ["will john eat in paris ?", "mary lives in york", "where is emma ?"]
TASKS: dict[str, Any] = {
    "intent": {"kind": "classification", "field": "label", "labels": ["statement", "question"]},
    "ner": {
        "kind": "tagging", "decoder": "crf", "neck": "bilstm", "neck_size": 8, "reads": "mix",
    },
}  # fmt: skip
TOPIC: dict[str, Any] = {"kind": "classification", "field": "topic"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two tasks, with data for a third one."""
    folder = tmp_path_factory.mktemp("trained")
    for name, count, seed in (("train", 14, 1), ("valid", 8, 2)):
        records = sentences(count, seed)
        for record in records:
            record["topic"] = "rain" if "weather" in record["tokens"] else "people"
        write_records(folder / f"{name}.jsonl", records)
    train(config(folder, tasks=TASKS, num_epochs=2))
    return folder


def going_on(trained: Path, folder: Path, **changes: Any) -> Config:
    """The configuration of a run from the trained model that names only a new task."""
    values = config(trained).model_dump(exclude_unset=True)
    for key in ("model_name", "max_length"):
        del values[key]
    values |= {
        "init_from": str(trained / "saved"), "save_dir": str(folder / "saved"),
        "tasks": {"topic": TOPIC}, **changes,
    }  # fmt: skip
    return load_config(None, values)


def heads_of(path: Path) -> dict[str, Tensor]:
    return dict(load_trained(path).model.heads.state_dict())


def answers(predictor: Predictor, *tasks: str) -> list[tuple[Any, ...]]:
    predictions = predictor.predict(TEXTS, tasks=list(tasks), embed=True)
    return [(*(p.results[task] for task in tasks), p.embedding.tolist()) for p in predictions]


def test_adding_a_task_does_not_change_the_others(trained: Path, tmp_path: Path) -> None:
    spy = Spy()
    train(going_on(trained, tmp_path, freeze="encoder"), reporter=spy)
    assert spy.said("new heads: topic; unchanged heads: intent, ner.")
    before, after = load(trained / "saved"), load(tmp_path / "saved")
    assert [spec.name for spec in after.specs] == ["intent", "ner", "topic"]
    assert answers(before, "intent", "ner") == answers(after, "intent", "ner")
    checkpoint = load(tmp_path / "saved" / "mtl_epoch1.pt")
    assert answers(before, "intent", "ner") == answers(checkpoint, "intent", "ner")
    old, new = heads_of(trained / "saved/best"), heads_of(tmp_path / "saved/best")
    assert_equal(old, {name: new[name] for name in old})
    assert {name.split(".")[0] for name in new.keys() - old.keys()} == {"topic"}
    assert spy.history[0]["metrics"]["drift"]["cosine"] == pytest.approx(1)


def test_tuning_the_encoder_does_not_change_the_carried_heads(
    trained: Path, tmp_path: Path
) -> None:
    train(going_on(trained, tmp_path))
    old, new = heads_of(trained / "saved/best"), heads_of(tmp_path / "saved/best")
    assert_equal(old, {name: new[name] for name in old})
    before, after = load(trained / "saved"), load(tmp_path / "saved")
    assert answers(before, "intent") != answers(after, "intent")


def test_heads_of_named_tasks_continue_from_their_weights(trained: Path, tmp_path: Path) -> None:
    tasks = {"ner": {"kind": "tagging"}, "topic": TOPIC}
    settings = going_on(trained, tmp_path, tasks=tasks)
    run = prepared(settings)
    old = load_trained(trained / "saved/best")
    assert_equal(old.model.head("ner").state_dict(), run.model.head("ner").state_dict())
    assert_equal(
        dict(old.model.encoder.backbone.state_dict()),
        dict(run.model.encoder.backbone.state_dict()),
    )
    assert list(run.model.heads) == ["ner", "topic"]
    # The trained model determines what the configuration leaves open.
    assert (run.config.max_length, run.config.tasks["ner"].neck_size) == (32, 8)
    assert run.config.model_name == str(encoder_folder())
    train(settings)
    new = heads_of(tmp_path / "saved/best")
    assert not torch.equal(new["ner.classifier.weight"], heads_of(trained / "saved/best")
                           ["ner.classifier.weight"])  # fmt: skip


def test_the_order_of_a_trained_heads_labels_is_kept(trained: Path, tmp_path: Path) -> None:
    # In sorted order, like labels found in data, "question" would be first.
    tasks = {"intent": {"kind": "classification", "field": "label"}}
    train(going_on(trained, tmp_path / "found", tasks=tasks))
    listed = {"intent": {**tasks["intent"], "labels": ["question", "statement"]}}
    indexed = [
        {**r, "label": int(r["label"] == "statement")} for r in sentences(14, 1, fields=["label"])
    ]
    file = write_records(tmp_path / "indexed.jsonl", indexed)
    train(going_on(trained, tmp_path / "listed", tasks=listed, train_file=str(file)))
    for name in ("found", "listed"):
        specs = {spec.name: spec.labels for spec in load(tmp_path / name / "saved").specs}
        assert specs["intent"] == ("statement", "question")
    # The configuration's list determines what an index means.
    one, other = (heads_of(tmp_path / name / "saved/best") for name in ("found", "listed"))
    assert_equal(one, other)


def test_data_may_lack_labels_of_a_trained_head(trained: Path, tmp_path: Path) -> None:
    records = [r for r in sentences(20, 3) if r["label"] == "statement"]
    file = write_records(tmp_path / "few.jsonl", records)
    tasks = {"intent": TASKS["intent"] | {"labels": None}}
    train(going_on(trained, tmp_path, tasks=tasks, train_file=str(file)))
    assert load(tmp_path / "saved").specs[-1].labels == ("statement", "question")


def test_a_run_from_a_trained_model_is_resumed_without_that_model(
    trained: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(trained / "saved/best", base)
    changes: dict[str, Any] = {
        "init_from": str(base), "checkpoint_every": 1, "num_epochs": 2, "schedule": "joint",
        "tasks": {"ner": {"kind": "tagging"}, "topic": TOPIC}, "balancing": "pcgrad",
    }  # fmt: skip
    whole = going_on(trained, tmp_path / "whole", **changes)
    stopped = going_on(trained, tmp_path / "stopped", **changes)
    train(whole)
    with pytest.raises(Killed):
        train(stopped, reporter=Spy(stop_at(3)))
    shutil.rmtree(base)
    shutil.rmtree(tmp_path / "whole/saved/best")
    train(whole, resume=True)
    train(stopped, resume=True)
    one, other = (state_of(tmp_path / name / "saved") for name in ("whole", "stopped"))
    for part in ("model", "training", "log"):
        assert_equal(one[part], other[part], part)
    assert_equal(heads_of(tmp_path / "whole/saved/best"), heads_of(tmp_path / "stopped/saved/best"))
    specs = load(tmp_path / "stopped/saved/mtl_epoch2.pt").specs
    assert [spec.name for spec in specs] == ["intent", "ner", "topic"]
    with pytest.raises(RequestError, match="init_from is None and was"):
        train(config(trained, **(stopped.model_dump(exclude_unset=True) | {"init_from": None})),
              resume=True)  # fmt: skip


CALIBRATION = {
    "ece_before": 0.2, "ece": 0.1, "source": "mine",
    "scores": {"method": "temperature", "temperature": 2.0},
}  # fmt: skip


def killed(trained: Path, folder: Path) -> tuple[Config, Path]:
    """Return a run that was killed in its second epoch, and the calibrated model it began with."""
    source = Path(shutil.copytree(trained / "saved/best", folder / "source"))
    change_calibration(read_manifest(source), lambda _: {"tasks": {"intent": CALIBRATION}})
    own = going_on(trained, folder, init_from=str(source), freeze="encoder", num_epochs=2)
    with pytest.raises(Killed):
        train(own, reporter=Spy(stop_at(prepared(own).total_steps // 2 + 1)))
    return own, source


def test_a_resumed_run_keeps_the_calibrations_that_it_began_with(
    trained: Path, tmp_path: Path
) -> None:
    own, source = killed(trained, tmp_path)
    other = {**CALIBRATION, "scores": {"method": "temperature", "temperature": 9.0}}
    change_calibration(read_manifest(source), lambda _: {"tasks": {"intent": other}})
    result = train(own, resume=True)
    assert read_manifest(result.best).calibration["tasks"]["intent"] == CALIBRATION


def test_a_resumed_run_of_an_earlier_version_keeps_the_calibrations_of_its_model(
    trained: Path, tmp_path: Path
) -> None:
    own, source = killed(trained, tmp_path)
    path = epoch_path(own.save_dir, 1)
    contents = load_checkpoint(path)
    state = {k: v for k, v in contents.training.items() if k != "carried_calibrations"}
    assert len(state) < len(contents.training)
    save_checkpoint(path, replace(contents, training=state))
    gone = own.model_copy(update={"save_dir": str(tmp_path / "gone")})
    shutil.copytree(own.save_dir, gone.save_dir)
    for run, kept in ((own, {"intent": CALIBRATION}), (gone, {})):
        found = read_manifest(train(run, resume=True).best).calibration["tasks"]
        assert {name: found[name] for name in ("intent", "ner") if name in found} == kept
        shutil.rmtree(source, ignore_errors=True)


def test_carried_tasks_are_evaluated_and_carried_again(trained: Path, tmp_path: Path) -> None:
    train(going_on(trained, tmp_path / "one", freeze="encoder"))
    tasks = {"ask": TASKS["intent"]}
    first = str(tmp_path / "one/saved/best")
    train(going_on(trained, tmp_path / "two", tasks=tasks, init_from=first, freeze="encoder"))
    found = evaluate(tmp_path / "two/saved/best").evaluation
    assert list(found["tasks"]) == ["intent", "ner", "topic", "ask"]
    assert found["tasks"]["ner"] == evaluate(trained / "saved/best").evaluation["tasks"]["ner"]
    assert found["drift"]["cosine"] == pytest.approx(1)
    assert answers(load(trained / "saved"), "ner") == answers(load(tmp_path / "two/saved"), "ner")


def test_a_carried_task_needs_no_data(trained: Path, tmp_path: Path) -> None:
    files = {f"{part}_file": str(trained / f"{part}.jsonl") for part in ("train", "valid")}
    pairs = write_records(
        tmp_path / "pairs.jsonl",
        [{"text": "a", "text2": "b", "score": i / 4} for i in range(5)],
    )
    tasks = {
        "intent": {**TASKS["intent"], **files, "batch_size": 2, "ratio": 2, "max_records": 9},
        "like": {"kind": "similarity", "train_file": str(pairs), "valid_file": str(pairs)},
    }
    train(config(tmp_path, tasks=tasks, schedule="ratios"))
    settings = going_on(
        trained, tmp_path / "next", init_from=str(tmp_path / "saved"), freeze="encoder",
        schedule="joint", tasks={"topic": TOPIC, "ner": {"kind": "tagging"}},
    )  # fmt: skip
    train(settings)
    contents = load_checkpoint(epoch_path(settings.save_dir, 1))
    assert contents.config["tasks"]["intent"]["carried"]
    assert contents.config["tasks"]["intent"]["valid_file"] == files["valid_file"]
    specs = load(settings.save_dir).specs
    assert [spec.name for spec in specs] == ["intent", "like", "topic", "ner"]


NER = {"kind": "tagging"}


def test_a_frozen_head_does_not_change_while_its_loss_tunes_the_encoder(
    trained: Path, tmp_path: Path
) -> None:
    tasks = {"ner": NER | {"frozen": True, "dropout": 0.5}}
    settings = going_on(trained, tmp_path, tasks=tasks, weight_decay=0.1)
    train(settings)
    contents = load_checkpoint(epoch_path(settings.save_dir, 1))
    old = load_trained(trained / "saved/best").model.state_dict()
    changed = {n for n, t in contents.model.items() if not torch.equal(t, old[n])}
    assert changed == {n for n in old if n.startswith("encoder.") and ".pooler." not in n}
    optimizer = contents.training["optimizer"]
    assert {n for group in optimizer["param_groups"] for n in group["names"]} == changed
    before, after = load(trained / "saved"), load(tmp_path / "saved")
    assert answers(before, "ner") != answers(after, "ner")


@pytest.mark.parametrize("schedule", ["joint", "ratios"])
def test_a_frozen_head_on_a_frozen_encoder_predicts_the_same_while_another_is_tuned(
    trained: Path, tmp_path: Path, schedule: str
) -> None:
    ratio = {"ratio": 2} if schedule == "ratios" else {}
    tasks = {"ner": NER | {"frozen": True}, "intent": TASKS["intent"], "topic": TOPIC | ratio}
    settings = going_on(
        trained, tmp_path, tasks=tasks, freeze="encoder", schedule=schedule, num_epochs=2
    )
    spy = Spy()
    train(settings, reporter=spy)
    assert spy.said("the heads of ner are frozen")
    assert set(spy.sentences) == {"intent", "topic"}
    scores = [entry["metrics"]["tasks"]["ner"] for entry in spy.history]
    assert scores == [evaluate(trained / "saved").evaluation["tasks"]["ner"]] * 2
    before, after = load(trained / "saved"), load(tmp_path / "saved")
    assert answers(before, "ner") == answers(after, "ner")
    assert answers(before, "intent") != answers(after, "intent")


def test_gradients_reach_the_encoder_through_a_frozen_head_without_dropout(
    trained: Path, tmp_path: Path
) -> None:
    tasks = {"ner": NER | {"frozen": True}, "topic": TOPIC}
    settings = going_on(trained, tmp_path, tasks=tasks)
    run = prepared(settings)
    run.freezing.train_mode()
    for name, frozen in (("ner", True), ("topic", False)):
        dropping = [m for m in run.model.head(name).modules() if isinstance(m, Dropout)]
        assert dropping
        assert all(module.training != frozen for module in dropping)
        assert all(p.requires_grad != frozen for p in run.model.head(name).parameters())
    # cuDNN has a backward pass through recurrent layers only in this mode.
    recurrent = [m for m in run.model.head("ner").modules() if isinstance(m, torch.nn.LSTM)]
    assert recurrent
    assert all(module.training for module in recurrent)


def test_a_run_with_a_frozen_head_is_resumed_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    tasks = {"ner": NER | {"frozen": True}, "topic": TOPIC}
    changes: dict[str, Any] = {"tasks": tasks, "checkpoint_every": 1, "balancing": "uncertainty"}
    whole, stopped = (going_on(trained, tmp_path / n, **changes) for n in ("whole", "stopped"))
    train(whole)
    with pytest.raises(Killed):
        train(stopped, reporter=Spy(stop_at(3)))
    train(stopped, resume=True)
    one, other = (state_of(tmp_path / name / "saved", 1) for name in ("whole", "stopped"))
    for part in ("model", "training", "log"):
        assert_equal(one[part], other[part], part)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"ner": {"kind": "classification", "field": "label"}}},
         r"`tasks\.ner\.kind` is classification, but the head of this name in `init_from` \(.*\) "
         "was trained with tagging.*use another task name"),
        ({"tasks": {"ner": NER | {"neck": "none"}}},
         r"`tasks\.ner\.neck` is none, but .* with bilstm.*leave `neck` out"),
        ({"tasks": {"intent": {"kind": "classification", "field": "label", "pooling": ["mean"]}}},
         r"`tasks\.intent\.pooling` is \['mean'\], but .* with \['sentence'\]"),
        ({"tasks": {"intent": TASKS["intent"] | {"labels": ["question", "statement", "other"]}}},
         r"`tasks\.intent\.labels`: the list has other, but .*expected its labels: statement, "),
        ({"tasks": {"intent": {"kind": "classification", "field": "topic"}}},
         r"`tasks\.intent\.labels`: the training data has people, rain, but the head in"),
        ({"model_name": "another/encoder"},
         r"`model_name` is another/encoder, but the model in `init_from` started from .*encoder"),
        ({"pooling": "cls"}, "`pooling` is cls, but the model in `init_from` was trained with me"),
        ({"tasks": {"topic": TOPIC | {"carried": True}}},
         r"`tasks\.topic\.carried` is true, which only a trained model may set"),
        ({"init_from": "nowhere"}, "nowhere: there is no such model"),
        ({"tasks": {"nerr": NER | {"frozen": True}}},
         r"`tasks\.nerr\.frozen` is true, but the model in `init_from` \(.*\) has no task 'nerr' "
         r"\(did you mean .ner.\?\), and a new head has learned nothing yet"),
        ({"tasks": {"intent_score": TOPIC}},
         r"with the model in `init_from` \(.*\), the tasks 'intent' and 'intent_score' would"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_trained_model_are_refused(
    trained: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManyheadsError, match=message):
        train(going_on(trained, tmp_path, **changes))
    assert not list((tmp_path / "saved").glob("*.pt"))


def test_a_list_of_labels_must_be_the_heads_own(trained: Path, tmp_path: Path) -> None:
    few = [r for r in sentences(20, 3) if r["label"] == "statement"]
    file = write_records(tmp_path / "few.jsonl", few)
    tasks = {"intent": TASKS["intent"] | {"labels": ["statement"]}}
    with pytest.raises(ConfigError, match=r"`tasks\.intent\.labels`: the list lacks question"):
        train(going_on(trained, tmp_path, tasks=tasks, train_file=str(file)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": {"ner": NER | {"frozen": True}}},
         r"`tasks\.ner\.frozen` is true, but a new head has learned nothing yet; set `init_from`"),
        ({"tasks": {"ner": NER | {"frozen": True}}, "init_from": "a", "freeze": "encoder"},
         r"nothing is trained: the encoder is frozen \(`freeze: encoder`\), and so .* \(ner\)"),
        ({"tasks": {"pairs": {"kind": "similarity", "frozen": True}}, "init_from": "a"},
         "`frozen` is for classification"),
    ],
)  # fmt: skip
def test_freezing_a_head_that_was_not_trained_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_a_different_length_of_inputs_is_reported(trained: Path, tmp_path: Path) -> None:
    spy = Spy()
    train(going_on(trained, tmp_path, max_length=16), reporter=spy)
    assert spy.said("warning: `max_length` is 16 and was 32 in the trained model")


def arguments(trained: Path, folder: Path, *more: str) -> list[str]:
    return [
        "add-head", str(trained / "saved"), "--task", "topic", "--kind", "classification",
        "--field", "topic", "--train", str(trained / "train.jsonl"),
        "--valid", str(trained / "valid.jsonl"), "--output", str(folder / "added"),
        "--threads", "1", "--epochs", "1", *more,
    ]  # fmt: skip


def test_a_head_is_added_from_the_command_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(trained, tmp_path, "--set", "tasks.topic.hidden=8")) == 0
    assert str(tmp_path / "added/best") in capsys.readouterr().out
    before, after = load(trained / "saved"), load(tmp_path / "added")
    assert answers(before, "intent", "ner") == answers(after, "intent", "ner")
    assert [spec.name for spec in after.specs] == ["intent", "ner", "topic"]
    stored = load_checkpoint(epoch_path(tmp_path / "added", 1)).config
    assert (stored["freeze"], stored["tasks"]["topic"]["hidden"]) == ("encoder", 8)
    for command in (["info"], ["evaluate"], ["predict"]):
        more = ["john lives in york"] if command == ["predict"] else []
        assert main([*command, str(tmp_path / "added/best"), *more]) == 0
        assert "topic" in capsys.readouterr().out
    assert main(arguments(trained, tmp_path)) == 2
    assert "the folder holds another run" in capsys.readouterr().err
    assert main(arguments(trained, tmp_path, "--resume", "--set", "tasks.topic.hidden=8")) == 0


def test_a_head_is_added_from_python(trained: Path, tmp_path: Path) -> None:
    result = add_head(
        trained / "saved/best", "topic", kind="classification", save_dir=tmp_path / "added",
        train_file=trained / "train.jsonl", valid_file=trained / "valid.jsonl",
        task_settings={"field": "topic"}, num_epochs=1, threads=1,
    )  # fmt: skip
    before, after = load(trained / "saved"), load(result.best)
    assert answers(before, "intent", "ner") == answers(after, "intent", "ner")


def test_a_new_head_leaves_the_scope_of_another_task_as_it_is(
    trained: Path, tmp_path: Path
) -> None:
    scoped = Path(shutil.copytree(trained / "saved/best", tmp_path / "scoped"))
    store_scope(scoped, "intent", unknown=2)
    before = read_manifest(scoped).calibration["scope"]
    result = add_head(
        scoped, "topic", kind="classification", save_dir=tmp_path / "added",
        train_file=trained / "train.jsonl", valid_file=trained / "valid.jsonl",
        task_settings={"field": "topic"}, num_epochs=1, threads=1,
    )  # fmt: skip
    assert read_manifest(result.best).calibration["scope"] == before
    texts = ["john lives in paris", "7 + 8"]
    old, new = (manyheads.load(path, threads=1).predict(texts) for path in (scoped, result.best))
    assert [one.in_scope for one in new] == [one.in_scope for one in old]
    # A resumed run has it from its own checkpoint.
    shutil.rmtree(scoped)
    shutil.rmtree(result.best)
    again = add_head(
        scoped, "topic", kind="classification", save_dir=tmp_path / "added",
        train_file=trained / "train.jsonl", valid_file=trained / "valid.jsonl",
        task_settings={"field": "topic"}, num_epochs=2, threads=1, resume=True,
    )  # fmt: skip
    assert read_manifest(again.best).calibration["scope"] == before


def test_without_validation_data_a_part_of_the_new_heads_is_held_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(trained, tmp_path)
    number = given.index("--valid")
    assert main([*given[:number], *given[number + 2 :]]) == 0
    assert "Held out" in capsys.readouterr().err
    for name in ("train", "valid"):
        assert (tmp_path / f"added/data/topic.{name}.jsonl").stat().st_size
    before, after = load(trained / "saved"), load(tmp_path / "added")
    assert answers(before, "intent", "ner") == answers(after, "intent", "ner")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task", "ner"], "the model has a task 'ner' already; expected another name than: inte"),
        (["--kind", "similarity"], "`tasks.topic` trains the sentence embedding, which `freeze: e"),
        (["--set", "tasks.topic.neck=bilstm"], "`neck` is for tagging tasks only"),
        (["--model-name", "x"], "there is no option --model-name"),
        (
            ["--kind", "clasification"],
            "`tasks.topic.kind` is 'clasification' (did you mean",
        ),
        (
            ["--set", "init_from=x"],
            "`init_from` is set to 'x'; expected a value taken from the model and",
        ),
        (
            ["--set", "tasks={topic: {hidden: 16}}"],
            "set fields of the new task with `--set tasks.topic.KEY=VALUE`, or use `manyheads tra",
        ),
        (["--set", "save_dir=x"], "--set save_dir sets save_dir a second time"),
    ],
)
def test_a_head_that_cannot_be_added_is_refused(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert main(arguments(trained, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "added").glob("*.pt"))


def test_in_python_the_refusal_of_tasks_names_the_argument_for_the_new_one(tmp_path: Path) -> None:
    message = r"set fields of the new task with `task_settings=\{KEY: VALUE\}`, or use manyheads.tr"
    with pytest.raises(RequestError, match=message):
        add_head(
            tmp_path, "topic", kind="classification", train_file=tmp_path / "train.jsonl",
            save_dir=tmp_path / "added", tasks={"topic": {"hidden": 16}},
        )  # fmt: skip


def test_data_are_checked_with_the_length_that_the_trained_model_reads(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"text": "john " * 40, "topic": "long"}, {"text": "paris", "topic": "short"}]
    file = write_records(tmp_path / "train.jsonl", records)
    (tmp_path / "config.yaml").write_text(
        f"init_from: {trained / 'saved'}\ntrain_file: {file}\n"
        f"valid_file: {trained / 'valid.jsonl'}\n"
        "tasks: {topic: {kind: classification, field: topic}}\n",
        encoding="utf-8",
    )
    main(["data", "check", "--config", str(tmp_path / "config.yaml")])
    told = capsys.readouterr()
    assert "truncation is not checked" not in told.err
    assert "longer than 32 sub-tokens" in " ".join(told.out.split())


def test_a_run_does_not_replace_the_model_that_it_starts_from(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "saved", tmp_path / "saved")
    own = str(tmp_path / "saved")
    with pytest.raises(RequestError, match=r"`init_from` \(.*\) lies in `save_dir`"):
        train(going_on(trained, tmp_path, init_from=own), overwrite=True)
    load(own)


def test_the_path_of_a_trained_model_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("init_from: saved\n", encoding="utf-8")
    assert load_config(tmp_path / "config.yaml").init_from == str(tmp_path / "saved")


@pytest.fixture(scope="module")
def layered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose heads have their own layers, on the same data."""
    folder = tmp_path_factory.mktemp("layered")
    values = config(trained, tasks=TASKS, freeze="encoder", head_layers=1).model_dump(
        exclude_unset=True
    )
    train(load_config(None, {**values, "save_dir": str(folder / "saved")}))
    return folder


def layers_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith("head_layers.")}


@pytest.mark.parametrize("named", [False, True], ids=["carried", "named"])
def test_layers_of_the_heads_are_inherited_and_trained_unless_a_head_is_frozen(
    trained: Path, layered: Path, tmp_path: Path, named: bool
) -> None:
    tasks = {**(TASKS if named else {}), "topic": TOPIC}
    made = going_on(
        trained, tmp_path, init_from=str(layered / "saved"), tasks=tasks, freeze="encoder",
        num_epochs=2,
    )  # fmt: skip
    before = load_trained(layered / "saved" / "best").model
    old = load(layered / "saved").predict(TEXTS, embed=True)
    with pytest.raises(Killed):
        train(made, reporter=Spy(stop_at(6)))
    result = train(made, resume=True)
    after = layers_of(weights(result.save_dir, 2))
    assert after
    for name, value in layers_of(before.state_dict()).items():
        assert torch.equal(after[name], value) is not named, name
    new = load(result.best).predict(TEXTS, embed=True)
    for one, other in zip(old, new, strict=True):
        assert np.array_equal(one.embedding, other.embedding)
        if not named:
            assert other.to_json().items() >= one.to_json().items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": "encoder", "head_layers": 2}, r"`head_layers` is 2, but.*trained with 1"),
        ({"freeze": "none"}, r"has layers for its heads.*freeze: encoder"),
    ],
)
def test_layers_of_the_heads_that_do_not_fit_are_refused(
    trained: Path, layered: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(going_on(trained, tmp_path, init_from=str(layered / "saved"), **changes))
