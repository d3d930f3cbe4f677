"""Freezing: the parts of a model that training leaves unchanged.

The groups of an encoder are counted from the bottom. Group 0 is the embedding layer, with what
all layers share (MPNet's table of relative positions); group i is the i-th layer, and modules after
the last layer (ModernBERT's final norm) belong to its group. The frozen groups are always those
below a depth. A pooler such as BERT's is in no group: nothing reads it, so it is never trained.

Trained heads can be frozen too, and stay frozen. Gradients pass through them to the trainable part
of the encoder.

Frozen parameters have no gradient, and so no optimiser state and no weight decay; their dropout is
off. The backward pass stops at the frozen part. Gradual unfreezing (Howard and Ruder 2018,
"Universal language model fine-tuning") unfreezes a group at a fixed interval of steps, the highest
first; the depth is a function of the step alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from manyheads.config import Config
from manyheads.errors import ConfigError, ModelError, counted, listing
from manyheads.modeling.encoder import Encoder
from manyheads.modeling.features import SUITABLE
from manyheads.modeling.model import MultiTaskModel
from manyheads.modeling.upper_layers import layers_path

# Names of the modules after the last layer in the encoders of `transformers`.
_AFTER = re.compile(r"(.+\.)?(final_norm|final_layer_norm|emb_layer_norm_after)(\..*)?")
_BACKBONE = "backbone."
_POOLER = re.compile(r"pooler(\..*)?")


def frozen_depth(config: Config, num_layers: int) -> int:
    """Return the number of groups, from the bottom, that are frozen when training starts.

    Args:
        config: its `freeze` is read.
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
            f"`freeze` is {config.freeze}, and the encoder has {counted(num_layers, 'layer')}",
            expected=f"at most layers:{num_layers - 1}",
            fix="For all layers write `freeze: encoder`.",
        )
    return 1 + layers


def depth_at(config: Config, num_layers: int, step: int, steps_per_epoch: int) -> int:
    """Return the number of groups that are frozen at an optimiser step.

    Args:
        config: its `freeze` and `unfreeze_every` are read.
        num_layers: the encoder's layers.
        step: the number of optimiser steps before this one.
        steps_per_epoch: optimiser steps of an epoch.

    Raises:
        ConfigError: there are not that many layers.
    """
    depth = frozen_depth(config, num_layers)
    if config.unfreeze_every is None:
        return depth
    return max(0, depth - step // _interval(config.unfreeze_every, steps_per_epoch))


def _interval(every: int | str, steps_per_epoch: int) -> int:
    """Return the number of steps between two unfreezings, given in steps or in epochs (`2e`)."""
    text = str(every)
    return int(text[:-1]) * steps_per_epoch if text.endswith("e") else int(text)


def encoder_groups(encoder: Encoder) -> dict[str, int]:
    """Return the group of each of an encoder's parameters, by name.

    A pooler's parameters are left out: they are in no group.

    Raises:
        ModelError: the encoder's layers do not each have parameters of their own.
    """
    return _groups(encoder, (name for name, _ in encoder.named_parameters()))


def _groups(encoder: Encoder, names: Iterable[str]) -> dict[str, int]:
    """Return the groups of parameters or modules, by their names in the encoder."""
    count = encoder.shape.num_layers
    layer = re.compile(rf"{re.escape(path_of_layers(encoder))}\.(\d+)(\..*)?")
    groups = {}
    for name in names:
        own = name.removeprefix(_BACKBONE)
        if own == name or _POOLER.fullmatch(own):
            continue
        match = layer.fullmatch(own)
        groups[name] = 1 + int(match[1]) if match else count if _AFTER.fullmatch(own) else 0
    return groups


def path_of_layers(encoder: Encoder) -> str:
    """Return the name of the list of an encoder's layers (see `layers_path`).

    Raises:
        ModelError: it has none.
    """
    if (path := layers_path(encoder.backbone)) is not None:
        return path
    raise ModelError(
        f"a {type(encoder.backbone).__name__} does not have "
        f"{counted(encoder.shape.num_layers, 'layer')} with parameters of their own, so none "
        "can be frozen alone",
        expected=SUITABLE,
        fix="Use `freeze: encoder` or `freeze: none`, without `unfreeze_every` and `layer_decay`.",
    )


@dataclass(frozen=True)
class _Group:
    parameters: list[nn.Parameter] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)


class Freezing:
    """Freezes a part of a model, and unfreezes it as training proceeds.

    Before the first step, everything that will be trained at some time is unfrozen, because the
    optimiser needs to know it. Parameters that already need no gradient are left alone.

    Args:
        model: the model.
        config: defines what is frozen.
        steps_per_epoch: optimiser steps of an epoch.

    Raises:
        ConfigError: the encoder has fewer layers than are to be frozen, or none would be
            unfrozen before the run ends.
        ModelError: the encoder's layers cannot be distinguished.
    """

    def __init__(self, model: MultiTaskModel, config: Config, steps_per_epoch: int) -> None:
        self._model = model
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        for name, parameter in model.encoder.backbone.named_parameters():
            if _POOLER.fullmatch(name):
                parameter.requires_grad_(False)
        heads = [model.head(name) for name, task in config.tasks.items() if task.frozen]
        self._still: list[nn.Module] = [head.requires_grad_(False) for head in heads]
        own = model.head_layers
        if own is not None and not any(p.requires_grad for p in own.parameters()):
            self._still.append(own)
        whole = config.unfreeze_every is None and config.freeze in ("none", "encoder")
        self._groups = _members(model.encoder, apart=not whole)
        self._total = config.epochs * steps_per_epoch
        self._set(self.depth_at(self._total - 1))
        if config.unfreeze_every is not None and self.depth == self.depth_at(0):
            raise ConfigError(
                f"`unfreeze_every` is {config.unfreeze_every}, but the run ends before that, after "
                f"{counted(self._total, 'step')} ({config.epochs}e)",
                fix="Lower it, raise `num_epochs`, or leave it out.",
            )

    def depth_at(self, step: int) -> int:
        """Return the number of groups that are frozen after `step` optimiser steps."""
        layers = self._model.encoder.shape.num_layers
        return depth_at(self._config, layers, step, self._steps_per_epoch)

    @property
    def is_whole(self) -> bool:
        """Whether the whole encoder is currently frozen."""
        return self.depth > self._model.encoder.shape.num_layers

    def go_to(self, step: int) -> None:
        """Unfreeze what is trained after `step` optimiser steps, and freeze the rest."""
        depth = self.depth_at(step)
        if depth != self.depth:
            self._set(depth)

    def _set(self, depth: int) -> None:
        self.depth = depth
        for number, group in enumerate(self._groups):
            for parameter in group.parameters:
                parameter.requires_grad_(number >= depth)
        self._model.eval()  # so that the next `train_mode` sets the modes again

    def train_mode(self) -> None:
        """Put the model into training mode, except its frozen parts."""
        if self._model.training:
            return
        self._model.train()
        for group in self._groups[: self.depth]:
            for module in group.modules:
                module.training = False
        for part in self._still:
            for module in part.modules():
                # cuDNN cannot backpropagate through a recurrent layer in evaluation mode. Those
                # here have no dropout of their own.
                module.training = isinstance(module, nn.RNNBase)

    def describe(self) -> str:
        """Report how much of the model is trained at first, and what is unfrozen later."""
        depth = self.depth_at(0)
        trained = self._trained(depth)
        total = sum(p.numel() for p in self._model.parameters())
        text = f"Training {trained:,} of {total:,} parameters ({trained / total:.1%})"
        if names := [name for name, task in self._config.tasks.items() if task.frozen]:
            text += f"; the heads of {listing(names, 20)} are frozen"
        if self._config.unfreeze_every is None:
            return f"{text}."
        every = _interval(self._config.unfreeze_every, self._steps_per_epoch)
        last = self.depth_at(self._total - 1)
        until = f"the lowest {last} never" if last else f"all from step {depth * every} on"
        return (
            f"{text}; every {counted(every, 'step')} one more of the encoder's layers, {until}: "
            f"{self._trained(last):,} parameters at the end."
        )

    def _trained(self, depth: int) -> int:
        """Count the parameters that are trained while `depth` groups are frozen."""
        frozen = {id(p) for group in self._groups[:depth] for p in group.parameters}
        parameters = self._model.parameters()
        return sum(p.numel() for p in parameters if p.requires_grad and id(p) not in frozen)


def _members(encoder: Encoder, *, apart: bool) -> list[_Group]:
    """Sort an encoder's parameters and modules into its groups.

    Args:
        encoder: the encoder.
        apart: whether each layer gets its own group; otherwise group 0 has everything.
    """
    groups = [_Group() for _ in range(1 + encoder.shape.num_layers)]
    parameters, modules = dict(encoder.named_parameters()), dict(encoder.named_modules())
    if not apart:
        groups[0].modules.extend(modules.values())
        groups[0].parameters.extend(p for p in parameters.values() if p.requires_grad)
        return groups
    for name, number in _groups(encoder, parameters).items():
        if parameters[name].requires_grad:
            groups[number].parameters.append(parameters[name])
    for name, number in _groups(encoder, modules).items():
        groups[number].modules.append(modules[name])
    return groups
