"""Runs of every kind of step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LINEAR: Mapping[str, Any] = {
    "intent": {"kind": "classification", "field": "label"},
    "slots": {"kind": "tagging", "field": "ner"},
}


CRF: Mapping[str, Any] = {
    **LINEAR, "slots": {**LINEAR["slots"], "decoder": "crf", "neck": "bilstm"},
}  # fmt: skip


RUNS: Mapping[str, Mapping[str, Any]] = {
    "alternate": {"tasks": LINEAR},
    "joint, CRF": {"tasks": CRF, "schedule": "joint"},
    "uncertainty": {"tasks": LINEAR, "schedule": "together", "balancing": "uncertainty"},
    "measured gradients": {"tasks": LINEAR, "schedule": "joint", "log_gradients": 2},
    "frozen": {"tasks": CRF, "schedule": "joint", "freeze": "encoder"},
    "held": {"tasks": LINEAR, "schedule": "joint", "keep_embeddings": 1, "head_layers": 1},
    "accumulated": {"tasks": LINEAR, "schedule": "joint", "gradient_accumulation": 2},
}
