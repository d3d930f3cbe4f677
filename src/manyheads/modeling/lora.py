"""Low-rank adapters that learn in place of the encoder's weights.

A linear layer `W x` becomes `W x + alpha / rank * B A x`, where A and B are small and W is frozen
(Hu et al., 2022, "LoRA"). The layers are those of the library `peft`, injected into the encoder's
module. A saved model has `W + alpha / rank * B A` under the usual names of the encoder's weights,
so that it loads without `peft` and without adapters.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from manyheads.config import Config, Lora
from manyheads.errors import ConfigError, RequestError, install
from manyheads.modeling.cpu.dropout import replace_dropout
from manyheads.modeling.encoder import Encoder
from manyheads.modeling.freezing import encoder_groups, frozen_depth

if TYPE_CHECKING:
    from peft.tuners.lora import Linear

ADAPTERS = "lora"
"""The checkpoint's key for what the merged weights do not contain: the adapters and the weights
that they adapt."""

# Parts of the names of adapted weights, and of an adapter's own.
_BASE, _OWN = ".base_layer.", ".lora_"
_ADAPTER = "default"

# Names of the layers that compute queries and values. ModernBERT's computes the keys as well.
_QUERY_AND_VALUE = frozenset(
    {"query", "value", "query_proj", "value_proj", "q_proj", "v_proj", "q_lin", "v_lin", "q", "v",
     "Wqkv"}
)  # fmt: skip


def check_adapters(encoder: Encoder, config: Config) -> None:
    """Check that an encoder can have the configured adapters, if there are any.

    Raises:
        RequestError: `peft` is not installed.
        ConfigError: the encoder has no such layers, or they are too small for the rank.
    """
    settings = config.lora
    if settings is None:
        return
    if find_spec("peft") is None:
        raise RequestError(
            "`lora` needs the package peft, which is not installed",
            fix=install("lora"),
        )
    targets = _targets(encoder, config, settings)
    if not targets:
        raise ConfigError(
            f"`lora.targets` is {settings.targets!r}, but no layer of the encoder, a "
            f"{type(encoder.backbone).__name__}, is known as such",
            fix="Set `lora.targets: all`." if settings.targets == "attention" else
            "Choose another encoder, or leave `lora` out.",
        )  # fmt: skip
    largest = min(min(layer.in_features, layer.out_features) for layer in targets.values())
    if settings.rank > largest:
        raise ConfigError(
            f"`lora.rank` is {settings.rank}",
            expected=f"at most {largest}, the size of the encoder's layers; small ones, such as "
            "8, are usual",
        )


def add_adapters(encoder: Encoder, config: Config) -> None:
    """Add the configured adapters, if any, to an encoder, and freeze everything else in it.

    At first they change no output. Their values come from torch's random generator. Layers that the
    configuration freezes get none.
    """
    settings = config.lora
    if settings is None:
        return
    from peft import LoraConfig, inject_adapter_in_model

    alpha = 2 * settings.rank if settings.alpha is None else settings.alpha
    wanted = LoraConfig(
        r=settings.rank,
        lora_alpha=alpha,  # type: ignore[arg-type] # peft accepts fractions too
        lora_dropout=settings.dropout,
        target_modules=list(_targets(encoder, config, settings)),
    )
    inject_adapter_in_model(wanted, encoder.backbone, _ADAPTER)
    replace_dropout(encoder.backbone)


def _targets(encoder: Encoder, config: Config, settings: Lora) -> dict[str, nn.Linear]:
    """Return the linear layers that get an adapter, by their names in the backbone."""
    modules = dict(encoder.backbone.named_modules())
    stacks = [f"{name}." for name, part in modules.items() if isinstance(part, nn.ModuleList)]
    depth = frozen_depth(config, encoder.shape.num_layers)
    groups = encoder_groups(encoder) if depth else {}
    return {
        name: layer
        for name, layer in modules.items()
        if isinstance(layer, nn.Linear)
        and name.startswith(tuple(stacks))
        and (settings.targets == "all" or name.rpartition(".")[2] in _QUERY_AND_VALUE)
        and groups.get(f"backbone.{name}.weight", depth) >= depth
    }


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers under the names they have without adapters.

    Weights with an adapter are merged with it, in their own precision; all other tensors are the
    module's own, not copies.
    """
    adapted = _adapted(module)
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        layer, _, parameter = name.partition(_BASE)
        if layer in adapted:
            is_weight = parameter == "weight"
            state[f"{layer}.{parameter}"] = _merged(adapted[layer], tensor) if is_weight else tensor
        elif name.partition(_OWN)[0] not in adapted:
            state[name] = tensor
    return state


@torch.no_grad()
def _merged(layer: Linear, weight: Tensor) -> Tensor:
    delta: Tensor = layer.get_delta_weight(_ADAPTER)
    return weight + delta


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """Return what `plain_state` lacks: the adapters and the weights that they adapt."""
    adapted = _adapted(module)
    return {
        name: tensor
        for name, tensor in module.state_dict().items()
        if any(name.partition(part)[0] in adapted for part in (_BASE, _OWN))
    }


def _adapted(module: nn.Module) -> dict[str, Linear]:
    """Return the layers with an adapter, by name."""
    # If the library is not imported, there is no adapter, and importing it takes time.
    if sys.modules.get("peft") is None:
        return {}
    from peft.tuners.lora import Linear

    return {name: part for name, part in module.named_modules() if isinstance(part, Linear)}


def with_adapters(plain: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rebuild a module's state from the results of `plain_state` and `adapter_state`."""
    merged = {name.replace(_BASE, ".") for name in adapters}
    return {**{name: plain[name] for name in plain if name not in merged}, **adapters}
