"""Prediction: from texts to labels, entities and embeddings, whatever computes the logits.

No deep-learning framework is needed here: a backend runs the model, and everything around it,
from tokenisation to decoding, is the same for all of them.

Texts go through in chunks, so that a stream of any length needs constant memory. In a chunk,
sentences of similar length make a batch, and the next chunk is tokenised while a chunk is
computed.

Axes: B windows or sentences of a batch, W words, H hidden, L labels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from manyheads.config import BATCH_TOKENS
from manyheads.decoding import (
    CLASSIFICATION,
    MULTILABEL,
    TAGGING,
    Scored,
    TaskSpec,
    Transitions,
    decode,
    entity_score,
)
from manyheads.errors import ModelError, RequestError, listing, nearest, shorten
from manyheads.labels import OUTSIDE, Scheme, WordSpan, spans_of, tags_of
from manyheads.results import (
    ClassResult,
    Entity,
    MultilabelResult,
    Prediction,
    Result,
    TaggingResult,
    TokenTag,
)
from manyheads.tokenization import Encoding, TextTokenizer
from manyheads.windows import (
    Batch,
    Floats,
    Window,
    mean_over_windows,
    pad_batch,
    plan_batches,
    stitch_words,
    windows,
)

EMBEDDING = "embedding"
"""The name of the embedding among a backend's outputs."""

Text = str | Sequence[str]
WhenEmpty = Literal["flag", "refuse"]

_CHUNK_CHARACTERS = 1 << 20


class Backend(Protocol):
    """What computes a model's outputs for a batch."""

    @property
    def name(self) -> str:
        """What the backend is called in messages."""

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Run the model once.

        Returns:
            by name, the logits of every task, [B, L] or for tagging [B, W, L], and `embedding`,
            [B, H]. Neither padding nor the other sentences may change a sentence's results, and
            the arrays are not used again for the next batch.
        """


class _Given(NamedTuple):
    """A text that the user gave."""

    number: int
    """Its place among all, from 1."""
    text: str
    tokens: list[WordSpan] | None
    """The characters of the user's tokens, if the text was given as such."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A text on its way through the model."""

    text: str
    tokens: list[WordSpan] | None
    encoding: Encoding
    parts: list[Window]
    """The text's windows; none if it has no words."""


class Predictor:
    """A trained model, ready to predict.

    Args:
        backend: what runs the model.
        tokenizer: the encoder's tokenizer.
        specs: the model's tasks.
        max_length: tokens the encoder reads at once, special ones included. Longer texts are read
            in overlapping windows.
        pad_id: the token id of padding.
        transitions: those of every tagging task that is decoded by a CRF.
        normalize: whether embeddings have length 1.
        stride: tokens that neighbouring windows share; default, a quarter of a window.
        token_budget: tokens of a batch, padding included.
        max_sentences: sentences of a batch.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: TextTokenizer,
        specs: Sequence[TaskSpec],
        *,
        max_length: int,
        pad_id: int,
        transitions: Mapping[str, Transitions] | None = None,
        normalize: bool = True,
        stride: int | None = None,
        token_budget: int = BATCH_TOKENS,
        max_sentences: int = 256,
    ) -> None:
        self.backend = backend
        self.specs = tuple(specs)
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._transitions = dict(transitions or {})
        self._normalize = normalize
        room = max_length - tokenizer.prefix - tokenizer.suffix
        self._stride = max(0, room // 4) if stride is None else stride
        self._token_budget = token_budget
        self._max_sentences = max_sentences

    def predict(
        self,
        texts: Sequence[Text],
        *,
        embed: bool = False,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
    ) -> list[Prediction]:
        """Predict for some texts, each a string or a list of tokens.

        Args:
            texts: what to predict for.
            embed: whether to give the embedding as well.
            tasks: the tasks to answer; default, all.
            when_empty: a text without words (empty, or only white space and the like) either
                gets a prediction that says so, without labels, or is refused.

        Raises:
            RequestError: a text is not a string or list of strings, or is refused as empty; or a
                task is unknown.
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
        if isinstance(texts, str | bytes):
            raise RequestError(
                f"one text, {shorten(texts)}, where texts were expected",
                expected="a list of texts",
                fix="Put the text into a list.",
            )
        specs = self._chosen(tasks)
        for items in self._prepared(texts, chunk, when_empty):
            yield from self._predict_items(items, specs, embed)

    def _chosen(self, tasks: Sequence[str] | None) -> list[TaskSpec]:
        if tasks is None:
            return list(self.specs)
        names = [spec.name for spec in self.specs]
        for task in tasks:
            if task not in names:
                raise RequestError(
                    f"task {shorten(task)} is not one of the model's{nearest(str(task), names)}",
                    expected=f"one of: {listing(names)}",
                    fix="Ask for a task that the model was trained on.",
                )
        return [spec for spec in self.specs if spec.name in tasks]

    # -------------------------------------------------------------------- from texts to windows

    def _prepared(
        self, texts: Iterable[Text], chunk: int, when_empty: WhenEmpty
    ) -> Iterator[list[_Item]]:
        """Tokenise texts chunk by chunk, each but the first while the one before is computed."""

        def prepare(given: list[_Given]) -> list[_Item]:
            return self._prepare(given, when_empty)

        chunks = _chunks(texts, chunk)
        if chunk == 1:
            yield from map(prepare, chunks)
            return
        ready: list[_Item] | None = None
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

    def _prepare(self, given: list[_Given], when_empty: WhenEmpty) -> list[_Item]:
        items = []
        encodings = self._tokenizer.encode_batch([text.text for text in given])
        for text, encoding in zip(given, encodings, strict=True):
            parts: list[Window] = []
            if len(encoding.word_tokens):
                parts = windows(encoding, self.max_length, self._stride)
            elif when_empty == "refuse":
                found = f"the text {shorten(text.text)} has no words"
                raise RequestError(
                    found if text.text else "the text is empty",
                    expected="a text with at least one word",
                    fix="Leave it out.",
                    where=f"text {text.number}",
                )
            items.append(_Item(text.text, text.tokens, encoding, parts))
        return items

    # ------------------------------------------------------------------ from windows to answers

    def _predict_items(
        self, items: Sequence[_Item], specs: Sequence[TaskSpec], embed: bool
    ) -> list[Prediction]:
        names = [spec.name for spec in specs]
        if embed:
            names.append(EMBEDDING)
        outputs = self._run([item.parts for item in items], names)
        results: list[dict[str, Result]] = [{} for _ in items]
        full = [i for i, item in enumerate(items) if item.parts]
        sizes = [len(items[i].encoding.word_tokens) for i in full]
        # Again in groups of similar length, since decoding works on rectangles as well.
        for group in plan_batches(sizes, self._token_budget, self._max_sentences):
            members = [full[i] for i in group.tolist()]
            for spec in specs:
                answers = self._decode(
                    spec,
                    [items[i] for i in members],
                    [outputs[spec.name][i] for i in members],
                )
                for i, answer in zip(members, answers, strict=True):
                    results[i][spec.name] = answer
        return [
            Prediction(
                item.text,
                result if item.parts else {spec.name: _nothing(spec, item) for spec in specs},
                self._embedding(item, outputs[EMBEDDING][i]) if embed and item.parts else None,
                len(item.parts),
            )
            for i, (item, result) in enumerate(zip(items, results, strict=True))
        ]

    def _run(
        self, texts: Sequence[Sequence[Window]], names: Sequence[str]
    ) -> dict[str, list[list[Floats]]]:
        """Run the model on all windows of some texts; returns by output, text and window."""
        places = [(i, window) for i, parts in enumerate(texts) for window in parts]
        rows: dict[str, list[Floats]] = {name: [_NONE] * len(places) for name in names}
        lengths = [len(window.ids) for _, window in places]
        for group in plan_batches(lengths, self._token_budget, self._max_sentences):
            members = group.tolist()
            batch = pad_batch([places[place][1] for place in members], self._pad_id)
            outputs = self.backend.run(batch)
            for name, values in rows.items():
                if name not in outputs:
                    raise ModelError(
                        f"backend {self.backend.name} has no output {name!r}",
                        expected=f"one for every task, and {EMBEDDING!r}; it has "
                        f"{listing(outputs)}",
                        fix="Export the model again.",
                    )
                for place, value in zip(members, outputs[name], strict=True):
                    values[place] = value
        grouped: dict[str, list[list[Floats]]] = {name: [[] for _ in texts] for name in names}
        for name, values in rows.items():
            for (i, _), value in zip(places, values, strict=True):
                grouped[name][i].append(value)
        return grouped

    def _decode(
        self, spec: TaskSpec, items: Sequence[_Item], logits: Sequence[list[Floats]]
    ) -> list[Result]:
        """Decode one task for some texts, given the logits of their windows."""
        if spec.kind == TAGGING:
            counts = [len(item.encoding.word_tokens) for item in items]
            emissions = np.zeros((len(items), max(counts), len(spec.labels)), np.float32)
            for row, count, item, values in zip(emissions, counts, items, logits, strict=True):
                row[:count] = stitch_words(item.parts, values)
            decoded = decode(spec, emissions, counts, self._transitions.get(spec.name))
            assert isinstance(decoded, list)
            return [_tagging(spec, *pair) for pair in zip(items, decoded, strict=True)]
        means = [
            mean_over_windows(item.parts, values)
            for item, values in zip(items, logits, strict=True)
        ]
        decoded = decode(spec, np.stack(means))
        if isinstance(decoded, list):
            return [MultilabelResult(tuple(_classes(spec, scored))) for scored in decoded]
        return list(_classes(spec, decoded))

    def _embedding(self, item: _Item, values: list[Floats]) -> Floats:
        # A copy, since the row would keep its whole batch in memory.
        embedding = np.array(mean_over_windows(item.parts, values), np.float32)
        if self._normalize and len(item.parts) > 1:
            embedding /= max(float(np.linalg.norm(embedding)), 1e-12)
        return embedding


_NONE: Floats = np.empty(0, np.float32)


def _chunks(texts: Iterable[Text], size: int) -> Iterator[list[_Given]]:
    """Cut a stream of texts into lists of bounded size."""
    characters = 0
    chunk: list[_Given] = []
    for number, text in enumerate(texts, start=1):
        chunk.append(_given(text, number))
        characters += len(chunk[-1].text)
        if len(chunk) >= size or characters >= _CHUNK_CHARACTERS:
            yield chunk
            characters, chunk = 0, []
    if chunk:
        yield chunk


def _given(text: Text, number: int) -> _Given:
    """Check a text and, if it is a list of tokens, join them."""
    if isinstance(text, str):
        return _Given(number, text, None)
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


def _classes(spec: TaskSpec, scored: Scored) -> Iterator[ClassResult]:
    for i, score in zip(scored.ids.tolist(), scored.scores.tolist(), strict=True):
        yield ClassResult(spec.labels[i], i, score)


def _tagging(spec: TaskSpec, item: _Item, scored: Scored) -> TaggingResult:
    """Turn the tags of a text's words into entities and into the tags of its tokens."""
    text, labels, scheme = item.text, spec.labels, spec.scheme or Scheme.BIO
    words: list[WordSpan] = item.encoding.word_spans.tolist()
    ids = scored.ids.tolist()
    tags = [labels[i] for i in ids]
    plain = scheme is Scheme.PLAIN
    spans = spans_of(tags, words, scheme) if plain or any(t != OUTSIDE for t in tags) else ()
    if item.tokens is None:
        tokens = [
            TokenTag(text[start:end], tag, i, start, end)
            for (start, end), tag, i in zip(words, tags, ids, strict=True)
        ]
    else:
        tokens = _token_tags(spec, item, tags_of(spans, item.tokens, scheme))
    if plain:
        return TaggingResult((), tuple(tokens))
    starts = [start for start, _ in words]
    entities = []
    for span in spans:
        first, end = bisect_left(starts, span.start), bisect_left(starts, span.end)
        score = entity_score(scored.scores[first:end])
        entities.append(
            Entity(text[span.start : span.end], span.label, span.start, span.end, score)
        )
    return TaggingResult(tuple(entities), tuple(tokens))


def _token_tags(spec: TaskSpec, item: _Item, tags: Sequence[str]) -> list[TokenTag]:
    """Pair the user's tokens with their tags."""
    index = {label: i for i, label in enumerate(spec.labels)}
    return [
        TokenTag(item.text[start:end], tag, index.get(tag, -1), start, end)
        for (start, end), tag in zip(item.tokens or (), tags, strict=True)
    ]


def _nothing(spec: TaskSpec, item: _Item) -> Result:
    """Make the result of a text without words."""
    if spec.kind == CLASSIFICATION:
        return ClassResult(None, None, None)
    if spec.kind == MULTILABEL:
        return MultilabelResult(())
    return TaggingResult((), tuple(_token_tags(spec, item, [OUTSIDE] * len(item.tokens or ()))))
