"""Outputs of batches to predictions: windows are joined, decoded, and put in the texts' order.

Axes: B windows or sentences of a batch, W words, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, listing
from manyheads.inference.preprocessing import BatchLimits, Chunk, Item, Job
from manyheads.tasks import EMBEDDING, Prediction, Scope, Scoring, TaskSpec, kind_of
from manyheads.text import Batch, Floats, mean_over_windows, plan_batches, stitch_words

Answer = Callable[[TaskSpec, Sequence[Item], Floats, list[int] | None, Any], list[Any]]
"""Turns a head's outputs for some texts into an answer for each. Also takes their word counts, if
the head answers by word, and the parameters that its decoding needs."""


def results(
    spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None, learned: Any
) -> list[Any]:
    """Answer with results."""
    kind = kind_of(spec.kind)
    return kind.results(spec, items, kind.decode(spec, outputs, counts, learned))


@dataclass(frozen=True, slots=True)
class ScoredResults:
    """Answers with results that are scored as their task's `Scoring` says."""

    scorings: Mapping[str, Scoring]
    """By task."""

    def __call__(
        self, spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None,
        learned: Any,
    ) -> list[Any]:  # fmt: skip
        """Decode and score some texts."""
        return self.scored(spec, results(spec, items, outputs, counts, learned), outputs, learned)

    def scored(
        self, spec: TaskSpec, found: list[Any], outputs: Floats, learned: Any
    ) -> list[Any]:  # fmt: skip
        """Score results that were decoded."""
        scoring = self.scorings.get(spec.name, Scoring())
        if scoring.is_plain:
            return found
        return kind_of(spec.kind).scored(spec, found, outputs, learned, scoring)


class Recorded(NamedTuple):
    """A result, and what calibration is fitted on."""

    result: Any
    """With calibrated scores."""
    plain: Any
    """As decoded."""
    logits: Floats
    """[L] for a task with one output per text."""


@dataclass(frozen=True, slots=True)
class RecordedResults:
    """Answers with `Recorded` results."""

    scored: ScoredResults

    def __call__(
        self, spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None,
        learned: Any,
    ) -> list[Any]:  # fmt: skip
        """Decode and score some texts, and keep their logits."""
        plain = results(spec, items, outputs, counts, learned)
        scored = self.scored.scored(spec, plain, outputs, learned)
        logits = kind_of(spec.kind).class_logits(outputs, learned)
        return [Recorded(*row) for row in zip(scored, plain, logits, strict=True)]


@dataclass(frozen=True, slots=True)
class ScopeInputs:
    """Takes the place of a scope and returns the data that one is fitted on."""

    task: str

    def probabilities(self, embeddings: Floats, logits: Floats) -> list[tuple[Floats, Floats]]:
        """Return the embedding and the logits of each text."""
        return list(zip(embeddings, logits, strict=True))


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Answers with [L] calibrated probabilities instead of results."""

    scorings: Mapping[str, Scoring]

    def __call__(
        self, spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None,
        learned: Any,
    ) -> list[Any]:  # fmt: skip
        """Compute the probabilities of some texts."""
        calibration = self.scorings.get(spec.name, Scoring()).calibration
        return list(kind_of(spec.kind).calibrated(outputs, learned, calibration))


class SoftAnswer(NamedTuple):
    """A target for another model, made of a task's outputs for a text (see `Kind.soft`)."""

    values: Floats
    """[S] or [W, S]."""
    words: NDArray[np.integer[Any]]
    """[W, 2] the characters of the words that the model read."""


def soft_answers(
    spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None, learned: Any
) -> list[Any]:
    """Answer with targets for another model."""
    values = kind_of(spec.kind).soft(spec, outputs, counts, learned)
    return [
        SoftAnswer(
            values[i] if counts is None else values[i, : counts[i]], item.encoding.word_spans
        )
        for i, item in enumerate(items)
    ]


def check_outputs(
    backend: str,
    outputs: Mapping[str, Floats],
    batch: Batch,
    names: Sequence[str],
    specs: Sequence[TaskSpec],
    embedding_size: int | None,
) -> None:
    """Check outputs before they are decoded, since a graph may come from anywhere.

    Args:
        backend: the backend's name in messages.
        outputs: by name.
        batch: what they were computed from.
        names: the requested outputs.
        specs: the model's tasks.
        embedding_size: length of the embedding, if known.

    Raises:
        ModelError: an output is missing, or has another shape or type.
    """
    sentences = (len(batch.input_ids),)
    words = batch.word_mask.shape
    wanted = {
        spec.name: (*(words if kind_of(spec.kind).per_word else sentences), size)
        for spec in specs
        if (size := kind_of(spec.kind).output_size(spec)) and spec.name in outputs
    }
    if embedding_size is not None and EMBEDDING in outputs:
        wanted[EMBEDDING] = (*sentences, embedding_size)
    for name, shape in wanted.items():
        values = outputs[name]
        if values.shape != shape or values.dtype != np.float32:
            raise ModelError(
                f"backend {backend} has {values.dtype} {values.shape} as output {name!r}",
                expected=f"float32 {shape}",
                fix="Export the model again.",
            )
    for name in names:
        if name not in outputs:
            raise ModelError(
                f"backend {backend} has no output {name!r}",
                expected=f"one for every task, and {EMBEDDING!r}; it has {listing(outputs)}",
                fix="Export the model again.",
            )


@dataclass(frozen=True, slots=True)
class Postprocessor:
    """Turns outputs into predictions for some tasks."""

    specs: Sequence[TaskSpec]
    """The tasks to answer."""
    embed: bool
    """Whether predictions have the embedding."""
    learned: Mapping[str, Any]
    """By task, the parameters that its decoding needs."""
    limits: BatchLimits
    answer: Answer
    scope: Scope | ScopeInputs | None = None
    """Computes whether texts are in scope."""

    def take(self, job: Job, outputs: Mapping[str, Floats]) -> Iterator[Prediction]:
        """Take a batch's outputs; with the last batch of a chunk, yield the chunk's predictions."""
        chunk = job.chunk
        places = [chunk.places[member] for member in job.members]
        for name, rows in chunk.outputs.items():
            for (i, part), value in zip(places, outputs.get(name, ()), strict=True):
                rows[i][part] = value
        complete = []
        for i, _ in places:
            chunk.missing[i] -= 1
            if not chunk.missing[i] and not chunk.items[i].is_second:
                complete.append(i)
        self._answer_texts(chunk, complete)
        chunk.batches_left -= 1
        if not chunk.batches_left:
            self._answer_pairs(chunk)
            yield from self._predictions(chunk)

    def _answer_texts(self, chunk: Chunk, complete: Sequence[int]) -> None:
        """Decode the tasks of single texts, for texts whose windows have all been read."""
        # Grouped by length once more, since decoding works on padded arrays, too.
        sizes = [len(chunk.items[i].encoding.word_starts) for i in complete]
        for group in plan_batches(sizes, *self.limits):
            some = [complete[k] for k in group.tolist()]
            items = [chunk.items[i] for i in some]
            for spec in self._of_pairs(False):
                logits = [chunk.outputs[spec.name][i][: len(chunk.items[i].parts)] for i in some]
                joined, counts = _joined(spec, items, logits)
                answers = self._answers(spec, items, joined, counts)
                for i, answer in zip(some, answers, strict=True):
                    chunk.results[i][spec.name] = answer

    def _answer_pairs(self, chunk: Chunk) -> None:
        """Decode the tasks of pairs, for the pairs of a chunk."""
        pairs = [(i - 1, i) for i, item in enumerate(chunk.items) if item.is_second]
        whole = [pair for pair in pairs if all(chunk.items[i].parts for i in pair)]
        parts = [item.parts for item in chunk.items]
        for spec in self._of_pairs(True):
            kind, rows = kind_of(spec.kind), chunk.outputs[spec.name]
            for i, _ in pairs:
                chunk.results[i][spec.name] = kind.no_result(spec, chunk.items[i])
            if not whole:
                continue
            outputs = np.stack(
                [
                    [mean_over_windows(parts[i], rows[i][: len(parts[i])]) for i in pair]
                    for pair in whole
                ]
            )
            answers = self._answers(spec, [chunk.items[i] for i, _ in whole], outputs, None)
            for (i, _), answer in zip(whole, answers, strict=True):
                chunk.results[i][spec.name] = answer

    def _predictions(self, chunk: Chunk) -> Iterator[Prediction]:
        """Put together the predictions for a chunk's texts."""

        def embedding(i: int) -> Floats | None:
            if not self.embed or not chunk.items[i].parts:
                return None
            # A copy, since the row would keep its whole batch in memory.
            return np.array(chunk.outputs[EMBEDDING][i][-1])

        in_scope = self._in_scope(chunk)
        for i, item in enumerate(chunk.items):
            if item.is_second:
                continue
            found = chunk.results[i]
            if not item.parts:
                single = self._of_pairs(False)
                found.update((s.name, kind_of(s.kind).no_result(s, item)) for s in single)
            prediction = Prediction(
                item.text,
                {spec.name: found[spec.name] for spec in self.specs if spec.name in found},
                embedding(i),
                len(item.parts),
                in_scope=in_scope.get(i),
            )
            if i + 1 < len(chunk.items) and chunk.items[i + 1].is_second:
                second = chunk.items[i + 1].text
                prediction = replace(prediction, text2=second, embedding2=embedding(i + 1))
            yield prediction

    def _in_scope(self, chunk: Chunk) -> dict[int, Any]:
        """Return, by text, the probability that it is in scope; for single texts with words."""
        places = [i for i, item in enumerate(chunk.items) if item.parts and not item.is_second]
        if self.scope is None or not places:
            return {}
        parts = [item.parts for item in chunk.items]
        embeddings, logits = (
            # Concatenated, since stacking takes longer than computing the probabilities.
            np.concatenate(
                [mean_over_windows(parts[i], rows[i][: len(parts[i])]) for i in places]
            ).reshape(len(places), -1)
            for rows in (chunk.outputs[EMBEDDING], chunk.outputs[self.scope.task])
        )
        found = self.scope.probabilities(embeddings, logits)
        return dict(zip(places, found if isinstance(found, list) else found.tolist(), strict=True))

    def _of_pairs(self, pairs: bool) -> list[TaskSpec]:
        return [spec for spec in self.specs if kind_of(spec.kind).pairs is pairs]

    def _answers(
        self, spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None
    ) -> list[Any]:
        return self.answer(spec, items, outputs, counts, self.learned.get(spec.name))


def _joined(
    spec: TaskSpec, items: Sequence[Item], logits: Sequence[list[Floats]]
) -> tuple[Floats, list[int] | None]:
    """Join the logits of the windows of some texts.

    Returns:
        [N, L]; or for a task that answers by word [N, W, L] and each text's number of words.
    """
    if not kind_of(spec.kind).per_word:
        pairs = zip(items, logits, strict=True)
        return np.stack([mean_over_windows(item.parts, v) for item, v in pairs]), None
    counts = [len(item.encoding.word_starts) for item in items]
    outputs = np.zeros((len(items), max(counts), logits[0][0].shape[-1]), np.float32)
    for row, count, item, values in zip(outputs, counts, items, logits, strict=True):
        row[:count] = stitch_words(item.parts, values)
    return outputs, counts
