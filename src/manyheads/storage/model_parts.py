"""The parts of a model, read from its folder: the encoder without its weights, and the heads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from manyheads.errors import ModelError, shorten
from manyheads.storage.embedding import DenseLayer, Reading, embedding_size
from manyheads.storage.layout import LAYOUT, dense_folder
from manyheads.storage.manifest import GET_AGAIN, Manifest
from manyheads.storage.untrusted import Fields, parse_json, refuse_code, refuse_sizes

_MAX_HEADS_BYTES = 4 << 30
_TOKENIZER_JSON = (LAYOUT.tokenizer, LAYOUT.tokenizer_config)


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """Everything of an encoder except its weights."""

    config: Mapping[str, Any]
    """`config.json`, as transformers writes it."""
    files: Mapping[str, bytes] = field(repr=False)
    """The tokenizer's files by name: `tokenizer.json` and those beside it."""
    pooling: str
    """How token vectors make the sentence embedding: one of `POOLING_MODES`, or several joined by
    `+`, whose vectors are concatenated."""
    normalize: bool
    """Whether the embedding is scaled to length one."""
    max_length: int
    """Tokens that the heads read at once, special ones included."""
    hidden_size: int
    """Length of a token's vector."""
    dense: tuple[DenseLayer, ...] = ()
    """Layers after the pooling."""
    reading: Reading = field(default_factory=Reading)

    @property
    def embedding_size(self) -> int:
        """Length of the embedding."""
        return embedding_size(self.hidden_size, self.pooling, self.dense)


def read_encoder(manifest: Manifest) -> EncoderFiles:
    """Read everything of a model's encoder except its weights.

    Raises:
        ModelError: a file has changed since it was saved, or asks to run the model's own code.
        StorageError: a file cannot be read.
    """
    config = manifest.read_json(LAYOUT.config)
    files = {name: manifest.read(name) for name in manifest.tokenizer_files}
    check_code(config, files, os.fspath(manifest.folder))
    return EncoderFiles(
        config=config,
        files=files,
        pooling=manifest.pooling,
        normalize=manifest.normalize,
        max_length=manifest.max_length,
        hidden_size=manifest.hidden_size,
        dense=tuple(
            DenseLayer.from_settings(
                Fields(settings, os.fspath(manifest.folder / LAYOUT.manifest), GET_AGAIN),
                manifest.read(f"{dense_folder(i)}/{LAYOUT.weights}", _MAX_HEADS_BYTES),
            )
            for i, settings in enumerate(manifest.dense)
        ),
        reading=manifest.reading,
    )


def check_code(config: object, files: Mapping[str, bytes], where: str) -> None:
    """Refuse an encoder that asks to run its own Python code, or for unlimited memory.

    Args:
        config: its `config.json`, parsed.
        files: its tokenizer's files by name.
        where: the name of their folder or file in an error.

    Raises:
        ModelError: it does so, or one of these is not a JSON object.
    """
    parsed = {
        name: parse_json(files.get(name, b"{}"), f"{where}/{name}") for name in _TOKENIZER_JSON
    }
    for name, value in {LAYOUT.config: config, **parsed}.items():
        if not isinstance(value, dict):
            raise ModelError(
                "is not a JSON object", expected="one", fix=GET_AGAIN, where=f"{where}/{name}"
            )
    # Only the top level of tokenizer.json: any word may occur in the vocabulary below.
    refuse_code(dict.fromkeys(parsed[LAYOUT.tokenizer], True), f"{where}/{LAYOUT.tokenizer}")
    refuse_code(parsed[LAYOUT.tokenizer_config], f"{where}/{LAYOUT.tokenizer_config}")
    refuse_code(config, f"{where}/{LAYOUT.config}")
    refuse_sizes(config, f"{where}/{LAYOUT.config}")


def read_heads(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Read the parameters of every head, by `<task>.<parameter>`.

    Raises:
        ModelError: the file has changed since it was saved, or does not hold tensors.
    """
    data = manifest.read(LAYOUT.heads, _MAX_HEADS_BYTES)
    try:
        tensors: dict[str, NDArray[Any]] = safetensors_numpy.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise not_tensors(error, manifest.folder / LAYOUT.heads) from None
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def not_tensors(error: Exception, path: Path) -> ModelError:
    """Explain why a safetensors file was refused."""
    return ModelError(
        f"is not a usable safetensors file ({shorten(str(error), 160)})",
        expected="tensors as Manyheads saves them",
        fix=f"Nothing in it was executed. {GET_AGAIN}",
        where=os.fspath(path),
    )
