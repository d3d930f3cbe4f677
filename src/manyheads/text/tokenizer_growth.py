"""A bound on how much a tokenizer may lengthen a text, checked before the first text is encoded.

A normalizer may replace a character with a text of any length, and its steps multiply: ten steps of
a hundred characters each would fill any memory from one letter. The tokenizers of real encoders
hardly change the length of a text.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from tokenizers import Tokenizer

from manyheads.errors import ModelError

MAX_GROWTH = 16
"""The most characters that all replacements together may make of one."""
MAX_ADDED = 64
"""The most characters and special tokens that may be added to a text."""
_MAX_MAPPED_BYTES = 128
"""The most bytes to which a table may map one character; NFKC needs 33."""


def check_growth(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that can make texts much longer.

    Raises:
        ModelError: its normalizer, pre-tokenizer or post-processor can.
    """
    growth, added = 1.0, 0
    for part in (tokenizer.normalizer, tokenizer.pre_tokenizer):
        if part is not None:
            for step in _steps(json.loads(part.__getstate__())):
                growth *= _growth(step)
                added += sum(
                    len(step[key]) for key in ("prepend",) if isinstance(step.get(key), str)
                )
    if tokenizer.post_processor is not None:
        for step in _steps(json.loads(tokenizer.post_processor.__getstate__())):
            added += _special_tokens(step)
    if growth > MAX_GROWTH or added > MAX_ADDED:
        found = f"up to {growth:.3g} times as long" if growth > MAX_GROWTH else f"{added} longer"
        raise ModelError(
            f"the tokenizer makes a text {found}",
            expected=f"at most {MAX_GROWTH} times, and {MAX_ADDED} characters and special tokens",
            fix="Do not use it; get the encoder again from a source that you trust.",
        )


def _steps(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a component, with nested sequences flattened."""
    found, waiting = [], [value]
    while waiting:
        step = waiting.pop()
        inner = [one for one in step.values() if isinstance(one, list)]
        if step.get("type") == "Sequence":
            waiting += [one for steps in inner for one in steps if isinstance(one, dict)]
        else:
            found.append(step)
    return found


def _growth(step: dict[str, Any]) -> float:
    """Return the most characters that a step may make of one."""
    if step.get("type") == "Replace":
        content, pattern = step.get("content", ""), step.get("pattern", {})
        matched = len(pattern.get("String", "")) if isinstance(pattern, dict) else 0
        # A regular expression may match the empty string, so that the text is kept as well.
        return max(1.0, len(content) / matched) if matched else 1.0 + max(0, len(content) - 1)
    if step.get("type") == "Precompiled":
        return max(1.0, _longest_mapping(step.get("precompiled_charsmap")) / _MAX_MAPPED_BYTES)
    return 1.0


def _longest_mapping(table: object) -> float:
    """Return the bytes of the longest text in a table of characters, as SentencePiece has it."""
    try:
        data = base64.b64decode(table if isinstance(table, str) else "")
    except (binascii.Error, ValueError):
        return math.inf
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    return max(map(len, texts.split(b"\0")), default=0)


def _special_tokens(step: dict[str, Any]) -> int:
    """Count the special tokens that a template puts around one text."""
    tokens = step.get("special_tokens", {})
    sizes = {
        name: len(one.get("ids", ())) for name, one in tokens.items() if isinstance(one, dict)
    } if isinstance(tokens, dict) else {}  # fmt: skip
    pieces = step.get("single", ())
    names = (p.get("SpecialToken", {}).get("id") for p in pieces if isinstance(p, dict))
    return sum(sizes.get(name, 1) for name in names if name is not None)
