"""Models taken apart for the disk and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manyheads.checkpoint import CheckpointContents
from manyheads.config import Config, make_config
from manyheads.decoding import TaskSpec
from manyheads.encoder import Encoder
from manyheads.encoder_source import PoolingSpec
from manyheads.errors import ModelError, at, listing
from manyheads.heads import make_head
from manyheads.model import MultiTaskModel
from manyheads.model_files import LAYOUT, EncoderFiles
from manyheads.model_folder import ModelContents
from manyheads.state_dicts import load_state


def encoder_files(encoder: Encoder, max_length: int) -> EncoderFiles:
    """Return all of an encoder but its weights."""
    return EncoderFiles(
        config=encoder.config,
        files=encoder.files,
        pooling=encoder.pooling.mode,
        normalize=encoder.pooling.normalize,
        max_length=max_length,
        hidden_size=encoder.shape.hidden_size,
    )


def build_encoder(files: EncoderFiles) -> Encoder:
    """Build an encoder whose weights are loaded next.

    Raises:
        ModelError: the configuration is not one that `transformers` itself can build.
    """
    return Encoder.from_config(
        files.config, PoolingSpec(files.pooling, files.normalize), files.files
    )


def model_contents(
    model: MultiTaskModel, config: Config, max_length: int, metrics: Mapping[str, Any]
) -> ModelContents:
    """Return all that a model folder holds of a model."""
    return ModelContents(
        tasks=task_specs(model),
        encoder=encoder_files(model.encoder, max_length),
        encoder_state=model.encoder.backbone.state_dict(),
        head_state=model.heads.state_dict(),
        metrics=metrics,
        config=config.model_dump(mode="json"),
    )


def task_specs(model: MultiTaskModel) -> list[dict[str, Any]]:
    """Describe the tasks of a model, as JSON values."""
    return [model.head(name).spec(name).to_json() for name in model.heads]


def model_of_folder(contents: ModelContents, folder: Path) -> MultiTaskModel:
    """Put a model together from a model folder's contents.

    Raises:
        ModelError: they do not fit together.
    """
    model = _empty_model(contents.config, contents.tasks, contents.encoder)
    load_state(model.encoder.backbone, contents.encoder_state, at(folder / LAYOUT.weights))
    load_state(model.heads, contents.head_state, at(folder / LAYOUT.heads))
    return model


def model_of_checkpoint(contents: CheckpointContents, path: Path) -> MultiTaskModel:
    """Put a model together from a checkpoint's contents.

    Raises:
        ModelError: they do not fit together.
    """
    model = _empty_model(contents.config, contents.tasks, contents.encoder)
    load_state(model, contents.model, at(path))
    return model


def _empty_model(
    config: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], files: EncoderFiles
) -> MultiTaskModel:
    settings = make_config(config).tasks
    encoder = build_encoder(files)
    heads = {}
    for task in tasks:
        spec = TaskSpec.from_json(task)
        if spec.name not in settings:
            raise ModelError(
                f"task {spec.name!r} is not in the model's configuration",
                expected=f"one of: {listing(settings)}",
            )
        heads[spec.name] = make_head(settings[spec.name], spec.label_set(), encoder.shape)
    return MultiTaskModel(encoder, heads)
