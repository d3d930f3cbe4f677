"""The gate: a graph whose answers differ from the model's is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_outputs import Broken
from manyheads.data.readers import Layout
from manyheads.errors import DataError, RequestError
from manyheads.exporting import Gate, export_model
from manyheads.inference import GRAPHS
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.inference.backends.pytorch import TorchBackend
from manyheads.modeling import choose_compute, task_specs
from manyheads.storage import read_manifest
from manyheads.tasks import TaskSpec
from manyheads.text import Batch
from training_setup import sentences


def gate_for(
    folder: Path, limit: float = 0.3, unlabelled: Sequence[str] = ()
) -> tuple[Gate, OnnxBackend]:
    from manyheads.config import make_config
    from manyheads.exporting import validation_sets
    from manyheads.inference import predictor_of_folder
    from manyheads.inference.backends import pytorch

    manifest = read_manifest(folder)
    model = pytorch.load_trained(folder).model
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    assert task_specs(model) == [spec.to_json() for spec in specs]
    gate = Gate(
        TorchBackend(model, choose_compute("cpu", "float32", 1)),
        lambda backend: predictor_of_folder(manifest, backend),
        validation_sets(make_config(manifest.config), specs, None, folder),
        limit=limit,
        unlabelled=unlabelled,
    )
    return gate, OnnxBackend((folder / GRAPHS["onnx"]).read_bytes(), name="graph", threads=1)


@pytest.mark.parametrize("task", ["intent", "ner"])
def test_the_gate_names_the_head_that_loses(exported: Path, task: str) -> None:
    gate, backend = gate_for(exported)
    assert gate.examine(backend, "onnx", "as it is", exact=True).passed
    report = gate.examine(Broken(backend, task), "onnx-int8", "broken", exact=False)
    assert not report.passed
    (fault,) = report.faults
    assert fault.startswith(f"head {task!r} loses ")
    assert fault.endswith("at most 0.3 are allowed")
    other = {"intent": "ner", "ner": "intent"}[task]
    assert report.heads[other].lost == report.heads[other].changed == 0
    assert report.heads[task].changed > 0


class Forgetful(Broken):
    """A backend that is wrong about every so many sentences."""

    def __init__(self, inner: OnnxBackend, task: str, every: int) -> None:
        super().__init__(inner, task)
        self.every, self.seen = every, 0

    def run(self, batch: Batch) -> Mapping[str, Any]:
        outputs = dict(self.inner.run(batch))
        values = outputs[self.task].copy()
        for row in range(len(values)):
            self.seen += 1
            if self.seen % self.every == 0:
                values[row] = -values[row]
        return outputs | {self.task: values}


def test_one_changed_answer_of_few_records_may_be_chance(exported: Path) -> None:
    """Of 40 records one is 2.5 points; unlabelled sentences show how rare such changes are."""
    many = [" ".join(one["tokens"]) for one in sentences(400, 7)]
    rare, common = 36, 12
    for texts, every, passes in ((many, 300, True), ([], rare, False), (many, common, False)):
        gate, backend = gate_for(exported, unlabelled=texts)
        first = Forgetful(backend, "intent", every)
        # Each record is seen once before the unlabelled ones.
        first.seen = every - rare if every > rare else 0
        report = gate.examine(first, "onnx-int8", "forgetful", exact=False)
        head = report.heads["intent"]
        assert report.unlabelled == len(texts)
        assert head.lost > 0.3, "the limit alone refuses it"
        assert head.lost_low <= head.lost <= head.lost_high
        assert report.passed == passes, report.faults


def test_a_certain_loss_is_refused_however_few_answers_change(exported: Path) -> None:
    gate, backend = gate_for(exported, unlabelled=["John lives in Paris"] * 4000)

    class Late(Forgetful):
        """Wrong about the records alone."""

        def run(self, batch: Batch) -> Mapping[str, Any]:
            self.every = 2 if self.seen < 40 else 10**9
            return super().run(batch)

    report = gate.examine(Late(backend, "intent", 2), "onnx-int8", "late", exact=False)
    assert report.heads["intent"].changed_share < 0.02
    assert report.heads["intent"].lost_low > 0.3
    assert "with 95 %" in report.faults[0]


def test_the_user_sets_the_limit(exported: Path) -> None:
    gate, backend = gate_for(exported, limit=100)
    assert gate.examine(Broken(backend, "intent"), "onnx-int8", "broken", exact=False).passed


def test_the_gate_detects_broken_embeddings_and_nan(exported: Path) -> None:
    gate, backend = gate_for(exported)
    report = gate.examine(Broken(backend, "embedding"), "onnx-int8", "broken", exact=False)
    assert report.faults == (
        "the mean cosine of the embeddings is -1.0000; at least 0.95 is needed",
    )

    class NotNumbers(Broken):
        def run(self, batch: Batch) -> Mapping[str, Any]:
            outputs = dict(self.inner.run(batch))
            return outputs | {"intent": np.full_like(outputs["intent"], np.nan)}

    report = gate.examine(NotNumbers(backend, ""), "onnx", "broken", exact=True)
    assert any("logits that differ by inf" in fault for fault in report.faults)


def test_the_gate_detects_answers_that_depend_on_batch_mates(exported: Path) -> None:
    gate, backend = gate_for(exported)

    class Sociable(Broken):
        def run(self, batch: Batch) -> Mapping[str, Any]:
            outputs = dict(self.inner.run(batch))
            if len(batch.input_ids) == 1:
                outputs["intent"] = -outputs["intent"]
            return outputs

    for exact, independent in ((True, None), (False, True)):
        report = gate.examine(
            Sociable(backend, ""), "onnx", "sociable", exact=exact, independent=independent
        )
        assert report.batch_mates.changed["intent"] == report.batch_mates.sentences
        assert "the answers depend on the other sentences of a batch" in report.faults
    assert gate.examine(Sociable(backend, ""), "onnx-int8", "sociable", exact=False).passed


def test_a_head_without_labelled_records_cannot_pass(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "half.jsonl"
    file.write_text('{"text": "John eats", "label": "statement"}\n')
    with pytest.raises(DataError, match="no validation record has a label for task ner"):
        export_model(exported, data=file, threads=1)


def test_the_records_of_a_named_file_are_read_by_its_layout(trained: Path, tmp_path: Path) -> None:
    from manyheads.config import make_config
    from manyheads.exporting import validation_sets

    manifest = read_manifest(trained)
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    file = tmp_path / "labelled.csv"
    file.write_text("utterance,topic\nJohn lives in Paris,statement\n")
    layout = Layout(names={"utterance": "text", "topic": "intent"})
    ((records, _),) = validation_sets(make_config(manifest.config), specs, file, trained, layout)
    assert [(one.text, list(one.labels)) for one in records] == [
        ("John lives in Paris", ["intent"])
    ]
    missing = Layout(names={"body": "text"})
    with pytest.raises(DataError, match="there is no column 'body'"):
        export_model(trained, data=file, layout=missing, threads=1)
    with pytest.raises(RequestError, match="the layout of a file is given, but no file"):
        export_model(trained, layout=layout)


def test_records_are_spread_over_a_long_file(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyheads.config import make_config
    from manyheads.exporting import validation

    manifest = read_manifest(trained)
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    config = make_config(manifest.config)
    ((whole, _),) = validation.validation_sets(config, specs, None, trained)
    assert len(whole) == 40
    monkeypatch.setattr(validation, "MAX_RECORDS", 39)
    ((records, tasks),) = validation.validation_sets(config, specs, None, trained)
    assert tasks == ("intent", "ner")
    assert [record.where for record in records] == [record.where for record in whole[:39]]
    monkeypatch.setattr(validation, "MAX_RECORDS", 3)
    ((records, _),) = validation.validation_sets(config, specs, None, trained)
    assert [record.where for record in records] == [whole[i].where for i in (0, 13, 26)]
