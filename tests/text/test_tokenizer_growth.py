"""Tokenizers that would lengthen a text without limit are refused before they encode one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tokenizers import normalizers

from manyheads.errors import ModelError
from manyheads.text import TextTokenizer
from tiny import ROBERTA_SPECIALS, tiny_byte_bpe, tiny_tokenizer, tiny_unigram


def with_normalizer(normalizer: Any) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.normalizer = normalizer
    return str(tokenizer.to_str())


def replacing(times: int, content: str) -> Any:
    return normalizers.Sequence([normalizers.Replace("a", content) for _ in range(times)])


def test_replacements_that_multiply_are_refused() -> None:
    with pytest.raises(ModelError, match=r"makes a text up to 1e\+04 times as long"):
        TextTokenizer.from_json(with_normalizer(replacing(4, "a" * 10)))
    # Sequences within sequences, and patterns that match between all characters.
    nested = normalizers.Sequence([replacing(2, "a" * 5), replacing(2, "a" * 5)])
    with pytest.raises(ModelError, match="up to 625 times as long"):
        TextTokenizer.from_json(with_normalizer(nested))


def test_the_length_of_a_prefix_is_bounded() -> None:
    with pytest.raises(ModelError, match="makes a text 1002 longer"):
        TextTokenizer.from_json(with_normalizer(normalizers.Prepend("a" * 1000)))


def test_a_table_of_characters_is_bounded() -> None:
    data = (4).to_bytes(4, "little") + b"\0" * 4 + b"x" * 10_000 + b"\0"
    tokenizer = json.loads(with_normalizer(None))
    table = base64.b64encode(data).decode()
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": table}
    with pytest.raises(ModelError, match=r"times as long|not a tokenizer"):
        TextTokenizer.from_json(json.dumps(tokenizer))


def test_special_tokens_around_a_text_are_bounded() -> None:
    tokenizer = json.loads(tiny_tokenizer().to_str())
    processor = tokenizer["post_processor"]
    (name, *_) = processor["special_tokens"]
    processor["special_tokens"][name]["ids"] *= 5000
    processor["special_tokens"][name]["tokens"] *= 5000
    with pytest.raises(ModelError, match=r"makes a text 50\d\d longer"):
        TextTokenizer.from_json(json.dumps(tokenizer))


def test_the_tokenizers_of_encoders_pass() -> None:
    for tokenizer in (
        tiny_tokenizer(),
        tiny_byte_bpe(specials=ROBERTA_SPECIALS),
        tiny_unigram(specials=ROBERTA_SPECIALS),
    ):
        TextTokenizer.from_json(tokenizer.to_str())
    TextTokenizer.from_json(with_normalizer(replacing(3, "b")))
