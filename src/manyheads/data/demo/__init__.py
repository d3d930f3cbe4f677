"""The demonstration data: questions and statements that mention persons and places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent

SETTINGS: Mapping[str, Any] = {
    "train_file": str(_FOLDER / "train.json"),
    "valid_file": str(_FOLDER / "valid.json"),
    "num_classes": 2,
    "num_ner_labels": 5,
    "learning_rate": 3e-5,
    "save_dir": "saved_model_demo",
    "keep_checkpoints": 1,
}
"""The configuration of the demonstration."""

TEXTS = (
    "John lives in Paris",
    "Where does Mary Jane Watson work?",
    "I wonder whether Ravi ever went back to Nova Scotia.",
    "is it far from Marseille to Lyon",
)
"""Sentences to predict, with names and places that are not in the training data."""
