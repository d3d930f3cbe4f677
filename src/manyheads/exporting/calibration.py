"""Sentences of the training data: for the ranges of int8, and for the gate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

from manyheads.config import Config
from manyheads.data.own_files import training_records
from manyheads.data.records import Record
from manyheads.errors import DataError
from manyheads.exporting.gate import RecordSets
from manyheads.sampling import spread
from manyheads.storage import StrPath
from manyheads.tasks import LabelSet, TaskSpec, units_of
from manyheads.text import Batch, TextTokenizer, pad_batch, windows

SENTENCES = 300


def calibration_batches(
    config: Config,
    specs: Sequence[TaskSpec],
    validation: RecordSets,
    model: StrPath,
    tokenizer: TextTokenizer,
    max_length: int,
) -> list[Batch]:
    """Choose sentences spread over the training records or, without those, the validation records.

    Each is a batch of its own, since values computed for padding would be counted, too.

    Args:
        config: the configuration of the training run.
        specs: the model's tasks.
        validation: the gate's records, used if the training files are missing, cannot be read, or
            may not be opened unasked.
        model: the model's folder.
        tokenizer: the model's.
        max_length: tokens that the encoder reads at once.
    """
    records: list[Record] = []
    with suppress(DataError):
        records = list(training_records(config, _label_sets(specs), model))
    records = records or list(chain.from_iterable(records for records, _ in validation))
    some = spread(records, SENTENCES)
    tokenizer = tokenizer.with_units(units_of(spec.label_set() for spec in specs))
    tokenizer = tokenizer.with_word_features(any(spec.word_features for spec in specs))
    encodings = tokenizer.encode_batch([record.text for record in some])
    return [
        pad_batch([windows(encoding, max_length, 0)[0]], pad_id=0)
        for encoding in encodings
        if len(encoding.word_starts)
    ]


def training_texts(
    config: Config, specs: Sequence[TaskSpec], model: StrPath, count: int
) -> list[str]:
    """Choose texts spread over a model's training data; none if they may not be opened unasked."""
    texts: list[str] = []
    with suppress(DataError):  # the gate works without them
        found = training_records(config, _label_sets(specs), model)
        texts = [record.text for record in found]
    return spread(texts, count)


def _label_sets(specs: Sequence[TaskSpec]) -> dict[str, LabelSet]:
    return {spec.name: spec.label_set() for spec in specs}
