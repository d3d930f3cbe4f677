"""Results have calibrated scores, candidates and logits on request, and thresholds that hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyheads
from manyheads.errors import RequestError
from manyheads.inference import Predictor
from manyheads.tasks import (
    EMBEDDING,
    ClassResult,
    MultilabelResult,
    Platt,
    Scheme,
    Scoring,
    TaggingResult,
    TaskSpec,
    Temperature,
    Thresholds,
)
from manyheads.text import Batch, TextTokenizer
from tiny import tiny_tokenizer

INTENT = TaskSpec("intent", "classification", ("ask", "say", "shout"))
TOPICS = TaskSpec("topics", "multilabel", ("short", "long"), threshold=0.5)
NER = TaskSpec("ner", "tagging", ("O", "B-PER", "I-PER"), Scheme.BIO, "linear")

CALIBRATED = {
    "intent": Scoring(Temperature(2.0)),
    "topics": Scoring(Platt((1.0, 1.0), (-1.0, 0.0))),
    "ner": Scoring(Platt((0.5,), (-1.0,))),
}
HELD = {
    name: Scoring(scoring.calibration, Thresholds(0.9, 0.95, 0.99))
    for name, scoring in CALIBRATED.items()
}


class FixedBackend:
    """Every text is `ask`, `short`, and a person in its first word."""

    name = "fixed"

    def run(self, batch: Batch) -> Mapping[str, np.ndarray]:
        sentences, words = batch.word_mask.shape
        tags = np.zeros((sentences, words, 3), np.float32)
        tags[:, 0, 1] = 3.0
        tags[:, 1:, 0] = 3.0
        return {
            "intent": np.tile(np.array([2.0, 0.0, -1.0], np.float32), (sentences, 1)),
            "topics": np.tile(np.array([0.5, -2.0], np.float32), (sentences, 1)),
            "ner": tags,
        }


def predictor(scorings: Mapping[str, Scoring] | None = None) -> Predictor:
    return Predictor(
        FixedBackend(), TextTokenizer(tiny_tokenizer()), [INTENT, TOPICS, NER],
        max_length=32, pad_id=0, scorings=scorings,
    )  # fmt: skip


def softmax(values: list[float]) -> np.ndarray:
    shares = np.exp(values)
    return shares / shares.sum()


def test_scores_are_calibrated_and_the_decisions_stay() -> None:
    (plain,), (found,) = (p.predict(["john lives"]) for p in (predictor(), predictor(CALIBRATED)))
    assert found["intent"] == ClassResult("ask", 0, pytest.approx(softmax([1, 0, -0.5])[0]))
    assert plain["intent"].score == pytest.approx(softmax([2, 0, -1])[0])
    [topic] = found["topics"].labels
    # Below one half, and still predicted: the task's threshold is one of plain probabilities.
    assert topic == ClassResult("short", 0, pytest.approx(1 / (1 + np.exp(0.5))))
    [before], [after] = plain["ner"].entities, found["ner"].entities
    odds = np.log(before.score / (1 - before.score))
    assert after.score == pytest.approx(1 / (1 + np.exp(1 - odds / 2)), abs=1e-6)


def test_probabilities_are_calibrated_too() -> None:
    found = predictor(CALIBRATED).predict_proba(["john"], "intent")
    np.testing.assert_allclose(found, [softmax([1, 0, -0.5])], rtol=1e-5)


def test_a_scope_is_fitted_on_the_first_requested_task() -> None:
    moods = TaskSpec("moods", "classification", ("good", "bad"))

    class TwoClassifiers(FixedBackend):
        def run(self, batch: Batch) -> Mapping[str, np.ndarray]:
            rows = len(batch.input_ids)
            found = {"moods": np.full((rows, 2), 7, np.float32), EMBEDDING: np.ones((rows, 4))}
            return {**super().run(batch), **found}

    two = Predictor(
        TwoClassifiers(), TextTokenizer(tiny_tokenizer()), [INTENT, moods], max_length=32, pad_id=0
    )
    for task, logits in (("intent", [2, 0, -1]), ("moods", [7, 7])):
        (found,) = two.record(["john"], [task])
        np.testing.assert_array_equal(np.asarray(found.in_scope, dtype=object)[1], logits)


def test_candidates_and_logits_come_on_request() -> None:
    (found,) = predictor(CALIBRATED).predict(["john lives"], top_k=2, logits=True)
    record = found.to_json()["intent"]
    assert [c["label"] for c in record["candidates"]] == ["ask", "say"]
    assert record["logit"] == 2.0
    assert record["candidates"][0]["score"] == record["score"]
    assert [c.label for c in found["topics"].candidates] == ["short", "long"]
    assert "logit" in found.to_json()["ner"]["entities"][0]
    (usual,) = predictor(CALIBRATED).predict(["john lives"])
    assert list(usual.to_json()["intent"]) == ["label", "id", "score"]
    assert list(usual.to_dict()["intent"]) == ["label", "id", "score"]


def test_below_its_threshold_a_result_is_undecided() -> None:
    (found,) = predictor(HELD).predict(["john lives"])
    record = found.to_json()
    assert record["intent"]["label"] is None
    assert [c["label"] for c in record["intent"]["candidates"]] == ["ask", "say", "shout"]
    assert record["topics"]["labels"] == []
    assert [c["label"] for c in record["topics"]["candidates"]] == ["short"]
    [entity] = record["ner"]["entities"]
    assert entity["label"] is None
    assert entity["candidates"] == [{"label": "PER", "score": entity["score"]}]
    assert isinstance(found["ner"], TaggingResult)
    assert found["ner"].entities == ()
    assert found["intent"].undecided
    assert "undecided between ask " in found["intent"].words()
    assert "perhaps PER" in found["ner"].words()
    (decided,) = predictor(HELD).predict(["john lives"], thresholds=False)
    assert decided["intent"].label == "ask"
    assert isinstance(decided["topics"], MultilabelResult)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "john lives",
            {"entities": [[0, 4, "PER"]], "cats": ["ask", "short"], "Comments": []},
        ),
        ("\u200b", {}),
    ],
)
def test_suggestions_for_a_tool_are_made_without_thresholds(
    text: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.api.data.load", lambda _: predictor(HELD))
    target = tmp_path / "out.jsonl"
    manyheads.convert([{"text": text}], target, to="doccano", model="m")
    assert json.loads(target.read_text(encoding="utf-8")) == {"text": text, **expected}


def test_a_label_with_its_own_threshold_is_held_to_it() -> None:
    limits = Thresholds(0.9, 0.95, 0.99, {"ask": 0.1})
    (found,) = predictor({"intent": Scoring(None, limits)}).predict(["john"])
    assert found["intent"].label == "ask"


def test_thresholds_can_be_given_by_task() -> None:
    (found,) = predictor(CALIBRATED).predict(["john"], thresholds={"intent": 0.9})
    assert found["intent"].label is None
    assert found["ner"].entities


def test_numbers_of_numpy_are_numbers() -> None:
    of_numpy: Any = {"top_k": np.int64(2), "thresholds": {"intent": np.float32(0.5)}}
    plain: Any = {"top_k": 2, "thresholds": {"intent": 0.5}}
    found, same = (predictor(CALIBRATED).predict(["john"], **o) for o in (of_numpy, plain))
    assert found == same
    switched: Any = np.False_
    assert predictor(CALIBRATED).predict(["john"], thresholds=switched)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": -1}, "top_k is -1"),
        ({"thresholds": {"intent": 2}}, "threshold of task 'intent' is 2"),
        ({"thresholds": {"intents": 0.5}}, "did you mean"),
        (
            {"thresholds": 0.99},
            r"thresholds are 0\.99; expected True, False, or the scores",
        ),
        ({"thresholds": {"intent": np.float32(2)}}, "expected a number from 0 to 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        predictor().predict(["john"], **options)  # type: ignore[arg-type]
