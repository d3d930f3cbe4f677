"""The upper layers of an encoder, run alone on a hidden state below them.

The layers below can be frozen with their activations cached, or feed several tops.

Axes: B sentences, T tokens, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manyheads.errors import ModelError, counted
from manyheads.modeling.features import SUITABLE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EMBEDDINGS = "embeddings"


class UpperLayers(nn.Module):
    """An encoder of `transformers` from one of its layers up, including a final norm.

    The layers are the encoder's own modules, not copies; `copy.deepcopy` makes a copy that can be
    trained separately. Masks, position biases and rotations come from the encoder's own
    code, so the result is bit-identical to the encoder's.

    Args:
        backbone: the encoder; it may be on the device `meta`, for shapes alone.
        first: the number of the first layer that is run, from 0.

    Raises:
        ModelError: the encoder has no such layer, or its layers cannot be run alone.
    """

    def __init__(self, backbone: PreTrainedModel, first: int) -> None:
        super().__init__()
        count = int(backbone.config.num_hidden_layers)
        if not 0 <= first < count:
            raise ModelError(
                f"there is no layer {first} in an encoder of {counted(count, 'layer')}",
                expected=f"a layer from 0 to {count - 1}",
            )
        path = layers_path(backbone)
        if path is None or not isinstance(getattr(backbone, _EMBEDDINGS, None), nn.Module):
            raise _unknown(backbone)
        real = backbone.device.type != "meta"
        # Before the shell is made, so that the layers' output hooks are already in place.
        states = _states(backbone) if real else ()
        self.first = first
        shell: Any = _cut(backbone, path.split("."), first)
        setattr(shell, _EMBEDDINGS, _PassThrough())
        if getattr(shell, "pooler", None) is not None:
            shell.pooler = None
        self.shell: PreTrainedModel = shell
        if real:
            self._try(states)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor, *, all_layers: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Run the layers.

        Args:
            hidden: [B, T, H] the input of the first of them, `Encoded.layers[first]`.
            attention_mask: [B, T] int64, 0 for padding.
            all_layers: also return every hidden state.

        Returns:
            The last layer's output [B, T, H], and if requested the hidden states, each [B, T, H]:
            `hidden` and every layer's output.
        """
        output = self.shell(
            inputs_embeds=hidden, attention_mask=attention_mask, output_hidden_states=all_layers
        )
        return output.last_hidden_state, tuple(output.hidden_states) if all_layers else None

    def _try(self, states: tuple[Tensor, ...]) -> None:
        """Compare the output with the whole encoder's for the same tokens.

        Raises:
            ModelError: they differ.
        """
        try:
            with _evaluating(self), torch.inference_mode():
                last, _ = self(states[self.first], _trial_mask(last_of=states))
        except Exception as error:  # the library raises all kinds
            raise _unknown(self.shell) from error
        if not torch.allclose(last, states[-1], rtol=1e-4, atol=1e-5):
            raise _unknown(self.shell)


class _PassThrough(nn.Module):
    """Replaces the embedding layer and returns its input."""

    def forward(
        self, input_ids: None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        assert inputs_embeds is not None
        return inputs_embeds


def layers_path(backbone: PreTrainedModel) -> str | None:
    """Find the list of an encoder's layers: BERT's `encoder.layer`, ModernBERT's `layers`.

    Returns:
        its name among the modules; None if there is none, because layers share their parameters.
    """
    count = int(backbone.config.num_hidden_layers)
    modules: list[tuple[str, nn.Module]] = list(backbone.named_modules())
    # The outermost list comes first; a list inside a layer is not the list of layers.
    return next(
        (n for n, one in modules if isinstance(one, nn.ModuleList) and len(one) == count), None
    )


def _cut(module: nn.Module, path: list[str], first: int) -> nn.Module:
    """Return a copy of a module with the same children, but fewer layers in its list."""
    if not path:
        assert isinstance(module, nn.ModuleList)
        return nn.ModuleList(list(module)[first:])
    shell = copy.copy(module)
    shell.__dict__["_modules"] = dict(module._modules)
    setattr(shell, path[0], _cut(getattr(module, path[0]), path[1:], first))
    return shell


def _states(backbone: PreTrainedModel) -> tuple[Tensor, ...]:
    """Return the hidden states of a sentence of two tokens and one of padding, each [1, 3, H]."""
    ids = torch.zeros((1, 3), dtype=torch.int64, device=backbone.device)
    with _evaluating(backbone), torch.inference_mode():
        output = backbone(
            input_ids=ids, attention_mask=_trial_mask(last_of=(ids,)), output_hidden_states=True
        )
    return (*output.hidden_states[:-1], output.last_hidden_state)


def _trial_mask(*, last_of: tuple[Tensor, ...]) -> Tensor:
    return torch.tensor([[1, 1, 0]], device=last_of[-1].device)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode temporarily; every module's mode is restored."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def _unknown(backbone: nn.Module) -> ModelError:
    return ModelError(
        f"the layers of a {type(backbone).__name__} cannot be run alone",
        expected=SUITABLE,
        fix="Choose another encoder, or leave out what needs its upper layers alone.",
    )
