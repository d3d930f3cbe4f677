"""Prediction: texts to labels, entities and embeddings, with any backend.

No deep-learning framework is needed here: a backend runs the model, and everything around it,
from tokenisation (`preprocessing`) to decoding (`postprocessing`), is the same for all of them.

Texts go through in chunks, so that a stream of any length needs constant memory. In a chunk,
sentences of similar length make a batch; a parallel backend computes several batches at once
while those before are decoded here, and the next chunk is tokenised meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from operator import index
from typing import Any, SupportsIndex, get_args

import numpy as np

from manyheads.config import BATCH_TOKENS
from manyheads.errors import RequestError, listed, listing, nearest, option, shorten
from manyheads.inference.backends.base import Backend
from manyheads.inference.parallel import parallel_batches, run_in_order, single_batch_backend
from manyheads.inference.postprocessing import (
    Answer,
    Postprocessor,
    Probabilities,
    RecordedResults,
    ScopeInputs,
    ScoredResults,
    check_outputs,
    soft_answers,
)
from manyheads.inference.preprocessing import BatchLimits, Chunk, Job, Preprocessor
from manyheads.inference.processor import sample_outputs
from manyheads.inference.texts import Text, WhenEmpty, check_each, check_texts
from manyheads.storage import Reading
from manyheads.tasks import (
    EMBEDDING,
    Prediction,
    Scope,
    Scoring,
    TaskSpec,
    Thresholds,
    kind_of,
    units_of,
)
from manyheads.text import Floats, TextTokenizer


class Predictor:
    """A trained model, ready to predict.

    Args:
        backend: runs the model.
        tokenizer: the encoder's tokenizer.
        specs: the model's tasks.
        max_length: tokens the encoder reads at once, special ones included. Longer texts are read
            in overlapping windows.
        pad_id: the token id of padding.
        learned: by task, the parameters that its decoding needs (see `Kind.learned`).
        reading: what the embedding reads of a text: its prompts and its length, which is
            `max_length` by default.
        stride: tokens that neighbouring windows share; default, a quarter of a window.
        token_budget: tokens of a batch, padding included.
        max_sentences: sentences of a batch.
        embedding_size: length of the embedding, if the backend's is to be checked.
        scorings: by task, its calibration and thresholds, if it has them.
        scope: computes the probability that a text is of a known class, if the model has one.
    """

    reload: Callable[[], Predictor] | None = None
    """Loads the same predictor again. If set, a pickle holds this call in place of the model."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: TextTokenizer,
        specs: Sequence[TaskSpec],
        *,
        max_length: int,
        pad_id: int,
        learned: Mapping[str, Any] | None = None,
        reading: Reading | None = None,
        stride: int | None = None,
        token_budget: int = BATCH_TOKENS,
        max_sentences: int = 256,
        embedding_size: int | None = None,
        scorings: Mapping[str, Scoring] | None = None,
        scope: Scope | None = None,
    ) -> None:
        self.backend = backend
        self.scorings = dict(scorings or {})
        """By task, its calibration and thresholds, if it has them."""
        self.scope = scope
        """Computes the probability that a text is of a known class; None if the model has none."""
        self.specs = tuple(specs)
        self.reading = reading or Reading()
        """What the embedding reads of a text."""
        self.max_length = max_length
        tokenizer = tokenizer.with_units(units_of(spec.label_set() for spec in specs))
        reads_features = any(spec.word_features is not None for spec in specs)
        self.tokenizer = tokenizer.with_word_features(reads_features)
        self.pairs = any(spec.answers and kind_of(spec.kind).pairs for spec in self.specs)
        """Whether a task answers for pairs of texts."""
        self._learned = dict(learned or {})
        self._embedding_size = embedding_size
        self._limits = BatchLimits(token_budget, max_sentences)
        room = max_length - tokenizer.prefix - tokenizer.suffix
        self._preprocessor = Preprocessor(
            self.tokenizer,
            pad_id,
            max_length,
            max(0, room // 4) if stride is None else stride,
            self.reading.prompt,
            self.reading.max_length or max_length,
            self.pairs,
            self._limits,
        )

    def __reduce__(self) -> tuple[object, ...]:
        if self.reload is None:
            raise RequestError(
                "this predictor runs a model in memory, and cannot be pickled or copied",
                expected="the predictor of an exported graph, or a `Model`, which holds its path",
                fix="Pickle what manyheads.load returns.",
            )
        return (self.reload, ())

    def sample_outputs(self) -> dict[str, Floats]:
        """Compute the backend's outputs for a few fixed sentences, for comparing processors."""
        backend = single_batch_backend(self.backend)
        return sample_outputs(backend, self.tokenizer, self.max_length, self._preprocessor.pad_id)

    def predict(
        self,
        texts: Sequence[Text],
        *,
        embed: bool = False,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        logits: bool = False,
    ) -> list[Prediction]:
        """Predict for some texts, each a string or a list of tokens, or a pair of strings.

        A task of pairs answers for pairs only, and the others for a pair's first text.

        Args:
            texts: what to predict for. A pair is a `TextPair` or, for a model with a task of pairs,
                any tuple of two strings.
            embed: whether predictions have the embedding.
            tasks: the tasks to answer; default, all. A task of scored pairs answers nothing for a
                single text: it is in the embedding.
            when_empty: whether a text without words (empty, or only white space and the like)
                gets a prediction with `empty` set and no labels, or is refused.
            top_k: the number of most probable labels that each result lists.
            thresholds: whether results below the model's thresholds are undecided; or by task the
                score that they have to reach.
            logits: whether results also have the head's raw output.

        Raises:
            RequestError: a text is not a string or list of strings, or is refused as empty; or a
                task is unknown or of scored pairs; or an option is impossible.
        """
        check_texts(texts)
        texts = list(texts)
        # A list is answered as a whole or not at all, so it is not worth computing a part of it.
        check_each(texts, self._preprocessor.pairs)
        return list(
            self.predict_stream(
                texts, embed=embed, tasks=tasks, when_empty=when_empty, top_k=top_k,
                thresholds=thresholds, logits=logits,
            )
        )  # fmt: skip

    def predict_stream(
        self,
        texts: Iterable[Text],
        *,
        embed: bool = False,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
        chunk: int = 2048,
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        logits: bool = False,
        after_chunk: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction]:
        """Predict for any number of texts, in their order and in constant memory.

        If the iterable of texts fails, the texts before are answered, and then its error is raised.
        Args and errors are those of `predict`, and:
            chunk: texts that are processed together. One more chunk is read ahead, except with
                `chunk=1`, where each text is answered before the next is requested.
            after_chunk: called when all predictions of a chunk have been taken.
        """
        check_texts(texts)
        if when_empty not in get_args(WhenEmpty):
            raise RequestError(
                f"when_empty is {shorten(when_empty)}",
                expected=f"one of: {listing(get_args(WhenEmpty))}",
                fix='Use "flag" and leave out the predictions that are `empty`.',
            )
        answer = ScoredResults(self._scorings(top_k, thresholds, logits))
        yield from self._answered(
            texts, self._chosen(tasks), answer, self.scope, embed=embed, when_empty=when_empty,
            chunk=chunk, after_chunk=after_chunk,
        )  # fmt: skip

    def record(
        self, texts: Iterable[Text], tasks: Sequence[str], *, embed: bool = False
    ) -> list[Prediction]:
        """Predict for some texts without thresholds, with everything that calibration is fitted on.

        Results are `Recorded`. `in_scope` is the embedding and the logits of the first task that a
        scope can be fitted on.
        """
        chosen = self._chosen(tasks)
        answer = RecordedResults(ScoredResults(self._scorings(thresholds=False)))
        able = (spec.name for spec in chosen if kind_of(spec.kind).scopes)
        scope = next((ScopeInputs(name) for name in able), None)
        return list(self._answered(texts, chosen, answer, scope, embed=embed))

    def answers_scope(self, tasks: Sequence[str] | None = None) -> bool:
        """Return whether predictions of these tasks, by default all, have `in_scope`."""
        return self.scope is not None and bool(self._chosen(tasks))

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Return the number of tokens of all texts, the prompt and special tokens included."""
        prompted = [self._preprocessor.prompt + text for text in texts]
        return sum(len(encoding.ids) for encoding in self.tokenizer.encode_batch(prompted))

    def on_calling_thread(self) -> Predictor:
        """Return a predictor of the same model that computes one batch at a time, on the thread
        that calls it. Several threads may use it at once."""
        return self._twin(backend=single_batch_backend(self.backend))

    def prompt_of(self, name: str | None = None, prompt: str | None = None) -> str | None:
        """Return the prompt that a caller chose; None if it is the encoder's default prompt.

        Args:
            name: that of one of the encoder's prompts.
            prompt: the prompt itself, in place of one of the encoder's.

        Raises:
            RequestError: both are given, the encoder has no such prompt, it leaves prompts out of
                the pooling, or it reads nothing behind one of that length.
        """
        if name is None and prompt is None:
            return None
        known = self.reading.prompts
        if name is not None and prompt is not None:
            raise RequestError(
                f"a prompt, {shorten(prompt)}, and the name of one, {shorten(name)}",
                expected="one of the two",
            )
        if prompt is None and name not in known:
            raise RequestError(
                f"the encoder has no prompt {shorten(name)}{nearest(str(name), known)}",
                expected=f"one of: {listing(known)}" if known else "",
                fix="Name one of these, or give the prompt itself."
                if known
                else "Give the prompt itself.",
            )
        text = known[str(name)] if prompt is None else prompt
        if text and not self.reading.include_prompt:
            raise RequestError(
                "the encoder leaves prompts out of the pooling, which is not supported",
                fix="Embed without a prompt, or use SentenceTransformer.",
            )
        if text == self.reading.prompt:
            return None
        limit = self._preprocessor.embedding_length
        if text and (tokens := self.with_prompt(text).count_tokens([""])) >= limit:
            raise RequestError(
                f"the prompt has {tokens:,} tokens, special ones included, and the embedding reads "
                f"{limit:,}, so that no text would be read",
                expected="a shorter prompt",
            )
        return text

    def with_prompt(self, prompt: str | None) -> Predictor:
        """Return a predictor of the same model whose embedding reads this before each text; with
        None, the encoder's default prompt."""
        if prompt is None:
            return self
        return self._twin(_preprocessor=replace(self._preprocessor, prompt=prompt))

    def _twin(self, **changes: object) -> Predictor:
        # Not copy.copy, which loads the model again where `reload` is set.
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), **changes)
        return twin

    def predict_proba(self, texts: Sequence[Text], task: str | None = None) -> Floats:
        """Return the probability of every label of a task.

        Args:
            texts: N texts.
            task: a task with one class or several classes a text; default: the only one.

        Returns:
            [N, L] float32 in the order of the task's labels; NaN for a text without words.

        Raises:
            RequestError: the task is unknown, has no such probabilities, or there are several; or
                a text is invalid.
        """
        able = [spec for spec in self.specs if kind_of(spec.kind).has_probabilities]
        [*chosen] = able if task is None else [s for s in self._chosen([task]) if s in able]
        if len(chosen) != 1:
            if chosen:
                found = "the task is not named"
            elif task is None:
                found = "there is no task with a probability for each label"
            else:
                found = f"task {shorten(task)} has no probability for each label"
            raise RequestError(
                found,
                expected=f"one of: {listing(spec.name for spec in able)}" if able else "",
                fix='Name the task: task="NAME".' if chosen else "",
            )
        check_texts(texts)
        (spec,) = chosen
        answered = self._answered(texts, chosen, Probabilities(self.scorings))
        rows = [prediction.results.get(spec.name) for prediction in answered]
        result = np.full((len(rows), len(spec.labels)), np.nan, np.float32)
        for number, row in enumerate(rows):
            if isinstance(row, np.ndarray):
                result[number] = row
        return result

    def soft_stream(self, texts: Iterable[Text], tasks: Sequence[str]) -> Iterator[Prediction]:
        """Yield the targets that another model can learn from each text.

        These are the embedding and, by task, a `SoftAnswer`, or a result without labels for a text
        without words.

        Args:
            texts: as for `predict_stream`.
            tasks: tasks whose kinds teach.
        """
        chosen = [spec for spec in self.specs if spec.name in tasks]
        yield from self._answered(texts, chosen, embed=True, answer=soft_answers)

    def _answered(
        self,
        texts: Iterable[Text],
        specs: Sequence[TaskSpec],
        answer: Answer,
        scope: Scope | ScopeInputs | None = None,
        *,
        embed: bool = False,
        when_empty: WhenEmpty = "flag",
        chunk: int = 2048,
        after_chunk: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction]:
        """Predict for a stream of texts, with answers made by `answer`."""
        scope = scope if specs else None
        names = [*(spec.name for spec in specs), *([EMBEDDING] if embed else [])]
        names += [] if scope is None else {scope.task, EMBEDDING} - set(names)
        workers = parallel_batches(self.backend)
        postprocessor = Postprocessor(specs, embed, self._learned, self._limits, answer, scope)
        jobs = (
            job
            for items in self._preprocessor.items(texts, chunk, when_empty, embed)
            for job in self._preprocessor.jobs(Chunk(items, names), workers)
        )
        for job, outputs in run_in_order(self.backend, jobs, self._compute, ahead=chunk > 1):
            yield from postprocessor.take(job, outputs)
            if not job.chunk.batches_left:
                after_chunk()

    def _compute(self, backend: Backend, job: Job) -> Mapping[str, Floats]:
        """Run the model on a batch of windows."""
        if not job.members:
            return {}
        batch = self._preprocessor.batch(job)
        outputs = backend.run(batch)
        names, size = list(job.chunk.outputs), self._embedding_size
        check_outputs(self.backend.name, outputs, batch, names, self.specs, size)
        return outputs

    def _scorings(
        self,
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        logits: bool = False,
    ) -> dict[str, Scoring]:
        """Return the scoring of each task.

        Raises:
            RequestError: `top_k` is negative, `thresholds` are neither of both, or a threshold is
                not a probability or of no task.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, SupportsIndex) or index(top_k) < 0:
            raise RequestError(f"top_k is {shorten(top_k)}", expected="a whole number from 0")
        top_k = index(top_k)
        if not isinstance(thresholds, bool | np.bool_ | Mapping):
            raise RequestError(
                f"thresholds are {shorten(thresholds)}",
                expected='True, False, or the scores by task, such as {"intent": 0.8}',
            )
        given = thresholds if isinstance(thresholds, Mapping) else {}
        self._chosen(list(given))
        for task, score in given.items():
            able = isinstance(score, Real) and not isinstance(score, bool)
            if not able or not 0 <= score <= 1:
                found = f"the threshold of task {shorten(task)} is {shorten(score)}"
                raise RequestError(found, expected="a number from 0 to 1")
        scorings = {}
        for spec in self.specs:
            known = self.scorings.get(spec.name, Scoring())
            limits = known.thresholds if thresholds else None
            if spec.name in given:
                limits = Thresholds(0.0, 0.0, float(given[spec.name]))
            scorings[spec.name] = replace(known, thresholds=limits, top_k=top_k, logits=logits)
        return scorings

    def _chosen(self, tasks: Sequence[str] | None) -> list[TaskSpec]:
        answering = [spec for spec in self.specs if spec.answers]
        if tasks is None:
            return answering
        tasks = listed("tasks", tasks)
        names = [spec.name for spec in answering]
        for task in tasks:
            if any(spec.name == task for spec in self.specs) and task not in names:
                raise RequestError(
                    f"task {shorten(task)} scores pairs and says nothing of a single text",
                    expected=f"one of: {listing(names)}" if names else "",
                    fix=f"What it trained is the embedding: ask for that ({option('--embed')}).",
                )
            if task not in names:
                raise RequestError(
                    f"task {shorten(task)} is not one of the model's{nearest(str(task), names)}",
                    expected=f"one of: {listing(names)}",
                    fix="Ask for a task that the model was trained on.",
                )
        return [spec for spec in answering if spec.name in tasks]


def embed_texts(predictor: Predictor, texts: Sequence[str]) -> Floats:
    """Embed texts, [N, E]; a text without words becomes zeros."""
    found = [p.embedding for p in predictor.predict(texts, tasks=[], embed=True)]
    if all(vector is None for vector in found):  # The size is that of any text.
        [other] = predictor.predict(["a"], tasks=[], embed=True)
        size = 1 if other.embedding is None else len(other.embedding)
    else:
        size = next(len(vector) for vector in found if vector is not None)
    rows = [np.zeros(size, np.float32) if vector is None else vector for vector in found]
    return np.stack(rows) if rows else np.zeros((0, size), np.float32)
