"""Soft targets for a data set: the mean of the teachers' answers, as flat arrays.

Axes: N sentences, B sentences of a batch, W words, S numbers of an answer, E embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manyheads.config import TaskConfig
from manyheads.errors import ConfigError, counted, listing
from manyheads.tasks import EMBEDDING, LabelSet, kind_of
from manyheads.text import Floats, TextTokenizer, truncate
from manyheads.training.data.batching import Rows
from manyheads.training.data.dataset import Dataset
from manyheads.training.data.ragged import Ragged, RaggedBuilder
from manyheads.training.teaching.sources import (
    CHUNK,
    Answers,
    Sentences,
    Source,
    Texts,
    mean_of,
)

_SECONDS = 20.0


@dataclass(frozen=True)
class SoftTargets:
    """A data set's targets by task."""

    values: Mapping[str, Ragged]
    """By task, [N] rows of S or W x S numbers; empty or NaN where nothing is known."""
    sizes: Mapping[str, int]
    """By task, S."""
    known: Mapping[str, float]
    """By task, the mean number of known answers per sentence: of words, or 0 to 1 of sentences; by
    `EMBEDDING` the share of sentences with an embedding."""
    per_word: frozenset[str]
    """The tasks with an answer for each word."""
    embedding: Ragged | None
    """[N] rows of E numbers, empty where there are none."""

    def batch(self, task: str, rows: Rows, width: int) -> Floats:
        """Gather targets, NaN if unknown: [B, S], or [B, W, S] of a task with an answer per word.

        Args:
            task: its name.
            rows: [B] the sentences.
            width: W of the batch.
        """
        size = self.sizes[task]
        columns = width * size if task in self.per_word else size
        found = self.values[task].padded(rows, np.nan, columns).astype(np.float32)
        return found.reshape(len(rows), width, size) if task in self.per_word else found

    def embeddings(self, rows: Rows) -> Floats:
        """Gather embeddings: [B, E], NaN where there is none."""
        assert self.embedding is not None
        return self.embedding.padded(rows, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Lesson:
    """What the teachers teach."""

    sources: Sequence[Source]
    taught: Sequence[Sequence[str]]
    """The tasks that each source teaches."""
    kinds: Mapping[str, str]
    """The kind of each task."""
    labels: Mapping[str, LabelSet]
    """The labels of each task."""
    embed: bool
    """Whether the embedding is taught."""

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        tasks: Mapping[str, TaskConfig],
        labels: Mapping[str, LabelSet],
        embed: bool,
    ) -> Lesson:
        """Determine what the teachers teach.

        Raises:
            ConfigError: they teach nothing, or do not fit the student's tasks.
        """
        taught = [source.tasks(tasks, labels) for source in sources]
        names = [name for name in tasks if any(name in some for some in taught)]
        if not names and not embed:
            raise ConfigError(
                f"`teacher`: the tasks {listing(tasks)} train only the embedding",
                expected="a task with a head, or `teacher.embedding` above 0",
            )
        kinds = {name: tasks[name].kind for name in names}
        return cls(sources, taught, kinds, {name: labels[name] for name in names}, embed)

    def describe(self, datasets: Sequence[Dataset]) -> list[str]:
        """Describe where the teachers' answers for some data sets come from, each in a sentence."""
        found = [
            source.describe(
                (_texts(dataset, rows) for dataset in datasets for rows in _chunks(dataset)),
                {name: self.labels[name] for name in taught}, embed=self.embed,
            )
            for source, taught in zip(self.sources, self.taught, strict=True)
        ]  # fmt: skip
        return list(dict.fromkeys(found))

    def targets(
        self, dataset: Dataset, tokenizer: TextTokenizer, max_length: int,
        report: Callable[[str], None],
    ) -> SoftTargets:  # fmt: skip
        """Query the teachers for a data set's sentences.

        Args:
            dataset: with its texts.
            tokenizer: the student's.
            max_length: sub-tokens that the student reads.
            report: receives messages about progress.

        Raises:
            ConfigError: the teachers' embeddings have different lengths.
        """
        # The logit of a probability near 1 depends on digits that 16 bits lack. For every word, 32
        # would take twice the memory.
        builders = {
            name: RaggedBuilder(np.float16 if kind_of(kind).per_word else np.float32)
            for name, kind in self.kinds.items()
        }
        vectors = RaggedBuilder(np.float32)
        sizes = {name: max(1, len(self.labels[name])) for name in self.kinds}
        known = dict.fromkeys([*self.kinds, EMBEDDING], 0.0)
        told = time.monotonic()
        for rows in _chunks(dataset):
            sentences = _sentences(dataset, rows, tokenizer, max_length)
            answers = [
                source.answers(
                    sentences, {name: self.labels[name] for name in taught}, embed=self.embed
                )
                for source, taught in zip(self.sources, self.taught, strict=True)
            ]
            for name, builder in builders.items():
                given = [answer.tasks[name] for answer in answers if name in answer.tasks]
                means = [mean_of([one[number] for one in given]) for number in range(len(rows))]
                known[name] += sum(mean.size / mean.shape[-1] for mean in means if mean is not None)
                builder.extend([_EMPTY if mean is None else mean.ravel() for mean in means])
            if self.embed:
                embeddings = _mean_embeddings(answers, len(rows))
                known[EMBEDDING] += sum(one.size > 0 for one in embeddings)
                vectors.extend(embeddings)
            if time.monotonic() - told > _SECONDS:
                told = time.monotonic()
                report(
                    f"The teachers' answers on {rows[-1] + 1:,} of {len(dataset):,} sentences are "
                    "known."
                )
        return SoftTargets(
            {name: builder.finish() for name, builder in builders.items()},
            sizes,
            {name: count / len(dataset) for name, count in known.items()},
            frozenset(name for name, kind in self.kinds.items() if kind_of(kind).per_word),
            vectors.finish() if self.embed else None,
        )


_EMPTY = np.zeros(0, np.float32)


def _chunks(dataset: Dataset) -> Iterator[Rows]:
    """Yield the rows for which the teachers are queried at once."""
    for start in range(0, len(dataset), CHUNK):
        yield np.arange(start, min(len(dataset), start + CHUNK))


def _texts(dataset: Dataset, rows: Rows) -> Texts:
    partners = None if dataset.partners is None else dataset.partners[rows]
    seconds = [
        None if partners is None or partners[i] < 0 else dataset.text(int(partners[i]))
        for i in range(len(rows))
    ]
    return Texts([dataset.text(int(row)) for row in rows], seconds)


def _sentences(
    dataset: Dataset, rows: Rows, tokenizer: TextTokenizer, max_length: int
) -> Sentences:
    given = _texts(dataset, rows)
    words = [
        truncate(encoding, max_length)[0].word_spans
        for encoding in tokenizer.encode_batch(given.texts)
    ]
    return Sentences(given.texts, given.seconds, words)


def _mean_embeddings(answers: Sequence[Answers], count: int) -> list[Floats]:
    """Return the mean of the teachers' embeddings of each sentence, empty if there is none."""
    given = [answer.embedding for answer in answers if answer.embedding is not None]
    if len({one.shape[1] for one in given}) > 1:
        sizes = listing(str(one.shape[1]) for one in given)
        raise ConfigError(
            f"`teacher`: the embeddings have different lengths: {sizes}", expected="one length",
            fix=f"Name one teacher of {counted(len(given), 'teacher')}, or leave out "
            "`teacher.embedding`.",
        )  # fmt: skip
    result = []
    for number in range(count):
        known = [one[number] for one in given if not np.isnan(one[number]).any()]
        result.append(np.mean(known, axis=0) if known else np.zeros(0, np.float32))
    return result
