"""Text to words, sub-tokens and windows, and back to characters."""

from __future__ import annotations

from manyheads.text.scripts import SCRIPT_SAMPLE, script_of, scripts_message, unknown_scripts
from manyheads.text.tokenization import Encoding, TextTokenizer, Units, limit_tokenizer_threads
from manyheads.text.windows import (
    Batch,
    Floats,
    Window,
    beginning,
    mean_over_windows,
    pad_batch,
    plan_batches,
    stitch_words,
    truncate,
    windows,
)
from manyheads.text.word_features import (
    WORD_FEATURE_COLUMNS,
    WORD_FEATURE_ROWS,
    WORD_FEATURES_VERSION,
)
from manyheads.text.words import Positions, code_points, segment, word_borders

__all__ = [
    "SCRIPT_SAMPLE",
    "WORD_FEATURES_VERSION",
    "WORD_FEATURE_COLUMNS",
    "WORD_FEATURE_ROWS",
    "Batch",
    "Encoding",
    "Floats",
    "Positions",
    "TextTokenizer",
    "Units",
    "Window",
    "beginning",
    "code_points",
    "limit_tokenizer_threads",
    "mean_over_windows",
    "pad_batch",
    "plan_batches",
    "script_of",
    "scripts_message",
    "segment",
    "stitch_words",
    "truncate",
    "unknown_scripts",
    "windows",
    "word_borders",
]
