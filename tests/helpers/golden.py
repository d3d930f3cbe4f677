"""Golden loss curves: the losses of small fixed runs, step by step, as they were recorded.

    PYTHONPATH=src:tests/helpers python tests/helpers/golden.py

records them again in `golden.json`. Do this only for a change that is meant to affect what training
computes, and explain why in the commit. Every other change leaves the curves as they are.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_setup import run

FILE = Path(__file__).with_name("golden.json")

RUNS: Mapping[str, Mapping[str, Any]] = {
    "alternate": {
        "tasks": {
            "intent": {"kind": "classification"},
            "ner": {"kind": "tagging", "word_features": "off"},
        },
        "gradient_accumulation": 2,
    },
    "joint": {
        "tasks": {
            "intent": {"kind": "classification", "weight": 0.5},
            "ner": {
                "kind": "tagging",
                "decoder": "crf",
                "neck": "bilstm",
                "neck_size": 8,
                "word_features": "off",
            },
        },
        "schedule": "joint",
    },
}
"""The settings of each run beyond those that tests share."""

Curve = list[tuple[str, float]]


def curve(folder: Path, name: str, **changes: Any) -> Curve:
    """Train one of the runs in an empty folder; return the task and loss of every step."""
    settings = {"num_epochs": 3, "weight_decay": 0.1, **RUNS[name], **changes}
    return run(folder, **settings)[1].losses


def recorded(name: str) -> Curve:
    """Read a run's curve from the file."""
    return [(task, loss) for task, loss in json.loads(FILE.read_text(encoding="utf-8"))[name]]


def record() -> None:
    """Write the curves of all runs to the file."""
    with tempfile.TemporaryDirectory() as folder:
        curves = {name: curve(Path(folder, name), name) for name in RUNS}
    # Nine digits distinguish any two float32 numbers.
    lines = [
        f'  "{name}": [\n'
        + ",\n".join(f'    ["{task}", {loss:.9g}]' for task, loss in steps)
        + "\n  ]"
        for name, steps in curves.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
