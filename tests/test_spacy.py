"""The spaCy component fills documents, in batches, and is saved with its pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyheads
from manyheads.errors import RequestError
from training_setup import config, settings

spacy = pytest.importorskip("spacy")

import manyheads.api.spacy_component  # noqa: E402 - registers the component

TEXTS = ["will john eat in paris ?", "mary lives in rome", ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> manyheads.TrainedModel:
    folder = tmp_path_factory.mktemp("spacy")
    return manyheads.train(config(folder, num_epochs=8), progress=False)


def pipeline(model: manyheads.Model) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("manyheads", config={"model": str(model.path)})
    return nlp


def test_documents_have_entities_classes_and_the_vector(model: manyheads.TrainedModel) -> None:
    predictions = model.predict(TEXTS, embed=True)
    docs = list(pipeline(model).pipe(TEXTS, batch_size=2))
    assert [doc.text for doc in docs] == TEXTS
    for doc, prediction in zip(docs[:2], predictions[:2], strict=True):
        found = [(ent.text, ent.label_) for ent in doc.ents]
        assert found == [(e.text, e.label) for e in prediction["ner"].entities]
        assert [span.text for span in doc.spans["ner"]] == [text for text, _ in found]
        label = prediction["classification"]
        assert doc.cats == {label.label: pytest.approx(label.score)}
        np.testing.assert_allclose(doc.vector, prediction.embedding, rtol=1e-4, atol=1e-6)
    assert any(doc.ents for doc in docs)
    assert docs[2].cats == {}


def test_a_pipeline_is_saved_with_its_model(model: manyheads.TrainedModel, tmp_path: Path) -> None:
    nlp = pipeline(model)
    before = nlp(TEXTS[0])
    nlp.to_disk(tmp_path / "pipeline")
    assert (tmp_path / "pipeline" / "manyheads" / "manyheads.json").exists()
    again = spacy.load(tmp_path / "pipeline")
    assert again.get_pipe("manyheads").model.path == tmp_path / "pipeline" / "manyheads"
    assert "pipeline/manyheads" in repr(again.get_pipe("manyheads"))
    after = again(TEXTS[0])
    assert after.cats == pytest.approx(before.cats)
    assert [ent.text for ent in after.ents] == [ent.text for ent in before.ents]


def test_documents_in_place_of_records_are_refused_with_what_to_do() -> None:
    doc = spacy.blank("en")("John lives in Paris")
    with pytest.raises(RequestError, match=r"record 1 is of the type Doc; .* DocBin\(docs=docs\)"):
        manyheads.train([doc, doc])
    with pytest.raises(RequestError, match=r"the records are of the type Doc; .* DocBin"):
        manyheads.train(doc)


def test_a_pipeline_is_evaluated_on_entities_and_classes(model: manyheads.TrainedModel) -> None:
    from spacy.training import Example

    nlp = pipeline(model)
    predicted = list(nlp.pipe(TEXTS[:2]))
    right, wrong = [], []
    for doc in predicted:
        ents = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
        (label,) = doc.cats
        (other,) = {"question", "statement"} - {label}
        made = nlp.make_doc(doc.text)
        right.append(Example.from_dict(made, {"entities": ents, "cats": {label: 1.0}}))
        wrong.append(Example.from_dict(made, {"entities": [], "cats": {label: 0.0, other: 1.0}}))
    assert any(doc.ents for doc in predicted)
    scores = nlp.evaluate(right)
    assert (scores["ents_f"], scores["cats_micro_f"]) == (1.0, 1.0)
    assert scores["cats_score"] == scores["cats_macro_f"]
    assert "cats_macro_auc" not in scores
    scores = nlp.evaluate([*right, *wrong])
    assert scores["ents_r"] == 1.0
    assert scores["ents_p"] == pytest.approx(0.5)
    assert scores["cats_micro_p"] == scores["cats_micro_r"] == pytest.approx(0.5)
    # Without annotation, and without an answer.
    unknown = Example.from_dict(nlp.make_doc(TEXTS[0]), {})
    empty = Example.from_dict(nlp.make_doc(" "), {"cats": {"question": 1.0}})
    scores = nlp.evaluate([*right, unknown, empty])
    assert (scores["ents_f"], scores["cats_micro_p"]) == (1.0, 1.0)
    assert scores["cats_micro_r"] == pytest.approx(2 / 3)


def test_entities_of_documents_are_those_of_a_task_that_finds_entities(tmp_path: Path) -> None:
    folder = settings(tmp_path)
    for name in ("train_file", "valid_file"):
        path = Path(folder[name])
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for record in records:
            record["pos"] = ["NAME" if tag != "O" else "WORD" for tag in record["ner"]]
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    pos = {"kind": "tagging", "field": "pos", "scheme": "plain"}
    ner = {"kind": "tagging", "field": "ner"}
    result = manyheads.train(
        folder | {"tasks": {"pos": pos, "ner": ner}, "num_epochs": 8}, progress=False
    )  # fmt: skip
    predictions = result.predict(TEXTS[:2])
    docs = list(pipeline(result).pipe(TEXTS[:2]))
    for doc, prediction in zip(docs, predictions, strict=True):
        found = [(ent.text, ent.label_) for ent in doc.ents]
        assert found == [(e.text, e.label) for e in prediction["ner"].entities]
    assert any(doc.ents for doc in docs)


def test_labels_are_those_of_the_documents_without_loading_the_model(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    nlp = pipeline(model)
    expected = {"LOC", "PER", "question", "statement"}
    assert set(nlp.pipe_labels["manyheads"]) == set(nlp.get_pipe("manyheads").labels) == expected
    assert "model" not in vars(nlp.get_pipe("manyheads"))
    nlp.to_disk(tmp_path / "pipeline")
    missing = {"manyheads": {"model": str(tmp_path / "nowhere")}}
    again = spacy.load(tmp_path / "pipeline", config={"components": missing})
    assert set(again.get_pipe("manyheads").labels) == expected
    assert manyheads.api.spacy_component.ManyheadsComponent(str(tmp_path / "nowhere")).labels == ()
