"""Teachers of several tasks, and sentences for them to answer."""

from __future__ import annotations

from pathlib import Path

CRF_TASKS = {
    "classification": {"kind": "classification"},
    "ner": {"kind": "tagging", "decoder": "crf"},
}


def texts_file(folder: Path) -> str:
    """Write three unlabelled sentences to a folder; returns their path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "texts.txt"
    path.write_text("mary lives in rome\nwhere is paul ?\nit was bad\n", encoding="utf-8")
    return str(path)
