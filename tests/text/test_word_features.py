"""The shape of a word becomes a row of ids that depends only on its own characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.text import (
    WORD_FEATURE_COLUMNS,
    WORD_FEATURE_ROWS,
    WORD_FEATURES_VERSION,
    TextTokenizer,
    Units,
    code_points,
    pad_batch,
    segment,
    truncate,
    windows,
)
from manyheads.text.word_features import word_features
from tiny import tiny_byte_bpe, tiny_tokenizer

TOKENIZER = TextTokenizer(tiny_tokenizer(), word_features=True)
SHORT, LONG = 0, 1
"""The columns of the two forms of a shape."""

texts = st.text(
    st.sampled_from("aBcD 12.-_éÉ\u0301ß北😀\t") | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)


def features_of(text: str) -> np.ndarray:
    return word_features(code_points(text), segment(text))


def row(word: str) -> list[int]:
    (found,) = features_of(word).tolist()
    return found


def agree(one: str, other: str) -> list[bool]:
    return [a == b for a, b in zip(row(one), row(other), strict=True)]


@given(st.lists(texts, max_size=4))
@settings(max_examples=150)
def test_a_words_features_do_not_depend_on_what_is_around_it(parts: list[str]) -> None:
    text = " ".join(parts)
    found = features_of(text)
    assert found.shape == (len(segment(text)), WORD_FEATURE_COLUMNS)
    for ids, (start, end) in zip(found.tolist(), segment(text).tolist(), strict=True):
        assert ids == row(text[start:end])
        assert ids == sorted(ids)
        assert ids[0] > 0
        assert ids[-1] < WORD_FEATURE_ROWS


@pytest.mark.parametrize(
    ("one", "other", "short", "long"),
    [
        ("Paris", "London", True, True),
        ("paris", "Paris", False, False),
        ("USA", "NATO", True, False),
        ("I", "A", True, True),
        ("I", "IBM", True, False),
        ("iPhone", "eBay", True, False),
        ("McDonald", "McKinsey", True, True),
        ("1999", "2026", True, True),
        ("12", "2026", True, False),
        ("B2B", "A1C", True, True),
        ("Zoe\u0308", "Zoe", True, True),
        ("Ärger", "Paris", True, True),
        ("北", "a", False, False),
    ],
)
def test_words_of_one_case_pattern_share_a_shape(
    one: str, other: str, short: bool, long: bool
) -> None:
    found = agree(one, other)
    assert (found[SHORT], found[LONG]) == (short, long)


def test_stored_features_keep_their_meaning() -> None:
    """If this fails, raise the version: the ids mean something else to trained heads."""
    assert WORD_FEATURES_VERSION == 1
    assert row("McDonald") == [63, 1049]


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ("John lives in Paris", True),
        ("I", False),
        ("Ab", True),
        ("john lives in paris", False),
        ("JOHN LIVES IN PARIS 24", False),
        ("12 .", False),
        ("", False),
    ],
)
def test_a_text_in_one_case_says_nothing_by_it(text: str, shows: bool) -> None:
    for texts in ([text], ["Aa", text, "Bb c"]):
        encoding = TOKENIZER.encode_batch(texts)[texts.index(text)]
        expected = features_of(text) if shows else np.zeros((len(segment(text)), 2), np.int32)
        assert encoding.word_features is not None
        assert encoding.word_features.tolist() == expected.tolist()


def test_encodings_windows_and_batches_carry_the_features_of_their_words() -> None:
    text = "John Smith lives in London with Mary, and 12 more"
    encoding = TOKENIZER.encode(text)
    assert encoding.word_features is not None
    assert encoding.word_features.tolist() == features_of(text).tolist()
    parts = windows(encoding, 8, 2)
    for part in parts:
        words = slice(part.first_word, part.first_word + len(part.word_starts))
        assert part.word_features is not None
        assert part.word_features.tolist() == encoding.word_features[words].tolist()
    kept, _ = truncate(encoding, 8)
    assert kept.word_features is not None
    assert kept.word_features.tolist() == encoding.word_features[: len(kept.word_starts)].tolist()
    batch = pad_batch(parts, pad_id=0)
    assert batch.word_features is not None
    assert batch.word_features.dtype == np.int64
    assert ((batch.word_features > 0).all(axis=2) == batch.word_mask).all()
    assert batch.word_features[1][batch.word_mask[1]].tolist() == parts[1].word_features.tolist()


def test_features_are_computed_only_where_they_are_asked_for() -> None:
    plain = TOKENIZER.with_word_features(False)
    assert plain.encode("John").word_features is None
    assert pad_batch([plain.encode("John")], 0).word_features is None
    assert plain.with_word_features(True).encode("John").word_features is not None
    assert TOKENIZER.with_units(Units.PIECES).encode("John").word_features is not None


def test_a_tokenizer_that_ignores_case_is_recognised() -> None:
    assert TOKENIZER.lower_cases
    assert not TextTokenizer(tiny_tokenizer(lowercase=False)).lower_cases
    assert not TextTokenizer(tiny_byte_bpe()).lower_cases
