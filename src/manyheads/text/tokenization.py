"""Text to words to token ids, shared by training, prediction and export.

The encoder's tokenizer runs over the whole text. The words are found independently of it (see
`words`), and each is aligned to its first sub-token. A sentence given as a string and the same
sentence given as a list of words therefore have the same words: `Paris.` and `Paris`, `.` are two
words either way.

If entities begin or end inside words (`885mg`, compounds, particles), words are split at the
borders of their sub-tokens: `Units.PIECES`.

Axes: C characters, T tokens, W words, each of one text or, laid end to end, of a batch of texts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import chain

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from manyheads.errors import ManyheadsError, ModelError, shorten
from manyheads.text.tokenizer_growth import check_growth
from manyheads.text.word_features import shows_case, word_features
from manyheads.text.words import (
    CodePoints,
    Positions,
    code_points,
    extends_previous,
    in_symbol,
    word_borders,
)

# Portions that are aligned at once, which bounds the memory for a huge list of texts.
_CHARACTERS_AT_ONCE = 1 << 20
_TEXTS_AT_ONCE = 1 << 13
_THREADS = "RAYON_NUM_THREADS"
_CASED = "John Smith met ANNA in New York."
_SURROGATE = re.compile("[\ud800-\udfff]")


class Units(str, Enum):
    """The units that carry tags."""

    WORDS = "words"
    """Words; words that share a sub-token are merged."""
    PIECES = "pieces"
    """Words split where their sub-tokens begin, so that an entity can begin or end inside a word.
    Words that share a sub-token stay separate and share its vector."""


HIDING_TOKENS = ("[MASK]", "<mask>", "[UNK]", "<unk>")
"""The names of special tokens that can stand for a hidden one, best first."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tokenised text with the positions of its words (or pieces, see `Units`).

    Characters without a token (for most tokenizers, control characters) cannot be tagged and are
    not words, and neither is an emoji that shares its sub-token with letters.
    """

    ids: NDArray[np.int32]
    """[T] token ids, special tokens included."""
    word_starts: NDArray[np.int32]
    """[W] position in `ids` of each word's first sub-token, increasing; strictly, for words."""
    word_spans: NDArray[np.int32]
    """[W, 2] start and end of each word, in characters of the text; in order and disjoint."""
    prefix: int
    """Number of special tokens before the text."""
    suffix: int
    """Number of special tokens after the text."""
    word_features: NDArray[np.int32] | None = None
    """[W, F] see `word_features`; 0 if the text is all in one case. None from a tokenizer without
    them."""


class TextTokenizer:
    """An encoder's tokenizer that keeps track of words.

    Args:
        tokenizer: any tokenizer of the `tokenizers` library. It is modified: truncation and padding
            are disabled, and special tokens typed into a text (`[SEP]`, `</s>`) are read as
            ordinary characters. SentencePiece models that list them among their pieces still
            find them; each is then an ordinary word.
        units: the units that carry tags.
        word_features: whether encodings have the features of their words.

    Raises:
        ModelError: the tokenizer produces no tokens for text.
    """

    def __init__(
        self, tokenizer: Tokenizer, units: Units = Units.WORDS, *, word_features: bool = False
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.units = units
        self.word_features = word_features
        self.prefix, self.suffix = _special_tokens_around(tokenizer)

    @classmethod
    def from_json(cls, text: str, *, where: str = "", units: Units = Units.WORDS) -> TextTokenizer:
        """Read a tokenizer from the contents of a `tokenizer.json`.

        Raises:
            ModelError: it is not a tokenizer.
        """
        # Some defects of a tokenizer appear only on first use.
        with _explained(where):
            tokenizer = Tokenizer.from_str(text)
            check_growth(tokenizer)
            return cls(tokenizer, units)

    @property
    def hiding_id(self) -> int | None:
        """The id that hides a token: of the mask token, or else of the one for unknown words."""
        added = self._tokenizer.get_added_tokens_decoder()
        ids = {token.content: number for number, token in added.items() if token.special}
        return next((ids[name] for name in HIDING_TOKENS if name in ids), None)

    def to_json(self) -> str:
        """Return the contents of a `tokenizer.json` that `from_json` reads back."""
        return str(self._tokenizer.to_str())

    def __reduce__(self) -> tuple[object, ...]:
        return (_from_json, (self.to_json(), self.units, self.word_features))

    def with_units(self, units: Units) -> TextTokenizer:
        """Return the same tokenizer with tags on other units."""
        if units is self.units:
            return self
        return TextTokenizer(self._tokenizer, units, word_features=self.word_features)

    def with_word_features(self, word_features: bool) -> TextTokenizer:
        """Return the same tokenizer, with or without the features of words."""
        if word_features is self.word_features:
            return self
        return TextTokenizer(self._tokenizer, self.units, word_features=word_features)

    @property
    def lower_cases(self) -> bool:
        """Whether the encoder cannot see the case of letters."""
        return bool(np.array_equal(self.encode(_CASED).ids, self.encode(_CASED.lower()).ids))

    def encode(self, text: str) -> Encoding:
        """Encode a whole text of any length."""
        return self._encode_portion([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode whole texts, each exactly as `encode` would.

        The tokenizer uses all cores unless `TOKENIZERS_PARALLELISM=false` is set or their
        number is limited (see `limit_tokenizer_threads`).
        """
        encodings: list[Encoding] = []
        for portion in _portions(texts):
            encodings += self._encode_portion(portion)
        return encodings

    def _encode_portion(self, texts: Sequence[str]) -> list[Encoding]:
        codes = code_points("\n".join(texts))
        if codes.dtype != np.uint8 and ((codes & 0xFFFFF800) == 0xD800).any():
            # Half of a UTF-16 pair is not a character. An equally long stand-in keeps the offsets.
            texts = [_SURROGATE.sub("\ufffd", text) for text in texts]
        with _explained(""):
            raw = self._tokenizer.encode_batch(texts)
            ids = np.fromiter(chain.from_iterable(e.ids for e in raw), np.int32)

        token_counts = np.fromiter(map(len, raw), np.int64, len(raw))
        token_ends = token_counts.cumsum()
        tokens = int(token_ends[-1])
        pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in raw))
        offsets = np.fromiter(pairs, np.int64, 2 * tokens).reshape(-1, 2)

        # From positions within each text to positions in the texts laid end to end, and back.
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        text_starts = (lengths + 1).cumsum() - (lengths + 1)
        offsets += np.repeat(text_starts, token_counts)[:, None]
        word_starts, word_spans = align(*word_borders(codes), offsets, codes, self.units)
        word_ends = word_starts.searchsorted(token_ends)
        word_counts = word_ends.copy()
        word_counts[1:] -= word_ends[:-1]
        features = None
        if self.word_features:
            shown = shows_case(codes, text_starts, text_starts + lengths)
            shown_words = np.repeat(shown, word_counts)[:, None]
            features = np.where(shown_words, word_features(codes, word_spans), np.int32(0))
        word_starts -= np.repeat(token_ends - token_counts, word_counts)
        word_spans -= np.repeat(text_starts, word_counts)[:, None]

        encodings = []
        first_tokens, spans = word_starts.astype(np.int32), word_spans.astype(np.int32)
        token, word, prefix, suffix = 0, 0, self.prefix, self.suffix
        for token_end, word_end in zip(token_ends.tolist(), word_ends.tolist(), strict=True):
            encodings.append(
                Encoding(
                    ids[token:token_end],
                    first_tokens[word:word_end],
                    spans[word:word_end],
                    prefix,
                    suffix,
                    None if features is None else features[word:word_end],
                )
            )
            token, word = token_end, word_end
        return encodings


def align(
    starts: Positions,
    ends: Positions,
    offsets: NDArray[np.int64],
    codes: CodePoints,
    units: Units = Units.WORDS,
) -> tuple[Positions, Positions]:
    """Align words, or the pieces of words, to their first sub-tokens.

    Args:
        starts: [W] first character of each word.
        ends: [W] end of each word, exclusive.
        offsets: [T, 2] characters of each token, possibly with surrounding white space; empty for a
            token without characters, such as a special one.
        codes: [C] the characters.
        units: merge words that share a sub-token, or split all words where sub-tokens begin.

    Returns:
        [W'] position of the first token of each unit that has one, and [W', 2] its characters.
    """
    # begun[c]: words that begin before character c; ended[c]: words that end at c or before.
    begun, ended = np.zeros(len(codes) + 1, np.int64), np.zeros(len(codes) + 1, np.int64)
    begun[starts + 1] = 1
    ended[ends] = 1
    first = ended.cumsum()[offsets[:, 0]]
    last = begun.cumsum()[offsets[:, 1]] - 1
    positions = (first <= last).nonzero()[0]
    first, last = first[positions], last[positions]
    if units is Units.PIECES:
        return _pieces(starts, ends, offsets[positions, 0], codes, positions, first, last)
    if (first < last).any() or (first[1:] < first[:-1]).any():
        starts, ends, first = _merge(starts, ends, first, last, codes)
    is_first = np.ones(len(first), np.bool_)
    np.not_equal(first[1:], first[:-1], out=is_first[1:])
    words = first[is_first]
    return positions[is_first], np.stack([starts[words], ends[words]], axis=1)


def limit_tokenizer_threads(threads: int | None) -> None:
    """Limit the cores that this process's tokenizers use; None means all.

    The library creates its threads for the first batch and reads their number from the
    environment. This has no effect after the first batch or if the number is already set.
    """
    if threads is None or _THREADS in os.environ:
        return
    os.environ[_THREADS] = str(threads)
    try:
        Tokenizer(WordLevel({}, unk_token="")).encode_batch(["", ""])
    finally:
        # Child processes decide for themselves.
        del os.environ[_THREADS]


def _pieces(
    starts: Positions,
    ends: Positions,
    token_starts: Positions,
    codes: CodePoints,
    positions: Positions,
    first: Positions,
    last: Positions,
) -> tuple[Positions, Positions]:
    """Split words where their sub-tokens begin.

    Args:
        starts, ends: [W] characters of each word.
        token_starts: [T] first character of each token that covers a word.
        codes: [C] the characters.
        positions: [T] the tokens' positions.
        first, last: [T] the first and the last word that each token covers.

    Returns:
        As `align` does.
    """
    # A token begins a piece at its start and at each further word that it covers.
    covered = last - first + 1
    token = np.repeat(np.arange(len(first)), covered)
    rank = np.arange(len(token)) - np.repeat(covered.cumsum() - covered, covered)
    word = first[token] + rank
    begins = np.maximum(token_starts[token], starts[word])
    is_first = np.ones(len(word), np.bool_)
    is_first[1:] = word[1:] > np.maximum.accumulate(word)[:-1]
    begins = np.where(is_first, starts[word], begins)
    # Sub-tokens of one character begin together, and a reordering tokenizer may go back.
    reached = np.maximum.accumulate(begins)
    kept = np.ones(len(begins), np.bool_)
    kept[1:] = begins[1:] > reached[:-1]
    kept &= ~(extends_previous(codes, begins) & (begins > starts[word]))
    solid = ~in_symbol(codes, starts[word])
    kept &= solid | (np.bincount(token, weights=solid, minlength=len(first))[token] == 0)
    begins, word, token = begins[kept], word[kept], token[kept]
    piece_ends = ends[word]
    piece_ends[:-1] = np.minimum(piece_ends[:-1], begins[1:])
    return positions[token], np.stack([begins, piece_ends], axis=1)


def _merge(
    starts: Positions, ends: Positions, first: Positions, last: Positions, codes: CodePoints
) -> tuple[Positions, Positions, Positions]:
    """Merge the words that a token covers together, without the symbols at its ends.

    Args:
        starts, ends: [W] characters of each word.
        first, last: [T] the first and the last word that each token covers.
        codes: [C] the characters.

    Returns:
        [W'] starts and [W'] ends of the merged words, and [T] the merged word of each token.
    """
    # A tokenizer that reorders characters may go back to an earlier word. The words between are
    # then merged too; otherwise a word's first token would come after the next word's.
    reached = np.maximum.accumulate(last)
    last = last.copy()
    last[1:] = np.where(first[1:] < reached[:-1], reached[1:], last[1:])
    words = len(starts)
    open_tokens = np.cumsum(
        np.bincount(first, minlength=words) - np.bincount(last, minlength=words)
    )
    is_last = open_tokens == 0
    is_first = np.ones(words, np.bool_)
    is_first[1:] = is_last[:-1]
    merged = np.cumsum(is_first) - 1
    # An emoji joined to letters belongs to no word; emoji alone are one.
    solid = ~in_symbol(codes, starts)
    solid |= np.bincount(merged, weights=solid, minlength=merged[-1] + 1)[merged] == 0
    of_solid = merged[solid]
    is_start = np.ones(len(of_solid), np.bool_)
    is_start[1:] = of_solid[1:] != of_solid[:-1]
    is_end = np.ones(len(of_solid), np.bool_)
    is_end[:-1] = is_start[1:]
    return starts[solid][is_start], ends[solid][is_end], merged[first]


def _from_json(text: str, units: Units, word_features: bool) -> TextTokenizer:
    return TextTokenizer.from_json(text, units=units).with_word_features(word_features)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Convert the library's errors about a tokenizer into a `ModelError`."""
    try:
        yield
    except ManyheadsError:
        raise
    except BaseException as error:
        # The library raises nothing more specific, and its panics are not Exceptions.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"not a tokenizer: {shorten(str(error), 200)}",
            expected=f"a tokenizer.json that tokenizers {tokenizers.__version__} can read",
            fix="Copy the encoder's tokenizer.json again, or upgrade tokenizers.",
            where=where,
        ) from error


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split a list of texts into portions of bounded size, without splitting a text."""
    start = size = 0
    for i, text in enumerate(texts):
        if i > start and (size + len(text) > _CHARACTERS_AT_ONCE or i - start == _TEXTS_AT_ONCE):
            yield texts[start:i]
            start, size = i, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def _special_tokens_around(tokenizer: Tokenizer) -> tuple[int, int]:
    """Count the special tokens that the tokenizer adds before and after a text."""
    mask = tokenizer.encode("a").special_tokens_mask
    if 0 not in mask:
        raise ModelError(
            "the tokenizer produces no token for the letter a",
            expected="a tokenizer for text",
            fix="Check that tokenizer.json belongs to the encoder.",
        )
    return mask.index(0), mask[::-1].index(0)
