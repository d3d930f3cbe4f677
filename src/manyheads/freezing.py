"""Freezing: the part of a model that training leaves as it is.

The groups of an encoder are counted from the bottom. Group 0 is the embedding layer, with what
all layers share (MPNet's table of relative positions); group i is the i-th layer, and what follows
the last layer (ModernBERT's final norm) belongs to that. What is frozen is always at the bottom:
all groups below a depth. A pooler such as BERT's is in no group: nothing reads it, so it is never
trained.

What is frozen has no gradient, and so no place in the optimiser, no state there and no weight
decay; its dropout is off. The backward pass ends where it begins.
"""

from __future__ import annotations

import re

from torch import nn

from manyheads.config import Config
from manyheads.encoder import Encoder
from manyheads.errors import ConfigError, ModelError
from manyheads.model import MultiTaskModel

# What comes after the last layer, as the encoders of `transformers` call it.
_AFTER_LAYERS = re.compile(r"(.+\.)?(final_norm|final_layer_norm|emb_layer_norm_after)(\..*)?")
_POOLER = re.compile(r"pooler(\..*)?")


def frozen_depth(config: Config, num_layers: int) -> int:
    """Return how many groups of the encoder are frozen, from the bottom.

    Args:
        config: whose `freeze` says it.
        num_layers: the encoder's layers.

    Returns:
        0 where nothing is frozen, 1 for the embedding layer, 1 + K for the lower K layers too, and
        1 + `num_layers` for the whole encoder.

    Raises:
        ConfigError: there are not that many layers.
    """
    if config.freeze in ("none", "embeddings"):
        return int(config.freeze == "embeddings")
    if config.freeze == "encoder":
        return 1 + num_layers
    layers = int(config.freeze.removeprefix("layers:"))
    if layers >= num_layers:
        raise ConfigError(
            f"`freeze` is {config.freeze}, and the encoder has {num_layers} layers",
            expected=f"at most layers:{num_layers - 1}",
            fix="For all layers write `freeze: encoder`.",
        )
    return 1 + layers


def encoder_groups(encoder: Encoder) -> dict[str, int]:
    """Tell the group of each parameter of an encoder, by the name that the encoder gives it.

    Those of a pooler are left out: they are in none.

    Raises:
        ModelError: the encoder has no layers of their own parameters, one after the other.
    """
    return _groups(encoder, [name for name, _ in encoder.backbone.named_parameters()])


def _groups(encoder: Encoder, names: list[str]) -> dict[str, int]:
    """Tell the groups of parameters or modules by their names in the backbone."""
    layers, count = _layers(encoder), encoder.shape.num_layers
    layer = re.compile(rf"{re.escape(layers)}\.(\d+)(\..*)?")
    groups = {}
    for name in names:
        if _POOLER.fullmatch(name):
            continue
        match = layer.fullmatch(name)
        number = 1 + int(match[1]) if match else count if _AFTER_LAYERS.fullmatch(name) else 0
        groups[f"backbone.{name}"] = number
    return groups


def _layers(encoder: Encoder) -> str:
    """Find the list of an encoder's layers: BERT's `encoder.layer`, ModernBERT's `layers`."""
    modules: list[tuple[str, nn.Module]] = list(encoder.backbone.named_modules())
    for name, module in modules:
        if isinstance(module, nn.ModuleList) and len(module) == encoder.shape.num_layers:
            return name
    raise ModelError(
        f"a {type(encoder.backbone).__name__} does not have {encoder.shape.num_layers} layers with "
        "parameters of their own, so that some cannot be frozen without the others",
        expected="an encoder such as BERT, DistilBERT, RoBERTa, MPNet or ModernBERT",
        fix="Use `freeze: encoder` or `freeze: none`.",
    )


class Freezing:
    """Holds a part of a model as it is, from now on.

    Args:
        model: the model.
        config: says what is frozen.

    Raises:
        ConfigError: the encoder has fewer layers than are to be frozen.
        ModelError: the encoder's layers cannot be told apart.
    """

    def __init__(self, model: MultiTaskModel, config: Config) -> None:
        self.model = model
        encoder = model.encoder
        self.depth = frozen_depth(config, encoder.shape.num_layers)
        for name, parameter in encoder.backbone.named_parameters():
            parameter.requires_grad_(not _POOLER.fullmatch(name))
        for name in _below(self.depth, encoder, [n for n, _ in encoder.named_parameters()]):
            encoder.get_parameter(name).requires_grad_(False)
        modules = _below(self.depth, encoder, [n for n, _ in encoder.named_modules()])
        self._still = [encoder.get_submodule(name) for name in modules]
        model.eval()  # so that the first `train_mode` sees that there is something to do

    def train_mode(self) -> None:
        """Put the model into training mode, but what is frozen."""
        if self.model.training:
            return
        self.model.train()
        for module in self._still:
            module.training = False

    def describe(self) -> str:
        """Say how much of the model is trained."""
        parameters = list(self.model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        total = sum(p.numel() for p in parameters)
        return f"Training {trained:,} of {total:,} parameters ({trained / total:.1%})."


def _below(depth: int, encoder: Encoder, names: list[str]) -> list[str]:
    """Pick the names in an encoder, of parameters or modules, that are in groups below a depth."""
    if depth == 0 or depth > encoder.shape.num_layers:
        return names if depth else []
    prefix = "backbone."
    own = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [name for name, group in _groups(encoder, own).items() if group < depth]
