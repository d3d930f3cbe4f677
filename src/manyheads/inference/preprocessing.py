"""Texts to batches: tokenisation, windows, and batches of similar lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np

from manyheads.errors import RequestError, shorten
from manyheads.inference.texts import CheckedText, Text, WhenEmpty, chunked
from manyheads.inference.until_fault import UntilFault
from manyheads.tasks import EMBEDDING, Result, WordSpan
from manyheads.text import (
    Batch,
    Encoding,
    Floats,
    TextTokenizer,
    Window,
    beginning,
    pad_batch,
    plan_batches,
    windows,
)

_NONE: Floats = np.empty(0, np.float32)

# Parallel workers share the tokens of a chunk, but no batch is planned smaller than this.
_LEAST_TOKENS = 32

# What a batch costs besides its tokens, in tokens: running the graph, and decoding.
_BATCH_OVERHEAD = 24


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
    """The window of the embedding, where it differs from the text's only window."""
    is_second: bool = False
    """Whether it is the second text of a pair, whose first is the item before."""

    @property
    def inputs(self) -> list[Window]:
        """All windows that the model reads of the text; that of the embedding comes last."""
        return self.parts if self.embedded is None else [*self.parts, self.embedded]

    @property
    def words(self) -> list[WordSpan]:
        """The characters of the words that the model reads."""
        spans: list[WordSpan] = self.encoding.word_spans.tolist()
        return spans


class Chunk:
    """Texts that are processed together, with the outputs and results so far.

    Args:
        items: the texts.
        names: the requested outputs: tasks and `EMBEDDING`.
    """

    def __init__(self, items: Sequence[Item], names: Sequence[str]) -> None:
        self.items = items
        self.inputs = [item.inputs for item in items]
        # If only embeddings are requested, nothing else is read.
        alone = list(names) == [EMBEDDING]
        first = [len(item.parts) if alone and item.embedded else 0 for item in items]
        self.places = [
            (i, part)
            for i, inputs in enumerate(self.inputs)
            for part in range(first[i], len(inputs))
        ]
        """The windows to read: the number of the text, and that of the window in it."""
        self.outputs: dict[str, list[list[Floats]]] = {
            name: [[_NONE] * len(inputs) for inputs in self.inputs] for name in names
        }
        self.results: list[dict[str, Result]] = [{} for _ in items]
        self.missing = [len(inputs) - i for inputs, i in zip(self.inputs, first, strict=True)]
        """By text, the number of windows that the model has not read yet."""
        self.batches_left = 0


class Job(NamedTuple):
    """A batch of a chunk's windows; empty for a chunk without words."""

    chunk: Chunk
    members: list[int]
    """Indices into the chunk's `places`."""


class BatchLimits(NamedTuple):
    """How large a batch may be."""

    tokens: int
    """Padding included."""
    sentences: int


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Turns texts into batches."""

    tokenizer: TextTokenizer
    pad_id: int
    max_length: int
    """Tokens of a window, special ones included."""
    stride: int
    """Tokens that neighbouring windows share."""
    prompt: str
    """Text that the embedding reads before each text."""
    embedding_length: int
    """Tokens that the embedding reads of a text, special ones included."""
    pairs: bool
    """Whether any tuple of two strings is a pair."""
    limits: BatchLimits

    def items(
        self, texts: Iterable[Text], chunk: int, when_empty: WhenEmpty, embed: bool
    ) -> Iterator[list[Item]]:
        """Tokenise texts chunk by chunk, each while the previous one is computed.

        Where the stream of texts fails, the chunks before come first.

        Raises:
            RequestError: a text is invalid, or refused as empty.
        """
        prepare = partial(self._prepare, when_empty=when_empty, embed=embed)
        chunks = UntilFault(chunked(texts, chunk, self.pairs))
        if chunk == 1:
            yield from map(prepare, chunks)
            chunks.raise_fault()
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
        chunks.raise_fault()

    def jobs(self, chunk: Chunk, workers: int) -> Iterator[Job]:
        """Plan a chunk's batches: windows of similar length, and enough batches for all workers."""
        lengths = [len(chunk.inputs[i][part].ids) for i, part in chunk.places]
        share = max(_LEAST_TOKENS, -(-sum(lengths) // workers))
        tokens = min(self.limits.tokens, share)
        batches = plan_batches(lengths, tokens, self.limits.sentences, _BATCH_OVERHEAD)
        members = [batch.tolist() for batch in batches] or [[]]
        chunk.batches_left = len(members)
        for some in members:
            yield Job(chunk, some)

    def batch(self, job: Job) -> Batch:
        """Build the arrays of a batch."""
        inputs, places = job.chunk.inputs, job.chunk.places
        read = [inputs[i][part] for i, part in (places[member] for member in job.members)]
        return pad_batch(read, self.pad_id)

    def _prepare(self, given: list[CheckedText], when_empty: WhenEmpty, embed: bool) -> list[Item]:
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
        """Encode each text for the heads and, if requested, for the embedding."""
        encodings = self.tokenizer.encode_batch(texts)
        if not embed:
            return zip(encodings, repeat(None))
        if not self.prompt:
            return zip(encodings, encodings, strict=True)
        prompted = self.tokenizer.encode_batch([self.prompt + text for text in texts])
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
        """Collect the windows that the heads and the embedding read of a text."""
        has_words = len(encoding.word_starts) > 0
        parts = windows(encoding, self.max_length, self.stride) if has_words else []
        same = read is encoding and len(parts) == 1 and len(read.ids) <= self.embedding_length
        alone = read is None or not parts or same
        embedded = None if read is None or alone else beginning(read, self.embedding_length)
        return Item(text, tokens, encoding, parts, embedded, is_second)
