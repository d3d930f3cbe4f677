"""Training data as flat arrays: tokenised once, in memory or mapped from disk.

Axes: N records, B the records of a batch, T tokens, W words, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyheads.config import TaskConfig
from manyheads.data.records import Reach, Record
from manyheads.errors import DataError
from manyheads.modeling import ModelInputs
from manyheads.tasks import Kind, LabelSet, kind_of
from manyheads.text import WORD_FEATURE_COLUMNS, Encoding, TextTokenizer, truncate
from manyheads.training.data.ragged import SPILL_BYTES, FlatBuilder, Integers, Ragged, RaggedBuilder

_CHUNK = 2_000
# Records processed together where only a little of each is needed.
_ROWS = 1 << 20


@dataclass(frozen=True)
class TaskTargets:
    """One task's targets for every record."""

    kind: str
    labelled: NDArray[np.bool_]
    """[N] whether the record has a label of the task."""
    values: Ragged
    """Per record, the numbers that `Kind.target` made of its label."""
    num_labels: int
    partners: NDArray[np.int64] | None = None
    """See `Dataset.partners`."""

    def collate(self, rows: NDArray[np.int64], width: int) -> Tensor:
        """Make the targets of a batch, in the form that the head's loss takes.

        Args:
            rows: [B] record numbers.
            width: W of the batch.
        """
        return torch.from_numpy(kind_of(self.kind).collate(self, rows, width))


@dataclass(frozen=True)
class Dataset:
    """Records ready for training."""

    source: str
    tokens: Ragged
    """Per record, the sub-token ids, special tokens included."""
    words: Ragged
    """Per record, the position of each word's first sub-token."""
    targets: Mapping[str, TaskTargets]
    places: Ragged
    """Each record's place in its file, as UTF-8 of `Record.where`."""
    truncated: int
    """The number of records that are longer than the encoder's input."""
    words_lost: int
    """The number of words truncated from them."""
    partners: NDArray[np.int64] | None = None
    """[N] for each record that is a pair, the row of its second sentence, which has no label of
    its own, and -1 for the others; None where there is no pair."""
    reach: Reach = field(default_factory=lambda: Reach(()))
    """The entities that no tag can express."""

    texts: Ragged | None = None
    """Each record's text as UTF-8, if it is needed after tokenisation."""
    features: Ragged | None = None
    """Per record, the features of its words, one word after the other, if a head reads them."""

    def __len__(self) -> int:
        return len(self.tokens)

    def text(self, row: int) -> str:
        """Return the text of a record."""
        assert self.texts is not None
        return self.texts.row(row).tobytes().decode()

    def where(self, row: int) -> str:
        """Return the file and line of a record."""
        return self.places.row(row).tobytes().decode()

    def labelled_rows(
        self, tasks: Sequence[str], limit: int = SPILL_BYTES
    ) -> tuple[Integers, Integers]:
        """Return the records that have a label for at least one of the tasks, and their lengths.

        Args:
            tasks: their names.
            limit: bytes of each array to hold in memory.
        """
        rows, lengths = FlatBuilder(np.int64, limit), FlatBuilder(np.int32, limit)
        for start in range(0, len(self), _ROWS):
            labelled = np.zeros(min(_ROWS, len(self) - start), np.bool_)
            for task in tasks:
                labelled |= self.targets[task].labelled[start : start + _ROWS]
            found = start + np.flatnonzero(labelled)
            rows.extend(found)
            lengths.extend(self.tokens.lengths_of(found))
        return rows.finish(), lengths.finish()

    def with_partners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Append the second texts of a batch's pairs, in the order of the first ones."""
        if self.partners is None:
            return rows
        others = self.partners[rows]
        return np.concatenate([rows, others[others >= 0]])

    def inputs(self, rows: NDArray[np.int64], pad_id: int) -> ModelInputs:
        """Gather and pad a batch."""
        lengths = self.tokens.lengths_of(rows)
        word_counts = self.words.lengths_of(rows)
        width = max(1, int(word_counts.max(initial=0)))
        mask = np.arange(int(lengths.max(initial=1))) < lengths[:, None]
        word_mask = np.arange(width) < word_counts[:, None]
        return ModelInputs(
            torch.from_numpy(self.tokens.padded(rows, pad_id)),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(self.words.padded(rows, 0, width)),
            torch.from_numpy(word_mask),
            self.word_features(rows),
        )

    def word_features(self, rows: NDArray[np.int64]) -> Tensor | None:
        """Gather and pad the features of a batch's words, [B, W, F] int64, if a head reads them."""
        if self.features is None:
            return None
        width = max(1, int(self.words.lengths_of(rows).max(initial=0)))
        padded = self.features.padded(rows, 0, width * WORD_FEATURE_COLUMNS)
        return torch.from_numpy(padded.reshape(len(rows), width, WORD_FEATURE_COLUMNS))

    def fingerprint(self) -> str:
        """Return a checksum of everything that training sees of the records."""
        digest = hashlib.sha256()
        arrays: list[NDArray[Any]] = [
            self.tokens.values,
            self.tokens.offsets,
            self.words.values,
            self.words.offsets,
        ]
        if self.features is not None:
            arrays.append(self.features.values)
        for name in sorted(self.targets):
            target = self.targets[name]
            digest.update(name.encode())
            arrays += [target.labelled, target.values.values, target.values.offsets]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def build_dataset(
    records: Iterable[Record],
    source: str,
    tasks: Mapping[str, TaskConfig],
    label_sets: Mapping[str, LabelSet],
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    keep_texts: bool = False,
    prompt: str = "",
    limit: int = SPILL_BYTES,
) -> Dataset:
    """Tokenise records into flat arrays, streaming.

    Args:
        records: the records, labels by name.
        source: the file they come from.
        tasks: the tasks that learn from them.
        label_sets: each task's labels.
        tokenizer: the encoder's tokenizer.
        max_length: sub-tokens that are kept of a record.
        keep_texts: whether to keep the texts too.
        prompt: text to put before each record's, if only its embedding is trained.
        limit: bytes of an array to hold in memory; larger arrays are mapped from disk.

    Raises:
        DataError: there is no record, or a label is not known.
    """
    builder = _Builder(tasks, label_sets, tokenizer, max_length, limit, keep_texts, prompt)
    for chunk in _chunks(records):
        builder.add(chunk)
    dataset = builder.finish(source)
    if not len(dataset):
        raise DataError("there is no record", where=source, expected="at least one")
    return dataset


class _Builder:
    """Collects the arrays of a data set (see `build_dataset`)."""

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        label_sets: Mapping[str, LabelSet],
        tokenizer: TextTokenizer,
        max_length: int,
        limit: int,
        keep_texts: bool,
        prompt: str,
    ) -> None:
        self._tokenizer, self._max_length, self._prompt = tokenizer, max_length, prompt
        self._tokens, self._words = RaggedBuilder(np.int32, limit), RaggedBuilder(np.int16, limit)
        self._places = RaggedBuilder(np.int8, limit)
        self._texts = RaggedBuilder(np.int8, limit) if keep_texts else None
        self._features = RaggedBuilder(np.int16, limit) if tokenizer.word_features else None
        self._targets = {
            name: _TargetBuilder(task, label_sets[name], limit) for name, task in tasks.items()
        }
        self._partners, self._paired = FlatBuilder(np.int64, limit), False
        self._reach = Reach.of({name: label_sets[name] for name in tasks})
        self._count = self._truncated = self._words_lost = 0

    def add(self, records: Sequence[Record]) -> None:
        """Tokenise some records; the second texts of pairs become rows of their own behind them."""
        rows = [*records, *self._add_partners(records)]
        encodings = []
        texts = [self._prompt + record.text for record in rows]
        for record, encoding in zip(rows, self._tokenizer.encode_batch(texts), strict=True):
            self._reach.add(record, encoding)
            kept, lost = truncate(encoding, self._max_length)
            self._truncated += len(kept.ids) < len(encoding.ids)
            self._words_lost += lost
            encodings.append(kept)
        self._count += len(rows)
        self._tokens.extend([encoding.ids for encoding in encodings])
        self._words.extend([encoding.word_starts.astype(np.int16) for encoding in encodings])
        self._places.extend([_bytes(record.where) for record in rows])
        if self._texts is not None:
            self._texts.extend([_bytes(record.text) for record in rows])
        if self._features is not None:
            rows_of = [e.word_features for e in encodings if e.word_features is not None]
            self._features.extend([one.astype(np.int16).ravel() for one in rows_of])
        for name, builder in self._targets.items():
            builder.extend(name, rows, encodings)

    def _add_partners(self, records: Sequence[Record]) -> list[Record]:
        """Note the row of each pair's second text, and return records of these texts."""
        is_pair = [len(record.texts) > 1 for record in records]
        numbers = np.cumsum(is_pair) + self._count + len(records) - 1
        others = [_partner(record) for record in records if len(record.texts) > 1]
        self._partners.extend([n if pair else -1 for pair, n in zip(is_pair, numbers, strict=True)])
        self._partners.extend([-1] * len(others))
        self._paired |= bool(others)
        return others

    def finish(self, source: str) -> Dataset:
        """Return the data set."""
        rows = self._partners.finish()
        second_rows = rows if self._paired else None
        return Dataset(
            source,
            self._tokens.finish(),
            self._words.finish(),
            {name: builder.finish(second_rows) for name, builder in self._targets.items()},
            self._places.finish(),
            self._truncated,
            self._words_lost,
            second_rows,
            self._reach,
            None if self._texts is None else self._texts.finish(),
            None if self._features is None else self._features.finish(),
        )


def _partner(record: Record) -> Record:
    """Make an unlabelled record of the second text of a pair."""
    _, text, *more = record.texts
    if more:
        raise DataError(
            "two tasks have different second sentences", where=record.where,
            expected="one pair a record",
        )  # fmt: skip
    return Record(text, None, {}, record.where)


def _bytes(text: str) -> NDArray[np.int8]:
    return np.frombuffer(text.encode(), np.int8)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    iterator = iter(records)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


class _TargetBuilder:
    """Collects one task's targets."""

    def __init__(self, task: TaskConfig, labels: LabelSet, limit: int) -> None:
        self._task, self._labels = task, labels
        self._kind: Kind = kind_of(task.kind)
        self._labelled = FlatBuilder(np.int8, limit)
        self._type = self._kind.target_type(labels)
        self._values = RaggedBuilder(self._type, limit)

    def extend(self, task: str, records: Sequence[Record], encodings: Sequence[Encoding]) -> None:
        rows = []
        for record, encoding in zip(records, encodings, strict=True):
            try:
                rows.append(
                    self._kind.target(
                        record.labels.get(task), encoding.word_spans, self._labels, self._task
                    )
                )
            except DataError as error:
                raise DataError(
                    f"task {task!r}: {error.found}", expected=error.expected, where=record.where,
                    fix="Correct the record, or add the label to `labels` of the task.",
                ) from None  # fmt: skip
        self._labelled.extend([record.labels.get(task) is not None for record in records])
        self._values.extend([np.asarray(row, self._type) for row in rows])

    def finish(self, partners: NDArray[np.int64] | None) -> TaskTargets:
        return TaskTargets(
            self._task.kind,
            self._labelled.finish().view(np.bool_),
            self._values.finish(),
            len(self._labels),
            partners,
        )
