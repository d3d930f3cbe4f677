"""Detect scripts that an encoder's vocabulary lacks; it cannot distinguish their words."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from manyheads.sampling import spread
from manyheads.text.tokenization import TextTokenizer, Units
from manyheads.text.words import segment

SCRIPT_SAMPLE = 2000
"""Texts that are examined."""
_LEAST_WORDS = 20
_LEAST_SHARE = 0.1


def unknown_scripts(texts: Sequence[str], tokenizer: TextTokenizer) -> dict[str, float]:
    """Return for each script the share of words that the vocabulary lacks, if it is large.

    The words are those of the text itself (`segment`), whatever carries tags: without spaces
    between them, a sentence of unknown words is one sub-token, and would count as one word.

    Args:
        texts: sentences, of which 2,000 are examined, spread evenly.
        tokenizer: the encoder's tokenizer.
    """
    unknown = _unknown_id(tokenizer)
    if unknown is None:
        return {}
    some = spread(texts, SCRIPT_SAMPLE)
    words: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    pieces = tokenizer.with_units(Units.PIECES).encode_batch(some)
    for text, encoding in zip(some, pieces, strict=True):
        begins_word = np.isin(encoding.word_spans[:, 0], segment(text)[:, 0])
        spans = encoding.word_spans[begins_word].tolist()
        ids = encoding.ids[encoding.word_starts[begins_word]].tolist()
        for (start, end), token in zip(spans, ids, strict=True):
            script = script_of(text[start:end])
            words[script] += 1
            lost[script] += token == unknown
    return {
        script: lost[script] / count
        for script, count in words.items()
        if script and count >= _LEAST_WORDS and lost[script] >= _LEAST_SHARE * count
    }


def scripts_message(shares: Mapping[str, float]) -> str:
    """Return the warning for the user; empty if the vocabulary has every script."""
    if not shares:
        return ""
    told = ", ".join(f"{share:.0%} of {script} words" for script, share in shares.items())
    return (
        f"the encoder's vocabulary lacks {told}, which it cannot distinguish; choose an encoder "
        "for these languages, such as a multilingual one (`model_name`)"
    )


def _unknown_id(tokenizer: TextTokenizer) -> int | None:
    model = json.loads(tokenizer.to_json())["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token, vocabulary = model.get("unk_token"), model.get("vocab")
    return vocabulary.get(token) if isinstance(vocabulary, dict) and token else None


def script_of(word: str) -> str:
    """Return the script of a word's first letter, such as Thai; empty without a letter."""
    letter = next((c for c in word if c.isalpha()), "")
    return unicodedata.name(letter, "").split(" ")[0].capitalize() if letter else ""
