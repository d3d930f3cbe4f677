"""The layout of a model folder: the names of its files, and what tells it from other folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from manyheads.errors import RequestError
from manyheads.storage.atomic import StrPath


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of a model folder's files."""

    manifest: str = "manyheads.json"
    heads: str = "heads.safetensors"
    card: str = "README.md"
    # As transformers names them:
    config: str = "config.json"
    weights: str = "model.safetensors"
    tokenizer: str = "tokenizer.json"
    tokenizer_config: str = "tokenizer_config.json"
    # As sentence-transformers names them:
    modules: str = "modules.json"
    pooling: str = "1_Pooling/config.json"
    normalize: str = "2_Normalize/config.json"
    max_length: str = "sentence_bert_config.json"
    sentence_transformers: str = "config_sentence_transformers.json"


LAYOUT = Layout()
OWN_FILES = tuple(getattr(LAYOUT, name) for name in Layout.__slots__)
"""The files of every model, written with the model and never added."""
BEST = "best"
"""The name of the best model's folder in a run's folder."""


def best_of(task: str) -> str:
    """Return the name of the folder of the model that is best for one task."""
    return f"{BEST}-{task}"


def dense_folder(index: int) -> str:
    """Return the name of the folder of a layer after the pooling, counted from 0."""
    return f"{index + 2}_Dense"


def is_model_folder(path: StrPath) -> bool:
    """Return whether a path is a folder that has a model's manifest, intact or not."""
    return (Path(path) / LAYOUT.manifest).is_file()


def refuse_other_folder(path: StrPath) -> None:
    """Check that a folder to which a model will be written holds nothing else.

    Raises:
        RequestError: it holds something else.
    """
    target = Path(path)
    if target.is_dir() and not is_model_folder(target) and any(target.iterdir()):
        raise RequestError(
            "holds something other than a model",
            expected="a model folder to replace, an empty folder, or none",
            fix="Move it away, or choose another name.",
            where=os.fspath(path),
        )
