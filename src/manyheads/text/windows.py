"""Long texts as windows and batches of bounded length, and the merging of their results.

Training truncates a long text and counts the lost words. Prediction splits it into overlapping
windows and loses nothing: each word's logits come from the window where the word has most context.
They are concatenated before decoding, so an entity across a border stays complete and a CRF sees
the whole text. Sentence logits are means over the windows, weighted by length. The
embedding is that of the text's beginning, as in sentence-transformers.

Axes: B windows or sentences of a batch, T tokens, W words, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError
from manyheads.text.tokenization import Encoding

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text that fits the encoder."""

    ids: NDArray[np.int32]
    """[T] token ids, special tokens included."""
    word_starts: NDArray[np.int32]
    """[W] position in `ids` of the first sub-token of each word that begins in the window."""
    first_word: int
    """Index of the first of these words in the whole text."""
    decides: tuple[int, int]
    """Range of the words, as indices in the whole text, whose tags come from this window."""
    weight: int
    """Weight in a mean over windows: the number of tokens without special ones."""
    word_features: NDArray[np.int32] | None = None
    """[W, F] as in `Encoding`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Input of every backend: sentences or windows, padded on the right."""

    input_ids: NDArray[np.int64]
    """[B, T]"""
    attention_mask: NDArray[np.int64]
    """[B, T], 1 where there is a token."""
    word_starts: NDArray[np.int64]
    """[B, W] position of each word's first sub-token, 0 where there is none; W is at least 1."""
    word_mask: NDArray[np.bool_]
    """[B, W], true where there is a word."""
    word_features: NDArray[np.int64] | None = None
    """[B, W, F] the features of each word, 0 where there are none; None if no head reads them."""

    def with_tokens_as_padding(self) -> Batch:
        """Return the batch with each row's last token in place of its padding."""
        last = np.maximum(self.attention_mask.sum(axis=1, keepdims=True) - 1, 0)
        tokens = np.take_along_axis(self.input_ids, last, axis=1)
        return replace(self, input_ids=np.where(self.attention_mask, self.input_ids, tokens))

    def feeds(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return the arrays for some inputs of an exported graph, by the inputs' names."""
        # Graphs of earlier versions have this name.
        return {
            name: self.word_starts if name == "word_tokens" else getattr(self, name)
            for name in names
        }


def truncate(encoding: Encoding, max_length: int) -> tuple[Encoding, int]:
    """Truncate a text, at a word border if there is one.

    Returns:
        The truncated encoding, equal to the first of the text's `windows`, and the number of lost
        words.

    Raises:
        ModelError: `max_length` leaves no room for text next to the special tokens.
    """
    capacity = _capacity(encoding, max_length)
    if len(encoding.ids) <= max_length:
        return encoding, 0
    end = _cut(encoding.word_starts - encoding.prefix, 0, capacity, _body(encoding))
    words = int(encoding.word_starts.searchsorted(encoding.prefix + end))
    kept = Encoding(
        _ids_between(encoding, 0, end),
        encoding.word_starts[:words],
        encoding.word_spans[:words],
        encoding.prefix,
        encoding.suffix,
        _rows(encoding, 0, words),
    )
    return kept, len(encoding.word_starts) - words


def beginning(encoding: Encoding, max_length: int) -> Window:
    """Return as many first tokens of a text as fit, regardless of word borders.

    sentence-transformers truncates a text in the same way.

    Raises:
        ModelError: `max_length` leaves no room next to the special tokens.
    """
    end = min(_capacity(encoding, max_length), _body(encoding))
    words = int(encoding.word_starts.searchsorted(encoding.prefix + end))
    ids = _ids_between(encoding, 0, end)
    features = _rows(encoding, 0, words)
    return Window(ids, encoding.word_starts[:words], 0, (0, words), end, features)


def windows(encoding: Encoding, max_length: int, stride: int) -> list[Window]:
    """Split a text into overlapping windows at word borders; one window if it fits.

    A word longer than a window is split, and its tag comes from the window in which it begins.

    Args:
        encoding: the whole text.
        max_length: tokens of a window, special ones included.
        stride: maximum number of tokens that neighbouring windows share, in whole words.

    Raises:
        ModelError: `max_length` leaves no room next to the special tokens and the stride.
    """
    words = len(encoding.word_starts)
    if len(encoding.ids) <= max_length:
        every, features = (0, words), encoding.word_features
        return [Window(encoding.ids, encoding.word_starts, 0, every, _body(encoding), features)]
    capacity = _capacity(encoding, max_length)
    if not 0 <= stride < capacity:
        raise ModelError(
            f"windows of {capacity} tokens that share {stride}",
            expected=f"a stride from 0 to {capacity - 1}",
            fix="Make the stride shorter or max_length longer.",
        )
    size = _body(encoding)
    # The type in which single positions are searched; from another, each search copies the array.
    starts = encoding.word_starts.astype(np.int64) - encoding.prefix
    spans = _window_spans(starts, size, capacity, stride)
    bounds = starts.searchsorted(np.array(spans)).tolist()
    owners = _owners(starts, size, spans, bounds)
    decided = owners.searchsorted(np.arange(len(spans) + 1)).tolist()
    return [
        Window(
            _ids_between(encoding, start, end),
            encoding.word_starts[first:last] - start,
            first,
            (decided[i], decided[i + 1]),
            end - start,
            _rows(encoding, first, last),
        )
        for i, ((start, end), (first, last)) in enumerate(zip(spans, bounds, strict=True))
    ]


def stitch_words(parts: Sequence[Window], logits: Sequence[Floats]) -> Floats:
    """Concatenate the word logits of a text's windows, each from the window that decides its word.

    Args:
        parts: all windows of a text.
        logits: for each window [W', L], W' at least its number of words.

    Returns:
        [W, L] for the words of the whole text.
    """
    rows = []
    for part, values in zip(parts, logits, strict=True):
        first, end = part.decides
        rows.append(values[first - part.first_word : end - part.first_word])
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def mean_over_windows(parts: Sequence[Window], values: Sequence[Floats]) -> Floats:
    """Average the logits of a text's windows, each [L], weighted by length; returns [L]."""
    if len(parts) == 1:
        return values[0]
    mean = np.average(np.stack(values), axis=0, weights=[part.weight for part in parts])
    return np.asarray(mean, np.float32)


def pad_batch(items: Sequence[Encoding | Window], pad_id: int) -> Batch:
    """Pad encodings or windows, at least one, into a batch."""
    input_ids, token_mask = _padded([item.ids for item in items], pad_id)
    word_starts, word_mask = _padded([item.word_starts for item in items], 0)
    features = None
    rows = [item.word_features for item in items if item.word_features is not None]
    if rows:
        features = np.zeros((*word_mask.shape, rows[0].shape[1]), np.int64)
        features[word_mask] = np.concatenate(rows)
    return Batch(input_ids, token_mask.astype(np.int64), word_starts, word_mask, features)


def plan_batches(
    lengths: Sequence[int] | NDArray[np.integer[Any]],
    token_budget: int,
    max_sentences: int,
    overhead: int = 0,
) -> list[NDArray[np.int64]]:
    """Group sentences of similar length into batches of bounded size, the longest first.

    Args:
        lengths: [N] tokens of each of N sentences.
        token_budget: tokens of a batch, padding included. A longer sentence is its own batch.
        max_sentences: sentences of a batch.
        overhead: the cost of one more batch, in tokens. A batch ends early if that saves more
            padding than the next batch costs.

    Returns:
        The indices of the sentences of each batch, [B] int64.
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        fitting = token_budget // max(1, int(sizes[order[start]]))
        end = start + max(1, min(max_sentences, fitting))
        if overhead:
            members = sizes[order[start:end]]
            saved = (members[0] - members) * np.arange(len(members), 0, -1)
            if saved.max() > overhead:
                end = start + int(saved.argmax())
        batches.append(order[start:end])
        start = end
    return batches


def _rows(encoding: Encoding, first: int, last: int) -> NDArray[np.int32] | None:
    """Return the features of some of a text's words."""
    return None if encoding.word_features is None else encoding.word_features[first:last]


def _body(encoding: Encoding) -> int:
    """Count the tokens of the text, without special ones."""
    return len(encoding.ids) - encoding.prefix - encoding.suffix


def _capacity(encoding: Encoding, max_length: int) -> int:
    """Count the text tokens that fit into a window."""
    capacity = max_length - encoding.prefix - encoding.suffix
    if capacity < 1:
        raise ModelError(
            f"max_length {max_length} leaves no room for text",
            expected=f"at least {encoding.prefix + encoding.suffix + 1}, since the tokenizer adds "
            f"{encoding.prefix + encoding.suffix} special tokens",
            fix="Set max_length higher.",
        )
    return capacity


def _ids_between(encoding: Encoding, start: int, end: int) -> NDArray[np.int32]:
    """Return tokens `start` to `end` of the text between the special tokens."""
    ids, prefix = encoding.ids, encoding.prefix
    suffix = ids[len(ids) - encoding.suffix :]
    return np.concatenate([ids[:prefix], ids[prefix + start : prefix + end], suffix])


def _cut(starts: NDArray[np.integer[Any]], start: int, capacity: int, size: int) -> int:
    """Return the end of a window that begins at token `start`: a word's start, if possible."""
    if start + capacity >= size:
        return size
    index = int(starts.searchsorted(start + capacity, side="right")) - 1
    return int(starts[index]) if index >= 0 and starts[index] > start else start + capacity


def _window_spans(
    starts: NDArray[np.int64], size: int, capacity: int, stride: int
) -> list[tuple[int, int]]:
    """Split `size` tokens into overlapping spans, given the [W] first tokens of words."""
    spans = [(0, _cut(starts, 0, capacity, size))]
    while spans[-1][1] < size:
        reached = spans[-1][1]
        index = int(starts.searchsorted(max(reached - stride, spans[-1][0] + 1)))
        start = min(int(starts[index]), reached) if index < len(starts) else reached
        end = _cut(starts, start, capacity, size)
        if end <= reached:
            # The next word fits only without the overlap.
            start, end = reached, _cut(starts, reached, capacity, size)
        spans.append((start, end))
    return spans


def _owners(
    starts: NDArray[np.int64],
    size: int,
    spans: Sequence[tuple[int, int]],
    bounds: Sequence[Sequence[int]],
) -> NDArray[np.int64]:
    """Choose the window with most context for each word; returns [W], ascending.

    Context is the number of tokens from the word to the nearer border of the window. The borders
    of the text need no exception, because the last window always reaches further than the one
    before. Of equal windows the first is chosen.
    """
    ends = np.append(starts[1:], size)
    owners = np.zeros(len(starts), np.int64)
    most = np.full(len(starts), np.iinfo(np.int64).min)
    for i, ((start, end), (first, last)) in enumerate(zip(spans, bounds, strict=True)):
        context = np.minimum(starts[first:last] - start, end - ends[first:last])
        better = context > most[first:last]
        owners[first:last][better] = i
        most[first:last][better] = context[better]
    return owners


def _padded(
    rows: Sequence[NDArray[np.int32]], fill: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Stack rows of different lengths, padded on the right; returns them and their mask."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    mask = np.arange(max(1, int(lengths.max()))) < lengths[:, None]
    padded = np.full(mask.shape, fill, np.int64)
    padded[mask] = np.concatenate(rows)
    return padded, mask
