"""Prediction: from texts to labels, entities and embeddings, whatever computes the logits.

No deep-learning framework is needed here: a backend runs the model, and everything around it,
from tokenisation to decoding, is the same for all of them.

Texts go through in chunks, so that a stream of any length needs constant memory. In a chunk,
sentences of similar length make a batch; a parallel backend computes several batches at once
while those before are decoded here, and the next chunk is tokenised meanwhile.

Axes: B windows or sentences of a batch, W words, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from manyheads.config import BATCH_TOKENS
from manyheads.errors import ModelError, RequestError, listing, nearest, shorten
from manyheads.inference.backends.base import Backend
from manyheads.inference.parallel import parallel_batches, run_in_order, single_batch_backend
from manyheads.inference.processor import sample_outputs
from manyheads.tasks import EMBEDDING, Prediction, Result, TaskSpec, WordSpan, kind_of, units_of
from manyheads.text import (
    Batch,
    Encoding,
    Floats,
    TextTokenizer,
    Window,
    beginning,
    mean_over_windows,
    pad_batch,
    plan_batches,
    stitch_words,
    windows,
)


class TextPair(NamedTuple):
    """Two texts, for tasks that answer for both together."""

    text: str
    text2: str


Text = str | Sequence[str] | TextPair
WhenEmpty = Literal["flag", "refuse"]

_CHUNK_CHARACTERS = 1 << 20
# The least tokens of a batch, where there are more: parallel workers share what there is.
_LEAST_TOKENS = 32


class _Given(NamedTuple):
    """A text that the user gave."""

    number: int
    """Its place among all, from 1."""
    text: str
    tokens: list[WordSpan] | None
    """The characters of the user's tokens, if the text was given as such."""
    second: str | None = None
    """The second text of a pair."""


@dataclass(frozen=True, slots=True)
class Item:
    """A text on its way through the model."""

    text: str
    tokens: list[WordSpan] | None
    """The characters of the user's tokens, if the text was given as such."""
    encoding: Encoding
    parts: list[Window]
    """The text's windows; none if it has no words."""
    embedded: Window | None = None
    """What the embedding reads, where that isn't the text's only window."""
    is_second: bool = False
    """Whether it is the second text of a pair, whose first is the item before."""

    @property
    def inputs(self) -> list[Window]:
        """All that the model reads of the text; what the embedding reads comes last."""
        return self.parts if self.embedded is None else [*self.parts, self.embedded]

    @property
    def words(self) -> list[WordSpan]:
        """The characters of the words that the model reads."""
        spans: list[WordSpan] = self.encoding.word_spans.tolist()
        return spans


class _Chunk:
    """Texts that are worked on together, and what the model said of them so far."""

    def __init__(self, items: Sequence[Item], names: Sequence[str]) -> None:
        self.items = items
        self.inputs = [item.inputs for item in items]
        # Where embeddings alone are asked for, nothing else is read.
        alone = list(names) == [EMBEDDING]
        first = [len(item.parts) if alone and item.embedded else 0 for item in items]
        self.places = [
            (i, part)
            for i, inputs in enumerate(self.inputs)
            for part in range(first[i], len(inputs))
        ]
        self.outputs: dict[str, list[list[Floats]]] = {
            name: [[_NONE] * len(inputs) for inputs in self.inputs] for name in names
        }
        self.results: list[dict[str, Result]] = [{} for _ in items]
        self.missing = [len(inputs) - i for inputs, i in zip(self.inputs, first, strict=True)]
        """By text, windows that the model has not read yet."""
        self.batches_left = 0


class _Job(NamedTuple):
    """A batch of a chunk's windows; of a chunk without words an empty one."""

    chunk: _Chunk
    members: list[int]
    """Which of the chunk's `places`."""


class Predictor:
    """A trained model, ready to predict.

    Args:
        backend: what runs the model.
        tokenizer: the encoder's tokenizer.
        specs: the model's tasks.
        max_length: tokens the encoder reads at once, special ones included. Longer texts are read
            in overlapping windows.
        pad_id: the token id of padding.
        learned: by task, the parameters that its decoding needs (see `Kind.learned`).
        prompt: text that the embedding reads before each text.
        embedding_length: tokens that the embedding reads of a text, special ones included.
            Default: `max_length`.
        stride: tokens that neighbouring windows share; default, a quarter of a window.
        token_budget: tokens of a batch, padding included.
        max_sentences: sentences of a batch.
        embedding_size: length of the embedding, if the backend's is to be checked.
    """

    reload: Callable[[], Predictor] | None = None
    """Loads the same predictor again; then that is what a pickled one consists of."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: TextTokenizer,
        specs: Sequence[TaskSpec],
        *,
        max_length: int,
        pad_id: int,
        learned: Mapping[str, Any] | None = None,
        prompt: str = "",
        embedding_length: int | None = None,
        stride: int | None = None,
        token_budget: int = BATCH_TOKENS,
        max_sentences: int = 256,
        embedding_size: int | None = None,
    ) -> None:
        self.backend = backend
        self.specs = tuple(specs)
        self.max_length = max_length
        self.tokenizer = tokenizer.with_units(units_of(spec.label_set() for spec in specs))
        self._pad_id = pad_id
        self._learned = dict(learned or {})
        self._prompt = prompt
        self._embedding_length = embedding_length or max_length
        room = max_length - tokenizer.prefix - tokenizer.suffix
        self._stride = max(0, room // 4) if stride is None else stride
        self._token_budget = token_budget
        self._max_sentences = max_sentences
        self._embedding_size = embedding_size
        self.pairs = any(spec.answers and kind_of(spec.kind).pairs for spec in self.specs)
        """Whether a task answers for pairs of texts."""

    def __reduce__(self) -> str | tuple[object, ...]:
        return super().__reduce_ex__(2) if self.reload is None else (self.reload, ())

    def sample_outputs(self) -> dict[str, Floats]:
        """Compute the backend's outputs for a few fixed sentences, to compare processors by."""
        backend = single_batch_backend(self.backend)
        return sample_outputs(backend, self.tokenizer, self.max_length, self._pad_id)

    def predict(
        self,
        texts: Sequence[Text],
        *,
        embed: bool = False,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
    ) -> list[Prediction]:
        """Predict for some texts, each a string or a list of tokens, or a pair of strings.

        A task of pairs answers for pairs only, and the others for a pair's first text.

        Args:
            texts: what to predict for. A pair is a `TextPair` or, for a model with a task of pairs,
                any tuple of two strings.
            embed: whether to give the embedding as well.
            tasks: the tasks to answer; default, all. A task of scored pairs answers nothing for a
                single text: it is in the embedding.
            when_empty: a text without words (empty, or only white space and the like) either
                gets a prediction that says so, without labels, or is refused.

        Raises:
            RequestError: a text is not a string or list of strings, or is refused as empty; or a
                task is unknown or of scored pairs.
        """
        return list(self.predict_stream(texts, embed=embed, tasks=tasks, when_empty=when_empty))

    def predict_stream(
        self,
        texts: Iterable[Text],
        *,
        embed: bool = False,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
        chunk: int = 2048,
    ) -> Iterator[Prediction]:
        """Predict for any number of texts, in their order and in constant memory.

        Args and errors are those of `predict`, and:
            chunk: how many texts are worked on together. One chunk more is read ahead; with
                `chunk=1` nothing is, so that each text is answered before the next is asked for.
        """
        _check_texts(texts)
        if when_empty not in get_args(WhenEmpty):
            raise RequestError(
                f"when_empty is {shorten(when_empty)}",
                expected=f"one of: {listing(get_args(WhenEmpty))}",
                fix='Use "flag" and leave out the predictions that are `empty`.',
            )
        specs = self._chosen(tasks)
        names = [*(spec.name for spec in specs), *([EMBEDDING] if embed else [])]
        jobs = (
            job
            for items in self._prepared(texts, chunk, when_empty, embed)
            for job in self._jobs(_Chunk(items, names))
        )
        for (work, members), outputs in run_in_order(
            self.backend, jobs, self._compute, ahead=chunk > 1
        ):
            self._take(work, members, outputs, specs)
            work.batches_left -= 1
            if not work.batches_left:
                yield from self._predictions(work, specs, embed)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Return the number of tokens of all texts, special tokens included."""
        return sum(len(encoding.ids) for encoding in self.tokenizer.encode_batch(texts))

    def on_calling_thread(self) -> Predictor:
        """Return a predictor of the same model that computes one batch at a time, on the thread
        that calls it. Several threads may use it at once."""
        # Not copy.copy, which loads the model again where `reload` is set.
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), backend=single_batch_backend(self.backend))
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
            found = "there is no task" if task is None else f"task {shorten(task)}"
            if len(chosen) > 1:
                found = "the task is not named"
            raise RequestError(
                f"{found} with a probability for each label" if not chosen else found,
                expected=f"one of: {listing(spec.name for spec in able)}" if able else "",
                fix='Name the task: task="NAME".' if chosen else "",
            )
        twin = _Probabilities.of(self)
        (spec,) = chosen
        rows = [p.results.get(spec.name) for p in twin.predict(texts, tasks=[spec.name])]
        result = np.full((len(rows), len(spec.labels)), np.nan, np.float32)
        for number, row in enumerate(rows):
            if isinstance(row, np.ndarray):
                result[number] = row
        return result

    def _chosen(self, tasks: Sequence[str] | None) -> list[TaskSpec]:
        answering = [spec for spec in self.specs if spec.answers]
        if tasks is None:
            return answering
        if isinstance(tasks, str):
            raise RequestError(
                f"tasks are {shorten(tasks)}", expected="a list", fix="Put the name into a list."
            )
        names = [spec.name for spec in answering]
        for task in tasks:
            if any(spec.name == task for spec in self.specs) and task not in names:
                raise RequestError(
                    f"task {shorten(task)} scores pairs and says nothing of a single text",
                    expected=f"one of: {listing(names)}" if names else "",
                    fix="What it trained is the embedding: ask for that (--embed).",
                )
            if task not in names:
                raise RequestError(
                    f"task {shorten(task)} is not one of the model's{nearest(str(task), names)}",
                    expected=f"one of: {listing(names)}",
                    fix="Ask for a task that the model was trained on.",
                )
        return [spec for spec in answering if spec.name in tasks]

    # -------------------------------------------------------------------- from texts to windows

    def _prepared(
        self, texts: Iterable[Text], chunk: int, when_empty: WhenEmpty, embed: bool
    ) -> Iterator[list[Item]]:
        """Tokenise texts chunk by chunk, each but the first while the one before is computed."""

        def prepare(given: list[_Given]) -> list[Item]:
            return self._prepare(given, when_empty, embed)

        chunks = _chunks(texts, chunk, self.pairs)
        if chunk == 1:
            yield from map(prepare, chunks)
            return
        ready: list[Item] | None = None
        # No thread is started before there is a second chunk.
        with ThreadPoolExecutor(1, thread_name_prefix="manyheads-tokenize") as pool:
            for some in chunks:
                if ready is None:
                    ready = prepare(some)
                    continue
                following = pool.submit(prepare, some)
                yield ready
                ready = following.result()
            if ready is not None:
                yield ready

    def _prepare(self, given: list[_Given], when_empty: WhenEmpty, embed: bool) -> list[Item]:
        items = []
        seconds = iter(self._encoded([t.second for t in given if t.second is not None], embed))
        for text, (encoding, read) in zip(
            given, self._encoded([text.text for text in given], embed), strict=True
        ):
            item = self._item(text.text, text.tokens, encoding, read)
            if not item.parts and when_empty == "refuse":
                found = f"the text {shorten(text.text)} has no words"
                raise RequestError(
                    found if text.text else "the text is empty",
                    expected="a text with at least one word",
                    fix="Leave it out.",
                    where=f"text {text.number}",
                )
            items.append(item)
            if text.second is not None:
                items.append(self._item(text.second, None, *next(seconds), is_second=True))
        return items

    def _encoded(
        self, texts: Sequence[str], embed: bool
    ) -> Iterator[tuple[Encoding, Encoding | None]]:
        """Encode texts, each for the heads and, if embeddings are asked for, for those."""
        encodings = self.tokenizer.encode_batch(texts)
        if not embed:
            return zip(encodings, repeat(None))
        if not self._prompt:
            return zip(encodings, encodings, strict=True)
        prompted = self.tokenizer.encode_batch([self._prompt + text for text in texts])
        return zip(encodings, prompted, strict=True)

    def _item(
        self,
        text: str,
        tokens: list[WordSpan] | None,
        encoding: Encoding,
        read: Encoding | None,
        *,
        is_second: bool = False,
    ) -> Item:
        """Put together what the heads and the embedding read of a text."""
        parts = self._windows(encoding)
        same = read is encoding and len(parts) == 1 and len(read.ids) <= self._embedding_length
        if read is None or not parts or same:
            return Item(text, tokens, encoding, parts, None, is_second)
        embedded = beginning(read, self._embedding_length)
        return Item(text, tokens, encoding, parts, embedded, is_second)

    def _windows(self, encoding: Encoding) -> list[Window]:
        if not len(encoding.word_starts):
            return []
        return windows(encoding, self.max_length, self._stride)

    # ------------------------------------------------------------------ from windows to answers

    def _jobs(self, chunk: _Chunk) -> Iterator[_Job]:
        """Plan the batches of a chunk: windows of similar length, a fair share for each worker."""
        windows = [chunk.inputs[i][part] for i, part in chunk.places]
        lengths = [len(window.ids) for window in windows]
        share = max(_LEAST_TOKENS, -(-sum(lengths) // parallel_batches(self.backend)))
        batches = plan_batches(lengths, min(self._token_budget, share), self._max_sentences)
        members = [batch.tolist() for batch in batches] or [[]]
        chunk.batches_left = len(members)
        for some in members:
            yield _Job(chunk, some)

    def _compute(self, backend: Backend, job: _Job) -> Mapping[str, Floats]:
        """Run the model on a batch of windows."""
        if not job.members:
            return {}
        inputs, places = job.chunk.inputs, job.chunk.places
        windows = [inputs[i][part] for i, part in (places[m] for m in job.members)]
        batch = pad_batch(windows, self._pad_id)
        outputs = backend.run(batch)
        self._check_shapes(outputs, batch)
        return outputs

    def _check_shapes(self, outputs: Mapping[str, Floats], batch: Batch) -> None:
        """Check outputs before they are decoded: a graph may come from anywhere."""
        sentences = (len(batch.input_ids),)
        words = batch.word_mask.shape
        wanted = {
            spec.name: (*(words if kind_of(spec.kind).per_word else sentences), size)
            for spec in self.specs
            if (size := kind_of(spec.kind).output_size(spec)) and spec.name in outputs
        }
        if self._embedding_size is not None and EMBEDDING in outputs:
            wanted[EMBEDDING] = (*sentences, self._embedding_size)
        for name, shape in wanted.items():
            values = outputs[name]
            if values.shape != shape or values.dtype != np.float32:
                raise ModelError(
                    f"backend {self.backend.name} has {values.dtype} {values.shape} as output "
                    f"{name!r}",
                    expected=f"float32 {shape}",
                    fix="Export the model again.",
                )

    def _take(
        self,
        chunk: _Chunk,
        members: Sequence[int],
        outputs: Mapping[str, Floats],
        specs: Sequence[TaskSpec],
    ) -> None:
        """Take a batch's outputs, and decode the texts that nothing is missing of any more."""
        places = [chunk.places[member] for member in members]
        for name, rows in chunk.outputs.items():
            if places and name not in outputs:
                raise ModelError(
                    f"backend {self.backend.name} has no output {name!r}",
                    expected=f"one for every task, and {EMBEDDING!r}; it has {listing(outputs)}",
                    fix="Export the model again.",
                )
            for (i, part), value in zip(places, outputs.get(name, ()), strict=True):
                rows[i][part] = value
        complete = []
        for i, _ in places:
            chunk.missing[i] -= 1
            if not chunk.missing[i] and not chunk.items[i].is_second:
                complete.append(i)
        # Again in groups of similar length, since decoding works on rectangles as well.
        sizes = [len(chunk.items[i].encoding.word_starts) for i in complete]
        for group in plan_batches(sizes, self._token_budget, self._max_sentences):
            some = [complete[k] for k in group.tolist()]
            items = [chunk.items[i] for i in some]
            for spec in (spec for spec in specs if not kind_of(spec.kind).pairs):
                logits = [chunk.outputs[spec.name][i][: len(chunk.items[i].parts)] for i in some]
                answers = self._decode(spec, items, logits)
                for i, answer in zip(some, answers, strict=True):
                    chunk.results[i][spec.name] = answer

    def _predictions(
        self, chunk: _Chunk, specs: Sequence[TaskSpec], embed: bool
    ) -> Iterator[Prediction]:
        """Put together the predictions for a chunk's texts."""
        self._answer_pairs(chunk, [spec for spec in specs if kind_of(spec.kind).pairs])

        def embedding(i: int) -> Floats | None:
            # A copy, since the row would keep its whole batch in memory.
            return np.array(chunk.outputs[EMBEDDING][i][-1]) if chunk.items[i].parts else None

        for i, item in enumerate(chunk.items):
            if item.is_second:
                continue
            results = chunk.results[i]
            if not item.parts:
                single = (spec for spec in specs if not kind_of(spec.kind).pairs)
                results.update((s.name, kind_of(s.kind).no_result(s, item)) for s in single)
            prediction = Prediction(
                item.text,
                {spec.name: results[spec.name] for spec in specs if spec.name in results},
                embedding(i) if embed else None,
                len(item.parts),
            )
            if i + 1 < len(chunk.items) and chunk.items[i + 1].is_second:
                prediction = replace(
                    prediction,
                    text2=chunk.items[i + 1].text,
                    embedding2=embedding(i + 1) if embed else None,
                )
            yield prediction

    def _answer_pairs(self, chunk: _Chunk, specs: Sequence[TaskSpec]) -> None:
        """Decode the tasks of pairs, for the pairs of a chunk."""
        pairs = [(i - 1, i) for i, item in enumerate(chunk.items) if item.is_second]
        whole = [pair for pair in pairs if all(chunk.items[i].parts for i in pair)]
        for spec in specs:
            kind, rows = kind_of(spec.kind), chunk.outputs[spec.name]
            for i, _ in pairs:
                chunk.results[i][spec.name] = kind.no_result(spec, chunk.items[i])
            if not whole:
                continue
            parts = [item.parts for item in chunk.items]
            outputs = np.stack(
                [
                    [mean_over_windows(parts[i], rows[i][: len(parts[i])]) for i in pair]
                    for pair in whole
                ]
            )
            results = self._answer(spec, [chunk.items[i] for i, _ in whole], outputs, None)
            for (i, _), result in zip(whole, results, strict=True):
                chunk.results[i][spec.name] = result

    def _decode(
        self, spec: TaskSpec, items: Sequence[Item], logits: Sequence[list[Floats]]
    ) -> list[Result]:
        """Decode one task for some texts, given the logits of their windows."""
        kind, counts = kind_of(spec.kind), None
        if kind.per_word:
            counts = [len(item.encoding.word_starts) for item in items]
            outputs = np.zeros((len(items), max(counts), logits[0][0].shape[-1]), np.float32)
            for row, count, item, values in zip(outputs, counts, items, logits, strict=True):
                row[:count] = stitch_words(item.parts, values)
        else:
            outputs = np.stack(
                [
                    mean_over_windows(item.parts, values)
                    for item, values in zip(items, logits, strict=True)
                ]
            )
        return self._answer(spec, items, outputs, counts)

    def _answer(
        self, spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None
    ) -> list[Result]:
        """Turn a head's outputs for some texts into results."""
        kind = kind_of(spec.kind)
        decoded = kind.decode(spec, outputs, counts, self._learned.get(spec.name))
        return kind.results(spec, items, decoded)


class _Probabilities(Predictor):
    """Answers with [L] probabilities in the place of results."""

    @classmethod
    def of(cls, predictor: Predictor) -> _Probabilities:
        """Make one that runs the same model."""
        twin = object.__new__(cls)
        vars(twin).update(vars(predictor))
        return twin

    def _answer(
        self, spec: TaskSpec, items: Sequence[Item], outputs: Floats, counts: list[int] | None
    ) -> list[Any]:
        return list(kind_of(spec.kind).probabilities(outputs, self._learned.get(spec.name)))


def embed_texts(predictor: Predictor, texts: Sequence[str]) -> Floats:
    """Embed texts, [N, E]; a text without words becomes zeros."""
    found = [p.embedding for p in predictor.predict(texts, tasks=[], embed=True)]
    size = next((len(vector) for vector in found if vector is not None), 1)
    rows = [np.zeros(size, np.float32) if vector is None else vector for vector in found]
    return np.stack(rows) if rows else np.zeros((0, size), np.float32)


_NONE: Floats = np.empty(0, np.float32)


def _chunks(texts: Iterable[Text], size: int, pairs: bool) -> Iterator[list[_Given]]:
    """Cut a stream of texts into lists of bounded size."""
    characters = 0
    chunk: list[_Given] = []
    for number, text in enumerate(texts, start=1):
        chunk.append(_given(text, number, pairs))
        characters += len(chunk[-1].text) + len(chunk[-1].second or "")
        if len(chunk) >= size or characters >= _CHUNK_CHARACTERS:
            yield chunk
            characters, chunk = 0, []
    if chunk:
        yield chunk


def _check_texts(texts: object) -> None:
    """Refuse what is no series of texts, with the way to make it one.

    Raises:
        RequestError: it is a single text, nothing, or has no order or no texts as its items.
    """
    if isinstance(texts, str | bytes):
        raise RequestError(
            f"one text, {shorten(texts)}, where texts were expected",
            expected="a list of texts",
            fix="Put the text into a list.",
        )
    fix = ""
    if hasattr(texts, "columns"):
        fix = 'Give its column of texts, frame["text"], or use `manyheads.load(...).predict`.'
    elif isinstance(texts, Mapping):
        fix = "Give a list of its texts; records are for `evaluate`."
    elif isinstance(texts, Set):
        fix = "A set has no order; make a list of it."
    elif not isinstance(texts, Iterable):
        fix = "Give a list, even for one text or none."
    if fix:
        kind = type(texts).__name__
        raise RequestError(f"the texts are a {kind}", expected="a list of texts", fix=fix)


def _given(text: Text, number: int, pairs: bool) -> _Given:
    """Check a text and, if it is a list of tokens, join them.

    Args:
        text: as the user gave it.
        number: its place among all.
        pairs: whether any tuple of two strings is a pair.
    """
    if isinstance(text, str):
        return _Given(number, text, None)
    if isinstance(text, TextPair) or (pairs and isinstance(text, tuple) and len(text) == 2):
        for one in text:
            if not isinstance(one, str):
                raise _not_a_text(one, number)
        return _Given(number, text[0], None, text[1])
    if not isinstance(text, Sequence) or isinstance(text, bytes):
        raise _not_a_text(text, number)
    spans, start = [], 0
    for token in text:
        if not isinstance(token, str):
            raise _not_a_text(token, number)
        spans.append((start, start + len(token)))
        start += len(token) + 1
    return _Given(number, " ".join(text), spans)


def _not_a_text(found: object, number: int) -> RequestError:
    return RequestError(
        f"{shorten(found)} is a {type(found).__name__}",
        expected="a text: a string, or a list of strings",
        fix="Leave it out or turn it into a string.",
        where=f"text {number}",
    )
