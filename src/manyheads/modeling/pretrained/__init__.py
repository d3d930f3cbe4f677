"""Pretrained encoders: finding them, and reading their configuration files."""

from __future__ import annotations

from manyheads.modeling.pretrained.families import (
    READ_PADDING_SLIGHTLY,
    TEXT_MODELS,
    refuse_other_types,
)
from manyheads.modeling.pretrained.finding import packaged_encoder
from manyheads.modeling.pretrained.source import EncoderSource, find_encoder, stored_parameters
from manyheads.modeling.pretrained.tokenizer import TOKENIZER

__all__ = [
    "READ_PADDING_SLIGHTLY",
    "TEXT_MODELS",
    "TOKENIZER",
    "EncoderSource",
    "find_encoder",
    "packaged_encoder",
    "refuse_other_types",
    "stored_parameters",
]
