"""From training to predictions with calibrated scores, on every backend."""

from __future__ import annotations

import copy
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import manyheads
from files import write
from manyheads.api import export
from manyheads.cli import main
from manyheads.data.readers import layout_of_texts, read_rows
from manyheads.errors import DataError, ManyheadsError, ModelError, RequestError
from manyheads.evaluation import trust
from manyheads.inference import Runtime, load_model, store_calibration
from manyheads.inference.trust import read_scorings
from manyheads.storage import LAYOUT, add_files, change_calibration, read_manifest
from manyheads.tasks import Temperature
from tiny import tiny_encoder_folder

NAMES = ("john", "mary", "ravi", "anna")
SENTENCES = {
    "asked": "where is NAME",
    "told": "NAME lives in paris",
    "wanted": "play the new song by NAME",
}


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Sentences of which one in ten has a wrong label, so that no certainty is justified."""
    draw = random.Random(seed)
    for _ in range(count):
        name, label = draw.choice(NAMES), draw.choice([*SENTENCES])
        tokens = [name if word == "NAME" else word for word in SENTENCES[label].split()]
        if draw.random() > 0.9:
            label = draw.choice([other for other in SENTENCES if other != label])
        tags = ["B-PER" if token in NAMES else "O" for token in tokens]
        yield {"tokens": tokens, "label": label, "ner": tags}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    tiny_encoder_folder(folder / "encoder")
    model = manyheads.train(
        list(records(120, 1)), valid=list(records(150, 2)), model_name=str(folder / "encoder"),
        save_dir=str(folder / "run"), num_epochs=2, learning_rate=3e-3, max_length=16,
        head_learning_rate=3e-2, precision="float32", threads=1, progress=False,
    )  # fmt: skip
    best: Path = model.best
    return best


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_training_calibrates_and_names_the_records(trained: Path) -> None:
    tasks = read_manifest(trained).calibration["tasks"]
    assert tasks["classification"]["scores"]["method"] == "temperature"
    assert tasks["ner"]["scores"]["method"] in ("platt", "isotonic")
    assert "validation records" in tasks["classification"]["source"]
    # Of so few answers it differs by chance.
    assert tasks["classification"]["ece"] < tasks["classification"]["ece_before"] + 0.1
    assert "calibrated" in (trained / "README.md").read_text()
    # One label in ten is wrong, and the calibrated scores show it.
    (found,) = manyheads.load(trained).predict(["where is john"])
    assert 0.6 < found["classification"].score < 0.97


def test_a_saved_model_predicts_what_is_in_scope(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = manyheads.load(trained)
    known = model.predict([" ".join(r["tokens"]) for r in records(40, 8)])
    strange = model.predict(["table rain monday weather", "good bad good not very good", "7 + 8"])
    assert all(0 <= p.in_scope <= 1 for p in (*known, *strange))
    assert sum(p.in_scope > 0.5 for p in known) > 30
    assert max(p.in_scope for p in strange) < min(p.in_scope for p in known)
    assert known[0].to_json()["in_scope"] == pytest.approx(known[0].in_scope, abs=1e-5)
    assert main(["info", str(trained)]) == 0
    assert "in_scope is about the classes of classification" in capsys.readouterr().out


def scope_file(model: Path) -> str:
    name: str = read_manifest(model).calibration["scope"]["file"]
    return name


def scope_files(model: Path) -> list[str]:
    return sorted(path.name for path in model.glob("scope*"))


def stored_scope(model: Path) -> dict[str, np.ndarray]:
    return load_tensors((model / scope_file(model)).read_bytes())


def replace_scope(model: Path, contents: bytes) -> None:
    add_files(read_manifest(model), {scope_file(model): contents})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("whitening", lambda t: t[:1, 0].reshape(()), r"float32 \(\) as whitening"),
        ("whitening", lambda t: t[:-1], r"float32 \(31, 32\) as whitening of its scope"),
        ("centres", lambda t: t[:2], r"as centres of its scope"),
        ("weights", lambda t: t.astype(np.float64), r"float64 \(6,\) as weights"),
        ("middle", lambda _: None, "nothing as middle"),
        ("weights", lambda t: t * np.nan, "out of range as weights"),
        ("centres", lambda t: t + np.inf, "out of range as centres"),
        ("middle", lambda t: t + np.float32(1e30), "out of range as middle"),
    ],
)
def test_a_hostile_scope_is_refused(
    model: Path, name: str, change: Callable[[np.ndarray], np.ndarray | None], message: str
) -> None:
    tensors = stored_scope(model)
    changed = change(tensors.pop(name))
    tensors |= {} if changed is None else {name: changed}
    replace_scope(model, save_tensors(tensors))
    with pytest.raises(ModelError, match=message):
        load_model(model, Runtime("torch"))


def test_a_scope_of_an_earlier_version_has_no_direction(model: Path) -> None:
    texts = ["where is john", "table rain monday weather"]
    before = [p.in_scope for p in manyheads.load(model).predict(texts)]
    tensors = stored_scope(model)
    assert not tensors.pop("direction").any()
    manifest = read_manifest(model)
    entry = {k: v for k, v in manifest.calibration["scope"].items() if k != "file"}
    add_files(
        manifest, {"scope.safetensors": save_tensors(tensors)}, remove=[scope_file(model)],
        calibration=lambda known: {**known, "scope": entry},
    )  # fmt: skip
    assert [p.in_scope for p in manyheads.load(model).predict(texts)] == before


def test_a_model_has_a_scope_at_every_moment_of_its_calibration(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyheads.storage import manifest_update

    write, moments = manifest_update.write_bytes, []
    earlier = scope_file(model)

    def observed(path: Path, data: bytes) -> None:
        write(path, data)
        moments.append(load_model(model, Runtime("torch")).predictor.scope is not None)

    monkeypatch.setattr(manifest_update, "write_bytes", observed)
    for seed in (2, 2, 5):
        manyheads.calibrate(model, records(120, seed))
    assert len(moments) >= 5
    assert all(moments)
    read_manifest(model).verify()
    assert scope_file(model) != earlier
    assert scope_files(model) == [scope_file(model)]


def test_a_stopped_calibration_leaves_no_scope_after_the_next_one(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyheads.storage import manifest_update

    write = manifest_update.write_bytes

    def stopped(path: Path, data: bytes) -> None:
        if path.name == LAYOUT.manifest:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as once:
        once.setattr(manifest_update, "write_bytes", stopped)
        with pytest.raises(KeyboardInterrupt):
            manyheads.calibrate(model, records(120, 5))
    assert len(scope_files(model)) == 2
    manyheads.calibrate(model, records(120, 6))
    assert scope_files(model) == [scope_file(model)]


def test_of_calibrations_at_the_same_time_one_scope_stays(model: Path) -> None:
    begun = read_manifest(model)
    scope = load_model(model, Runtime("torch")).predictor.scope
    assert scope is not None
    for factor in (2, 3):
        other = replace(scope, weights=factor * scope.weights)
        store_calibration(begun, dict, other, "validation records")
    manifest = read_manifest(model)
    manifest.verify()
    assert scope_files(model) == [scope_file(model)]
    assert [name for name in manifest.files if "scope" in name] == [scope_file(model)]
    store_calibration(begun, lambda known: {"tasks": known["tasks"]}, None, "")
    assert scope_files(model) == []


def test_the_file_of_a_scope_is_no_other_file(model: Path) -> None:
    def change(known: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**known, "scope": {**known["scope"], "file": "heads.safetensors"}}

    change_calibration(read_manifest(model), change)
    with pytest.raises(ModelError, match=r"'heads\.safetensors' as the file of its scope"):
        load_model(model, Runtime("torch"))


def test_a_scope_file_that_is_missing_cut_or_too_large_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model / scope_file(model)
    contents = file.read_bytes()
    with monkeypatch.context() as small:
        small.setattr("manyheads.inference.trust._MOST_BYTES", 100)
        with pytest.raises(ManyheadsError, match=r"too large|more than|at most"):
            load_model(model, Runtime("torch"))
    replace_scope(model, contents[:-8])
    with pytest.raises(ModelError, match=r"scope-\w+\.safetensors"):
        load_model(model, Runtime("torch"))
    file.unlink()
    with pytest.raises(ModelError, match=r"scope-\w+\.safetensors"):
        load_model(model, Runtime("torch"))


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (["the moon is red", "who: is it?", "a|b"], 3),
        (["__label__odd the moon is red", "__label__odd it is wet"], 2),
    ],
)
def test_texts_out_of_scope_may_be_lines_unless_they_have_labels(
    tmp_path: Path, lines: list[str], texts: int
) -> None:
    path = tmp_path / "others.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = [row.fields["text"] for row in read_rows(path, layout=layout_of_texts(path))]
    assert len(found) == texts
    assert found[0] == "the moon is red"
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "none.txt", layout=layout_of_texts(tmp_path / "none.txt")))


def test_texts_out_of_scope_are_read_whatever_their_annotation(model: Path, tmp_path: Path) -> None:
    answers = ["accept", "reject", "ignore"]
    path = write(tmp_path / "x.jsonl", *({"text": f"new {a}", "answer": a} for a in answers))
    manyheads.calibrate(model, list(records(150, 2)), unknown=path)
    assert read_manifest(model).calibration["scope"]["unknown"] == 3


def test_a_graph_of_8_bits_is_read_with_the_calibration_of_its_own(model: Path) -> None:
    manifest = read_manifest(model)
    own = {"classification": {"scores": {"method": "temperature", "temperature": 3.5}}}
    change_calibration(
        read_manifest(model), lambda _: {**manifest.calibration, "backends": {"onnx-int8": own}}
    )
    specs = load_model(model, Runtime("torch")).predictor.specs
    manifest = read_manifest(model)
    usual, int8 = (read_scorings(manifest, specs, name) for name in ("onnx", "onnx-int8"))
    assert int8["classification"].calibration == Temperature(3.5)
    assert int8["classification"].calibration != usual["classification"].calibration
    # A backend without its own calibration has that of the model.
    assert int8["ner"] == usual["ner"]


def test_the_history_has_the_score_without_each_fold(trained: Path) -> None:
    lines = (trained.parent / "metrics.jsonl").read_text().splitlines()
    epochs = [e for e in map(json.loads, lines) if e["event"] == "epoch"]
    assert [len(e["score_without_fold"]) for e in epochs] == [5, 5]


def test_every_backend_gives_the_same_calibrated_scores(model: Path) -> None:
    result = export(
        model, formats=["float32"], data=list(records(60, 3)), threads=1, progress=False
    )
    assert result.kept
    texts = ["where is john", "mary lives in paris"]
    torch, onnx = (load_model(model, Runtime(b, threads=1)).predictor for b in ("torch", "onnx"))
    assert torch.scorings == onnx.scorings != {}
    for one, other in zip(torch.predict(texts), onnx.predict(texts), strict=True):
        assert one["classification"].score == pytest.approx(other["classification"].score, abs=1e-4)
        assert list(one["ner"].scores()) == pytest.approx(list(other["ner"].scores()), abs=1e-4)


def test_thresholds_are_found_and_kept_and_leave_the_rest_undecided(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "more.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in records(400, 4)))
    assert main(["thresholds", str(model), "--map", "said=text"]) == 2
    assert "the layout of a file is given, but no file" in capsys.readouterr().err
    command = ["thresholds", str(model), "--file", str(data), "--precision", "0.8"]
    assert main(command) == 0
    assert "a precision of 0.8" in capsys.readouterr().out
    stored = read_manifest(model).calibration["tasks"]["classification"]["thresholds"]
    assert stored["precision"] == 0.8
    fresh = manyheads.load(model).predict([" ".join(r["tokens"]) for r in records(50, 5)])
    assert sum(p["classification"].label is not None for p in fresh) > 20
    # Where one label in ten is wrong, no score can promise this.
    assert main([*command[:-1], "0.99"]) == 1
    assert "no score of 400 records" in capsys.readouterr().out
    assert read_manifest(model).calibration["tasks"]["classification"]["thresholds"] is None


def test_answers_for_unknown_classes_are_judged_as_wrong(model: Path) -> None:
    strange = [{"text": f"table number {i}", "label": "other"} for i in range(60)]
    known = list(records(60, 4))
    with pytest.warns(UserWarning, match=r"counted as errors: 60 labels .*: other \(60\)"):
        found = manyheads.calibrate(model, known + strange, threads=1)
    assert found.tasks["classification"].answers == 120


def test_records_that_the_model_was_trained_on_neither_calibrate_nor_set_thresholds(
    model: Path, trained: Path
) -> None:
    learned, new = list(records(120, 1)), list(records(400, 9))
    run = trained.parent
    message = "trained on the texts of 120 of the 120 records; .* leave out `data` to use the"
    with pytest.raises(DataError, match=message):
        manyheads.calibrate(run, learned, threads=1)
    with pytest.raises(DataError, match=message):
        manyheads.thresholds(run, learned, precision=0.7, threads=1)
    # Of a task without a label in the file, nothing was learned from it.
    tagged = [{"tokens": ["so", *one["tokens"]], "ner": ["O", *one["ner"]]} for one in new[:60]]
    manyheads.calibrate(run, tagged, threads=1)
    with pytest.warns(UserWarning, match="trained on the texts of 120 of the 120 records"):
        manyheads.evaluate(run, learned, drift=False, threads=1)
    # A copy elsewhere may not open the files that its configuration names.
    manyheads.calibrate(model, learned, threads=1)


def test_tasks_without_labels_keep_their_calibration_thresholds_and_scope(model: Path) -> None:
    manyheads.thresholds(model, list(records(400, 4)), precision=0.8, threads=1)
    before = read_manifest(model).calibration
    vectors = stored_scope(model)
    tagged = [{"tokens": one["tokens"], "ner": one["ner"]} for one in records(200, 6)]
    with pytest.warns(UserWarning, match="the thresholds of ner, which were for the scores before"):
        manyheads.calibrate(model, tagged, threads=1)
    after = read_manifest(model).calibration
    assert after["tasks"]["classification"] == before["tasks"]["classification"]
    assert after["tasks"]["ner"] != before["tasks"]["ner"]
    assert after["scope"] == before["scope"]
    assert all((stored_scope(model)[name] == value).all() for name, value in vectors.items())


def test_a_new_calibration_says_that_it_removes_thresholds(model: Path) -> None:
    manyheads.thresholds(model, list(records(400, 4)), precision=0.8, threads=1)
    with pytest.warns(UserWarning, match="the thresholds of classification, ner, .* are removed"):
        manyheads.calibrate(model, list(records(100, 5)), threads=1)
    manyheads.calibrate(model, list(records(100, 5)), threads=1)


def test_a_model_of_an_earlier_version_is_reported_as_not_calibrated(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_calibration(read_manifest(model), lambda _: {})
    assert main(["info", str(model)]) == 0
    assert "not calibrated" in capsys.readouterr().out
    assert "not calibrated" in (model / "README.md").read_text()
    report = manyheads.evaluate(model, list(records(30, 6)), backend="torch")
    assert report.to_json()["tasks"]["classification"]["confidence"]["calibrated"] is False
    with pytest.raises(
        ModelError, match=r"is not calibrated.*Run: manyheads.calibrate\('.*', DATA\)"
    ):
        manyheads.thresholds(model, list(records(30, 6)))
    manyheads.calibrate(model, list(records(60, 6)), threads=1)
    report = manyheads.evaluate(model, list(records(30, 7)), backend="torch")
    assert report.confidence["classification"]["calibrated"] is True


def calibrated(**fields: Any) -> dict[str, Any]:
    """One task's entry in a manifest."""
    scores = {"method": "temperature", "temperature": 1.0}
    return {"scores": scores, "source": "records", "ece_before": 0.2, "ece": 0.1, **fields}


LIMITS = {"precision": 0.9, "confidence": 0.9, "score": 0.5, "labels": {}}


@pytest.mark.parametrize(
    "tasks",
    [
        [],
        {"ner": calibrated()},
        {"other": calibrated()},
        {"classification": calibrated(scores={"method": "temperature", "temperature": -1})},
        {"classification": calibrated(thresholds=LIMITS | {"precision": 2.0})},
        # More than any float.
        {"classification": calibrated(thresholds=LIMITS | {"confidence": 10**400})},
        {"classification": calibrated(thresholds=LIMITS | {"precision": 10**400})},
        {"classification": calibrated(ece=None)},
        {"classification": calibrated(source=1)},
        {"classification": {}},
    ],
)
def test_a_hostile_calibration_is_refused(model: Path, tasks: Any) -> None:
    set_calibration_raw(model, {"tasks": tasks})
    with pytest.raises(ManyheadsError, match=r"calibration has|thresholds are|as calibration\."):
        load_model(model, Runtime("torch"))


def set_calibration_raw(model: Path, calibration: dict[str, Any]) -> None:
    """Write a calibration as an attacker would, with a seal that is right."""
    (model / "README.md").unlink()
    change_calibration(read_manifest(model), lambda _: calibration)


@pytest.mark.parametrize("verb", ["calibrate", "thresholds"])
def test_a_graph_that_is_exported_meanwhile_keeps_its_calibrations(
    verb: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"classification": {"scores": {"method": "temperature", "temperature": 3.0}}}
    score = trust.score

    def export_meanwhile(*arguments: Any, **options: Any) -> Any:
        change_calibration(
            read_manifest(model), lambda known: {**known, "backends": {"onnx-int8": own}}
        )
        return score(*arguments, **options)

    monkeypatch.setattr(trust, "score", export_meanwhile)
    getattr(manyheads, verb)(model, list(records(60, 6)), threads=1)
    assert read_manifest(model).calibration["backends"] == {"onnx-int8": own}


def test_thresholds_for_a_calibration_that_was_replaced_meanwhile_are_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = trust.find_thresholds

    def calibrate_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(trust, "find_thresholds", find)
        manyheads.calibrate(model, list(records(60, 6)), threads=1)
        return find(*arguments)

    monkeypatch.setattr(trust, "find_thresholds", calibrate_meanwhile)
    with pytest.raises(ModelError, match=r"calibrated anew meanwhile.*Find the thresholds again"):
        manyheads.thresholds(model, list(records(60, 7)), threads=1)
    tasks = read_manifest(model).calibration["tasks"].values()
    assert not any(task.get("thresholds") for task in tasks)


def test_a_model_that_is_calibrated_again_predicts_with_that_at_once(model: Path) -> None:
    used = manyheads.load(model, threads=1)
    before = used.predict_proba(["mary lives in paris"], "classification")
    module = used.module
    manyheads.calibrate(used, list(records(60, 5)), threads=1)
    fresh = manyheads.load(model, threads=1)
    after = used.predict_proba(["mary lives in paris"], "classification")
    assert (after == fresh.predict_proba(["mary lives in paris"], "classification")).all()
    assert (after != before).any()
    assert used.predictor.scope is not None
    manyheads.thresholds(used, list(records(150, 6)), precision=0.7, threads=1)
    assert used.predictor.scorings["classification"].thresholds is not None
    assert used.module is module


def test_a_model_whose_module_was_only_used_is_saved_as_it_is(model: Path, tmp_path: Path) -> None:
    used = manyheads.load(model, threads=1)
    assert sum(parameter.numel() for parameter in used.module.parameters())
    assert read_manifest(used.save(tmp_path / "copy")) == replace(
        read_manifest(model), folder=tmp_path / "copy"
    )
    used.save(model)
    assert read_manifest(model).calibration["tasks"]


def test_a_model_with_changed_weights_is_saved_with_a_warning_and_not_pickled(
    model: Path, tmp_path: Path
) -> None:
    manyheads.thresholds(model, list(records(150, 6)), precision=0.7, threads=1)
    changed = manyheads.load(model, threads=1)
    with torch.no_grad():
        next(changed.module.head("ner").parameters()).add_(1)
    with pytest.warns(UserWarning, match="is saved without calibration, thresholds, scope, which"):
        changed.save(model)
    assert not read_manifest(model).calibration
    copied = pickle.loads(pickle.dumps(changed))
    assert copied.predict(["mary"])[0]["ner"].to_dict()
    with torch.no_grad():
        next(changed.module.head("ner").parameters()).add_(1)
    with pytest.raises(RequestError, match=r"have changed and are in no folder.*model\.save"):
        pickle.dumps(changed)


def test_a_pickle_or_copy_of_a_model_loads_it_again_from_its_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    loaded = manyheads.load(model.name, threads=1)
    monkeypatch.chdir(tmp_path)
    for copied in (pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):
        assert copied.path == model
        found = copied.predict_proba(["mary lives in paris"], "classification")
        assert (found == loaded.predict_proba(["mary lives in paris"], "classification")).all()
    with pytest.raises(RequestError, match="runs a model in memory, and cannot be pickled"):
        pickle.dumps(loaded.predictor)


def test_a_pickle_of_a_model_names_nothing_of_the_code_that_runs_it(model: Path) -> None:
    loaded = manyheads.load(model, backend="torch", threads=1, batch_tokens=512)
    pickled = pickle.dumps(loaded)
    assert b"manyheads.inference" not in pickled
    assert pickle.loads(pickled).predictor._limits == loaded.predictor._limits
