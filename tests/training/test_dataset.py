"""Training data as flat arrays: the contents of a batch and its counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from manyheads.config import TaskConfig
from manyheads.data.records import Record
from manyheads.errors import DataError
from manyheads.tasks import LabelSet, Scheme, Span, TagSet
from manyheads.tasks.kinds import UNKNOWN, UNLABELLED, word_tags
from manyheads.text import TextTokenizer
from manyheads.training.data import Dataset
from manyheads.training.data.dataset import build_dataset
from tiny import tiny_tokenizer

TOKENIZER = TextTokenizer(tiny_tokenizer())
TASKS = {
    "intent": TaskConfig(kind="classification"),
    "topics": TaskConfig(kind="multilabel"),
    "ner": TaskConfig(kind="tagging"),
}
LABELS: Mapping[str, LabelSet] = {
    "intent": LabelSet(("ask", "say")),
    "topics": LabelSet(("food", "music", "travel")),
    "ner": TagSet.of_types(("LOC", "PER")),
}
RECORDS = [
    Record(
        "John lives in New York",
        None,
        {"intent": "say", "topics": ("travel",), "ner": (Span(0, 4, "PER"), Span(14, 22, "LOC"))},
        "a.jsonl:1",
    ),
    Record("Who?", None, {"intent": "ask", "topics": ()}, "a.jsonl:2"),
    Record("Mary likes music", None, {"ner": (Span(0, 4, "PER"),)}, "b.jsonl record 7"),
    Record("it was good", None, {"topics": ("music", "food"), "ner": ()}, "a.jsonl:4"),
]


def build(records: list[Record] = RECORDS, max_length: int = 32, **options: Any) -> Dataset:
    return build_dataset(records, "a.jsonl", TASKS, LABELS, TOKENIZER, max_length, **options)


def targets(dataset: Dataset, task: str, rows: list[int], width: int = 6) -> list[Any]:
    return list(dataset.targets[task].collate(np.asarray(rows), width).tolist())


def test_each_task_has_targets_of_its_kind_and_none_for_unlabelled_records() -> None:
    dataset = build()
    none = UNLABELLED
    assert targets(dataset, "intent", [0, 1, 2, 3]) == [1, 0, none, none]
    assert targets(dataset, "topics", [0, 1, 2, 3]) == [
        [0, 0, 1], [0, 0, 0], [none] * 3, [1, 1, 0],
    ]  # fmt: skip
    # O, B-LOC, I-LOC, B-PER, I-PER
    assert targets(dataset, "ner", [0, 1, 2, 3]) == [
        [3, 0, 0, 1, 2, none], [none] * 6, [3, 0, 0, none, none, none],
        [0, 0, 0, none, none, none],
    ]  # fmt: skip
    kinds = {task: t.collate(np.asarray([0]), 5).dtype for task, t in dataset.targets.items()}
    assert kinds == {"intent": torch.int64, "topics": torch.float32, "ner": torch.int64}


@pytest.mark.parametrize("limit", [1, 1_000])
@pytest.mark.parametrize(
    ("tasks", "expected"),
    [(["intent"], [0, 1]), (["ner"], [0, 2, 3]), (["intent", "ner"], [0, 1, 2, 3]), ([], [])],
)
def test_the_rows_of_several_tasks_have_a_label_of_at_least_one(
    tasks: list[str], expected: list[int], limit: int
) -> None:
    dataset = build()
    rows, lengths = dataset.labelled_rows(tasks, limit)
    assert rows.tolist() == expected
    assert lengths.tolist() == [len(TOKENIZER.encode(RECORDS[row].text).ids) for row in expected]


@pytest.mark.parametrize("rows", [[0], [1, 3], [2, 0, 1]])
def test_a_batch_is_padded_to_its_longest_sentence(rows: list[int]) -> None:
    inputs = build().inputs(np.asarray(rows), pad_id=9)
    encodings = [TOKENIZER.encode(RECORDS[row].text) for row in rows]
    width = max(len(e.ids) for e in encodings)
    assert inputs.input_ids.shape == inputs.attention_mask.shape == (len(rows), width)
    for i, encoding in enumerate(encodings):
        length, words = len(encoding.ids), len(encoding.word_starts)
        assert inputs.input_ids[i].tolist() == [*encoding.ids.tolist(), *[9] * (width - length)]
        assert inputs.attention_mask[i].tolist() == [1] * length + [0] * (width - length)
        assert inputs.word_starts[i, :words].tolist() == encoding.word_starts.tolist()
        assert inputs.word_starts[i, words:].tolist() == [0] * (inputs.word_starts.shape[1] - words)
        assert inputs.word_mask[i].sum() == words
    assert inputs.word_mask.any(dim=0).all()


def test_a_sentence_without_words_makes_a_batch() -> None:
    record = Record("\u200b", None, {"ner": (), "intent": "ask"}, "a:1")
    inputs = build([record]).inputs(np.asarray([0]), 0)
    assert inputs.word_starts.shape == (1, 1)
    assert not inputs.word_mask.any()


def test_records_are_truncated_with_their_labels_and_counted() -> None:
    dataset = build(max_length=5)  # two of them special
    assert (dataset.truncated, dataset.words_lost) == (1, 2)
    assert dataset.tokens.lengths.tolist() == [5, 4, 5, 5]
    assert targets(dataset, "ner", [0], 4) == [[3, 0, 0, UNLABELLED]]


def test_records_have_their_place_in_the_file() -> None:
    dataset = build()
    assert [dataset.where(row) for row in range(4)] == [record.where for record in RECORDS]
    odd = Record("a", None, {}, "Größe/数据.json:3")
    assert build([odd]).where(0) == odd.where


def test_arrays_on_disk_equal_those_in_memory() -> None:
    rows = np.asarray([3, 0, 2])
    small, large = build(), build(limit=1)
    assert isinstance(large.tokens.values, np.memmap)
    assert large.fingerprint() == small.fingerprint()
    one, other = small.inputs(rows, 0), large.inputs(rows, 0)
    assert torch.equal(one.input_ids, other.input_ids)
    assert torch.equal(one.word_starts, other.word_starts)
    for task in TASKS:
        assert targets(small, task, [3, 0]) == targets(large, task, [3, 0])


@pytest.mark.parametrize(
    "change",
    [
        {"text": "John lives in New Rome"},
        {"labels": {**RECORDS[0].labels, "intent": "ask"}},
        {"labels": {**RECORDS[0].labels, "ner": ()}},
        {"labels": {k: v for k, v in RECORDS[0].labels.items() if k != "topics"}},
    ],
)
def test_a_change_of_anything_that_training_sees_changes_the_fingerprint(
    change: dict[str, Any],
) -> None:
    first = RECORDS[0]
    values = {"text": first.text, "tokens": None, "labels": first.labels, "where": "moved:1"}
    same, other = Record(**values), Record(**{**values, **change})
    assert build([same, *RECORDS[1:]]).fingerprint() == build().fingerprint()
    assert build([other, *RECORDS[1:]]).fingerprint() != build().fingerprint()


def test_the_case_of_letters_counts_where_a_head_reads_it() -> None:
    cased, lower = ([Record(text, None, {}, "1")] for text in ("John in Rome", "john in Rome"))
    assert build(cased).fingerprint() == build(lower).fingerprint()
    assert build(cased).inputs(np.asarray([0]), 0).word_features is None
    tokenizer = TOKENIZER.with_word_features(True)
    sets = [build_dataset(records, "a", {}, {}, tokenizer, 32) for records in (cased, lower)]
    assert sets[0].fingerprint() != sets[1].fingerprint()
    rows = [dataset.inputs(np.asarray([0, 0]), 0).word_features for dataset in sets]
    assert rows[0] is not None
    assert rows[1] is not None
    assert (rows[0] != rows[1]).any(dim=2).tolist() == [[True, False, False]] * 2


def test_data_without_a_record_are_refused() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: there is no record; expected at least one"):
        build([])


@pytest.mark.parametrize(
    ("task", "label"),
    [("intent", "shout"), ("topics", ("food", "shout")), ("ner", (Span(0, 1, "SHOUT"),))],
)
def test_an_unknown_label_is_refused_with_its_place(task: str, label: Any) -> None:
    record = Record("a", None, {task: label}, "c.jsonl:12")
    message = rf"c\.jsonl:12: task '{task}': label '(B-)?(shout|SHOUT)' is not known.*Correct"
    with pytest.raises(DataError, match=message):
        build([*RECORDS, record])


def test_text_and_tokens_give_the_same_tags() -> None:
    tags = TagSet.of_types(("LOC",))
    encoding = TOKENIZER.encode("to Paris.")
    assert word_tags([Span(3, 8, "LOC")], encoding.word_spans, tags) == [0, 1, 0]
    # A span that includes the full stop, like a label on the token "Paris.".
    assert word_tags([Span(3, 9, "LOC")], encoding.word_spans, tags) == [0, 1, 2]
    assert word_tags([], encoding.word_spans, tags) == [0, 0, 0]


def test_classes_that_cover_every_token_leave_the_rest_unknown() -> None:
    tags = TagSet(("NOUN", "VERB"), Scheme.PLAIN)
    encoding = TOKENIZER.encode("john eats .")
    spans = [Span(0, 4, "NOUN"), Span(5, 9, "VERB")]
    assert word_tags(spans, encoding.word_spans, tags) == [0, 1, UNKNOWN]
    assert word_tags([], encoding.word_spans, tags) == [UNKNOWN] * 3
