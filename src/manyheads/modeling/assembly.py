"""Conversion of models to the contents of model folders and checkpoints, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manyheads.config import Config, stored_config
from manyheads.errors import ConfigError, ModelError, at, listing, shorten
from manyheads.modeling.checkpoint import CheckpointContents
from manyheads.modeling.encoder import Encoder
from manyheads.modeling.head_layers import HeadLayers
from manyheads.modeling.heads import Head, make_head
from manyheads.modeling.lora import plain_state
from manyheads.modeling.model import MultiTaskModel
from manyheads.modeling.model_folder import ModelContents
from manyheads.modeling.pooling import PoolingSpec
from manyheads.modeling.state_dicts import check_state, load_state
from manyheads.storage import LAYOUT, EncoderFiles
from manyheads.tasks import TaskSpec

_EDITED = "It is damaged or was edited; copy or train it again."

HEADS = "heads."
"""Prefix of the heads' parameters in a whole model."""

# Prefix of the encoder's parameters.
_BACKBONE = "encoder.backbone."

# Prefix of the heads' own layers among the heads. No task's name can start like this.
_LAYERS_OF_HEADS = "_head_layers."


def encoder_files(encoder: Encoder, max_length: int) -> EncoderFiles:
    """Return an encoder without its weights."""
    return EncoderFiles(
        config=encoder.config,
        files=encoder.files,
        pooling=encoder.pooling.mode,
        normalize=encoder.pooling.normalize,
        max_length=max_length,
        hidden_size=encoder.shape.hidden_size,
        dense=encoder.pooling.dense,
        reading=encoder.reading,
    )


def build_encoder(files: EncoderFiles, state: Mapping[str, Tensor], where: str) -> Encoder:
    """Build an encoder; the weights are loaded afterwards.

    Args:
        files: everything except the weights.
        state: the weights.
        where: the file of the weights, for an error.

    Raises:
        ModelError: the configuration is not one that `transformers` itself can build, or the
            weights are not its own.
    """
    pooling = PoolingSpec(files.pooling, files.normalize, files.dense)
    encoder = Encoder.from_config(files.config, pooling, files.files, state, where, files.reading)
    lengths = (files.max_length, files.reading.max_length or files.max_length)
    for length in lengths:
        if 0 < length <= encoder.max_positions:
            continue
        raise ModelError(
            f"the model reads {length} sub-tokens at once", where=where,
            expected=f"at most the {encoder.max_positions} that its encoder can",
            fix=_EDITED,
        )  # fmt: skip
    return encoder


def backbone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the encoder's weights from a whole model's."""
    return {
        name.removeprefix(_BACKBONE): tensor
        for name, tensor in state.items()
        if name.startswith(_BACKBONE)
    }


def model_contents(
    model: MultiTaskModel, config: Config, max_length: int, metrics: Mapping[str, Any]
) -> ModelContents:
    """Return the contents of a model's folder."""
    return ModelContents(
        tasks=task_specs(model),
        encoder=encoder_files(model.encoder, max_length),
        encoder_state=plain_state(model.encoder.backbone),
        head_state=head_state(model),
        metrics=metrics,
        config=config.model_dump(mode="json"),
    )


def head_state(model: MultiTaskModel) -> dict[str, Tensor]:
    """Return the parameters of the heads and of their own layers."""
    state: dict[str, Tensor] = dict(model.heads.state_dict())
    if model.head_layers is not None:
        own = model.head_layers.state_dict()
        state.update({f"{_LAYERS_OF_HEADS}{name}": tensor for name, tensor in own.items()})
    return state


def task_specs(model: MultiTaskModel) -> list[dict[str, Any]]:
    """Return the specs of a model's tasks, as JSON values."""
    return [model.head(name).spec(name).to_json() for name in model.heads]


def model_of_folder(contents: ModelContents, folder: Path) -> MultiTaskModel:
    """Build a model from a model folder's contents.

    Raises:
        ModelError: the parts do not fit together.
    """
    weights, heads = at(folder / LAYOUT.weights), at(folder / LAYOUT.heads)
    encoder = build_encoder(contents.encoder, contents.encoder_state, weights)
    load_state(encoder.backbone, contents.encoder_state, weights)
    state, own_state = dict(contents.head_state), {}
    for name in contents.head_state:
        if name.startswith(_LAYERS_OF_HEADS):
            own_state[name.removeprefix(_LAYERS_OF_HEADS)] = state.pop(name)
    config = stored_config(contents.config)
    model = MultiTaskModel(
        encoder,
        _heads(config, contents.tasks, encoder, state, heads),
        make_head_layers(config, encoder),
    )
    load_state(nn.Module() if model.head_layers is None else model.head_layers, own_state, heads)
    return model


def model_of_checkpoint(contents: CheckpointContents, path: Path) -> MultiTaskModel:
    """Build a model from a checkpoint's contents.

    Raises:
        ModelError: the parts do not fit together.
    """
    where = at(path)
    encoder = build_encoder(contents.encoder, backbone_state(contents.model), where)
    head_state = {
        name.removeprefix(HEADS): tensor
        for name, tensor in contents.model.items()
        if name.startswith(HEADS)
    }
    config = stored_config(contents.config)
    heads = _heads(config, contents.tasks, encoder, head_state, where)
    model = MultiTaskModel(encoder, heads, make_head_layers(config, encoder))
    load_state(model, contents.model, where)
    return model


def make_head_layers(config: Config, encoder: Encoder) -> HeadLayers | None:
    """Copy the upper layers for the heads, if the configuration asks for it.

    Raises:
        ConfigError: the encoder has fewer layers.
        ModelError: its layers cannot be run alone.
    """
    if config.head_layers is None:
        return None
    if config.head_layers > encoder.shape.num_layers:
        raise ConfigError(
            f"`head_layers` is {config.head_layers}",
            expected=f"at most {encoder.shape.num_layers}, the encoder's layers",
        )
    return HeadLayers(encoder, config.head_layers)


def _heads(
    config: Config,
    tasks: Sequence[Mapping[str, Any]],
    encoder: Encoder,
    state: Mapping[str, Tensor],
    where: str,
) -> dict[str, Head]:
    """Build the heads and load their parameters."""
    settings = config.tasks
    specs = [TaskSpec.from_json(task) for task in tasks]
    for spec in specs:
        if spec.name not in settings:
            raise ModelError(
                f"task {spec.name!r} is not in the model's configuration", where=where,
                expected=f"one of: {listing(settings)}",
            )  # fmt: skip

    def build() -> dict[str, Head]:
        return {s.name: make_head(settings[s.name], s.label_set(), encoder.shape) for s in specs}

    # First on the meta device: a configuration may ask for any amount of memory.
    try:
        with torch.device("meta"):
            skeleton = build()
    except (RuntimeError, OverflowError) as error:  # more than even torch can count
        raise ModelError(
            f"the tasks' heads cannot be built ({shorten(str(error), 200)})", where=where,
            expected="the sizes that the model was trained with",
            fix=_EDITED,
        ) from None  # fmt: skip
    check_state(nn.ModuleDict(skeleton), state, where)
    heads = build()
    load_state(nn.ModuleDict(heads), state, where)
    return heads
