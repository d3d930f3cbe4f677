"""A smaller encoder made of some layers of another.

A student that starts with its teacher's layers needs far less data than a new one (Sanh et al.,
2019, "DistilBERT"). Embeddings, tokenizer and pooling are the source's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from manyheads.errors import ConfigError, counted
from manyheads.modeling.encoder import Encoder
from manyheads.modeling.freezing import path_of_layers
from manyheads.modeling.state_dicts import load_state

_WHERE = "student_layers"


def student_of(encoder: Encoder, layers: int | Sequence[int]) -> Encoder:
    """Make an encoder of some of another's layers, with weights of its own.

    Args:
        encoder: the source; it is not changed.
        layers: the number of layers, spread evenly up to the last; or their numbers, from 1.

    Raises:
        ConfigError: the source does not have these layers.
        ModelError: its layers do not have parameters of their own.
    """
    chosen = chosen_layers(layers, encoder.shape.num_layers)
    pattern = re.compile(rf"({re.escape(path_of_layers(encoder))}\.)(\d+)(\..*)")
    new_numbers = {number - 1: place for place, number in enumerate(chosen)}
    state: dict[str, Tensor] = {}
    for name, tensor in encoder.backbone.state_dict().items():
        match = pattern.fullmatch(name)
        if match is None:
            state[name] = tensor
        elif (old := int(match[2])) in new_numbers:
            state[f"{match[1]}{new_numbers[old]}{match[3]}"] = tensor
    student = Encoder.from_config(
        _config_of(encoder, chosen), encoder.pooling, encoder.files, state, _WHERE, encoder.reading
    )
    load_state(student.backbone, state, _WHERE)
    return student


def chosen_layers(layers: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return the numbers, from 1, of the layers that a student takes from an encoder of `count`.

    Raises:
        ConfigError: the encoder does not have these layers.
    """
    if isinstance(layers, int):
        found = tuple(round(place * count / layers) for place in range(1, layers + 1))
    else:
        found = tuple(layers)
    if len(set(found)) < len(found) or len(found) >= count or found[-1] > count:
        shown = layers if isinstance(layers, int) else list(layers)
        raise ConfigError(
            f"`student_layers` is {shown}, and the encoder has {counted(count, 'layer')}",
            expected=f"a number from 1 to {count - 1}, or fewer of its layers than all",
        )
    return found


def _config_of(encoder: Encoder, chosen: Sequence[int]) -> dict[str, Any]:
    """Return an encoder's configuration for some of its layers."""
    values = encoder.config
    count = encoder.shape.num_layers
    names: Mapping[str, str] = encoder.backbone.config.attribute_map
    key = names.get("num_hidden_layers", "num_hidden_layers")
    # ModernBERT lists the type of each layer.
    lists = {
        name: [value[number - 1] for number in chosen]
        for name, value in values.items()
        if isinstance(value, list) and len(value) == count and name.endswith("layer_types")
    }
    return {**values, **lists, key: len(chosen)}
