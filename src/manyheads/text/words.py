"""The words of a text, found by its characters alone, independently of any tokenizer.

A simplified form of Unicode's word segmentation (UAX #29), which finds the same words
in a sentence and in the sentence's tokens joined by spaces, however it was tokenised.

Axes: C characters (of one text, or of many laid end to end), W words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CodePoints = NDArray[np.uint8] | NDArray[np.uint32]
"""[C] code points; 8 bits wide if all are ASCII."""
Positions = NDArray[np.int64]

_SEPARATOR, _RUN, _ALONE, _EXTEND = range(4)
_ZERO_WIDTH_JOINER = 0x200D
# Format characters and symbols that extend the preceding character: soft hyphen, the zero-width
# joiners, word joiner, half-width voicing marks, skin tones, and the letters inside a flag.
_EXTENDING = frozenset(
    [0x00AD, 0x200C, 0x200D, 0x2060, 0xFF9E, 0xFF9F, *range(0x1F3FB, 0x1F400),
     *range(0xE0020, 0xE0080)]
)  # fmt: skip
# Blocks of the scripts without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FFF),  # CJK radicals
    (0x3000, 0x312F),  # kana, Bopomofo
    (0x31A0, 0x31FF),  # their extensions
    (0x3400, 0x4DBF),  # ideographs, extension A
    (0x4E00, 0x9FFF),  # ideographs
    (0xA9E0, 0xA9FF),  # Burmese extensions
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1AFF0, 0x1B16F),  # kana extensions
    (0x20000, 0x3FFFF),  # ideographs, extensions B and later
)
_PAGE = 256


def segment(text: str) -> NDArray[np.int32]:
    """Find the words of a text; returns [W, 2] the start and end of each, in order.

    A word is a run of letters, digits and underscores. Every punctuation mark or symbol is a word
    of its own, and so is every letter of a script without spaces (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese). Marks, and the joiners that hold an emoji or a syllable
    together, belong to the character before them. White space and all other control and format
    characters separate words and belong to none.
    """
    return np.stack(word_borders(code_points(text)), axis=1).astype(np.int32)


def code_points(text: str) -> CodePoints:
    """Return the code points of a text, [C]; halves of UTF-16 pairs included."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def word_borders(codes: CodePoints) -> tuple[Positions, Positions]:
    """Find the words among [C] characters, as `segment` does; returns [W] starts and [W] ends."""
    kinds = _kinds.of(codes)
    before = np.empty_like(kinds)
    before[:1] = _SEPARATOR
    extends = kinds == _EXTEND
    if extends.any():
        # A mark counts as its base character; without one it begins a word.
        base = np.maximum.accumulate(np.where(extends, 0, np.arange(len(kinds))))
        kinds = kinds[base]
        kinds[extends & ((kinds == _SEPARATOR) | (kinds == _EXTEND))] = _RUN
        before[1:] = kinds[:-1]
        begin_alone = (kinds == _ALONE) & ~extends
        glued = (codes[:-1] == _ZERO_WIDTH_JOINER) & (before[1:] != _SEPARATOR)
        begin_alone[1:] &= ~glued
    else:
        before[1:] = kinds[:-1]
        begin_alone = kinds == _ALONE
    begins = begin_alone | ((kinds == _RUN) & (before != _RUN))
    borders = (begins | ((kinds == _SEPARATOR) & (before != _SEPARATOR))).nonzero()[0]
    is_begin = begins[borders]
    ends = np.concatenate([borders[1:], [len(codes)]])
    return borders[is_begin], ends[is_begin]


def in_symbol(codes: CodePoints, positions: Positions) -> NDArray[np.bool_]:
    """Return whether each of the [N] characters is a symbol such as an emoji (category So)."""
    return np.array(
        [unicodedata.category(chr(code)) == "So" for code in codes[positions].tolist()], np.bool_
    )


def extends_previous(codes: CodePoints, positions: Positions) -> NDArray[np.bool_]:
    """Return whether each of the [N] characters belongs to the character before it."""
    extends: NDArray[np.bool_] = _kinds.of(codes)[positions] == _EXTEND
    return extends


def _kind(code: int) -> int:
    category = unicodedata.category(chr(code))
    if category[0] == "M" or code in _EXTENDING:
        return _EXTEND
    if category[0] == "Z" or category in ("Cc", "Cf", "Cs"):
        return _SEPARATOR
    if category[0] == "L":
        return _ALONE if any(low <= code <= high for low, high in _UNSPACED) else _RUN
    return _RUN if category[0] == "N" or code == ord("_") else _ALONE


class CharacterTable:
    """A number for every character, computed per page of 256 characters on first use.

    Args:
        kind: returns the number of a code point, from 0 to 255.
    """

    def __init__(self, kind: Callable[[int], int]) -> None:
        self._kind = kind
        self._table = np.zeros(0x110000, np.uint8)
        self._known = np.zeros(0x110000 // _PAGE, np.bool_)
        self._learn(0)

    def _learn(self, page: int) -> None:
        codes = range(page * _PAGE, (page + 1) * _PAGE)
        self._table[codes.start : codes.stop] = [self._kind(code) for code in codes]
        self._known[page] = True

    def of(self, codes: CodePoints) -> NDArray[np.uint8]:
        """Return the numbers of some characters, in the same shape."""
        if codes.dtype != np.uint8:
            pages = codes // _PAGE
            for page in np.unique(pages[~self._known[pages]]).tolist():
                self._learn(page)
        return self._table[codes]


_kinds = CharacterTable(_kind)
