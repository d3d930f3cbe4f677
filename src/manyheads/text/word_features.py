"""The shape of words, which an encoder that lower-cases cannot see: case, digits and marks.

Each word gets a row of ids, computed from its characters in the original text alone. Every column
has ids of its own, so that one table has an embedding for each id. Trained models store the version
of the features: if you change the meaning of the ids, raise `WORD_FEATURES_VERSION`.

Axes: C characters of a text, W words, K characters of a word, F columns.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.text.words import CharacterTable, CodePoints

WORD_FEATURES_VERSION = 1
"""The version of the features, stored with models whose heads read them."""

_LETTERS = 10
"""The first characters of a word, of which its shape is made."""
_RUN = 4
"""Characters of one class in a row that the longer form of a shape distinguishes."""
_SIZES = (256, 1024)
"""Ids of the shape with its runs as one character each (`Xxd` for Paris2024), and of the shape with
runs of up to `_RUN` characters (`Xxxxdddd`)."""

WORD_FEATURE_COLUMNS = len(_SIZES)
"""F."""
WORD_FEATURE_ROWS = 1 + sum(_SIZES)
"""The number of ids, with 0 for padding."""

_MODULI = np.array(_SIZES, np.int32)
_FIRST_IDS = 1 + np.cumsum([0, *_SIZES[:-1]], dtype=np.int32)
_UPPER, _LOWER, _LETTER, _DIGIT, _OTHER = range(1, 6)
_CLASSES = np.uint32(7)

# Multiplicative hashing in 32 bits, of which the upper ones are well mixed (Knuth, The Art of
# Computer Programming, volume 3, 6.4).
_FACTOR = np.uint32(0x9E3779B1)
_SHIFT = np.uint32(12)


def word_features(codes: CodePoints, spans: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Return the ids of the features of each word, [W, F].

    Args:
        codes: [C] the characters of a text, or of several texts laid end to end.
        spans: [W, 2] start and end of each word.
    """
    starts, ends = spans.T
    sizes = ends - starts
    # A word is a column: rows of a few characters are slow in numpy.
    places = np.arange(min(_LETTERS, sizes.max(initial=0)))[:, None]
    inside = places < sizes
    head = np.where(inside, codes[np.where(inside, starts + places, 0)], 0)
    hashes = np.stack(_shapes(head), axis=1)
    ids: NDArray[np.int32] = ((hashes * _FACTOR) >> _SHIFT).astype(np.int32) % _MODULI
    return ids + _FIRST_IDS


def shows_case(
    codes: CodePoints, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether each of N texts has both upper-case and lower-case letters, [N].

    Where it has not, as in a chat in lower case or a headline in capitals, the shape of its words
    says nothing about them.

    Args:
        codes: [C] the characters of the texts, laid end to end.
        starts, ends: [N] the characters of each text.
    """
    classes = _classes.of(codes)
    shows = np.ones(len(starts), np.bool_)
    for kind in (_UPPER, _LOWER):
        before = np.concatenate([[0], np.cumsum(classes == kind)])
        shows &= before[ends] > before[starts]
    return shows


def _shapes(head: CodePoints) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the hashes of the two forms of each word's shape, [W] each.

    Args:
        head: [K, W] the first characters of each word, 0 after its end.
    """
    count = head.shape[1]
    short, long = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
    before, in_run = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    for classes in _classes.of(head):
        # A mark does not interrupt the run of the character that it belongs to.
        seen = classes > 0
        begins = seen & (classes != before)
        in_run = np.where(begins, 1, in_run + seen)
        short = np.where(begins, short * _CLASSES + classes, short)
        long = np.where(seen & (in_run <= _RUN), long * _CLASSES + classes, long)
        before = np.where(seen, classes, before)
    return short, long


def _class(code: int) -> int:
    """Return the class of a character; 0 for the end of a word and for marks."""
    category = unicodedata.category(chr(code))
    if code == 0 or category[0] == "M" or category == "Cf":
        return 0
    if category in ("Lu", "Lt"):
        return _UPPER
    if category == "Ll":
        return _LOWER
    return _LETTER if category[0] == "L" else _DIGIT if category[0] == "N" else _OTHER


_classes = CharacterTable(_class)
