"""New rows of a trained head: its parameters grow by labels, whose values are fitted.

Axes: B sentences, W words, N inputs of a head's last layer, D their size, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from manyheads.errors import RequestError, counted
from manyheads.modeling import Head, MultiTaskModel
from manyheads.tasks import kind_of
from manyheads.training.data.dataset import Dataset

STEPS = 80
LEARNING_RATE = 0.02
NEW_SHARE = 0.3
"""The weight of the new examples in the loss; kept records have the rest. If a text can have
several labels, new ones do not compete with old ones, and both weigh the same."""
SHRINKAGE = 0.3
"""The weight of a multiple of the identity in the covariance of the inputs."""
FOLDS = 3
_LEAST = 1e-3
"""The least step by which a score is lowered."""
_ROWS = 64
_WORD_ROWS = 128


def grow(head: Head, old: Head) -> dict[str, Tensor]:
    """Copy a head's parameters into one for more labels, and set its other values to 0.

    Args:
        head: the head for old and new labels, old ones first; it is changed.
        old: the trained head.

    Returns:
        For each parameter with new values, a mask that is 1 at those and 0 elsewhere.
    """
    masks = {}
    before = old.state_dict()
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            block = tuple(map(slice, before[name].shape))
            if tensor.shape != before[name].shape:
                masks[name] = torch.ones_like(tensor)
                masks[name][block] = 0.0
                tensor.zero_()
            tensor[block] = before[name]
    return masks


def last_layer(head: Head, masks: Mapping[str, Tensor], kind: str) -> nn.Linear:
    """Return the layer that computes a head's logits.

    Raises:
        RequestError: there is no such layer, which is possible in a kind defined by the user.
    """
    layers = [
        module
        for name, module in head.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in masks
    ]
    if len(layers) != 1:
        raise RequestError(
            f"the heads of the kind {kind!r} have {counted(len(layers), 'layer')} whose size is "
            "the number of labels",
            expected="one linear layer that computes the logits",
        )
    return layers[0]


@dataclass(frozen=True)
class RowBatch:
    """Records, by what the last layer of a head reads of them."""

    inputs: Tensor
    """[B, D] or [B, W, D], the inputs of the head's last layer."""
    targets: Tensor
    """The targets for the head's loss."""


def batches_of(
    model: MultiTaskModel, task: str, layer: nn.Linear, data: Dataset
) -> Iterator[RowBatch]:
    """Run the frozen part of a model on records. All sentences make one batch, words several."""
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    model.eval()
    found = []
    size = _WORD_ROWS if kind_of(model.head(task).kind).per_word else _ROWS
    lengths = data.tokens.lengths_of(np.arange(len(data)))
    order = np.argsort(lengths, kind="stable")
    try:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            inputs = data.inputs(rows, model.encoder.pad_id)
            with torch.no_grad():
                model.head(task)(model.features(inputs, [task]))
            targets = data.targets[task].collate(rows, inputs.word_mask.shape[1])
            found.append(RowBatch(caught.pop(), targets))
    finally:
        hook.remove()
    if size == _WORD_ROWS:
        yield from found
    else:
        parts = zip(*((batch.inputs, batch.targets) for batch in found), strict=True)
        yield RowBatch(*(torch.cat(part) for part in parts))


def fit_within(
    head: Head,
    layer: nn.Linear,
    masks: Mapping[str, Tensor],
    new: Sequence[RowBatch],
    kept: Sequence[RowBatch],
    limit: float,
) -> None:
    """Fit a head's new values so that few right answers with old labels are lost.

    How many are lost is estimated by cross-validation on the kept records, whose fitted scores are
    lower than those of other texts. For heads with one label a sentence.

    Args:
        head: the grown head; its new values are set.
        layer: its last layer (see `last_layer`).
        masks: of its new values (see `grow`).
        new: examples of the new labels.
        kept: records with old labels, as one batch: inputs [B, D], targets int64 [B].
        limit: the right answers that may be lost, in percentage points of the kept records.
    """
    [records] = kept
    old = _old_labels(head, layer, masks)
    places = torch.arange(len(records.targets)) % FOLDS
    leads = []
    for fold in range(FOLDS):
        others = RowBatch(records.inputs[places != fold], records.targets[places != fold])
        fit(head, layer, masks, new, [others])
        with torch.no_grad():
            scores = layer(records.inputs[places == fold])
        best, found = scores[:, :old].max(dim=1)
        right = found == records.targets[places == fold]
        leads.append((scores[:, old:] - best[:, None])[right])
    fit(head, layer, masks, new, kept)
    allowed = ceil(limit / 100 * len(records.targets))
    with torch.no_grad():
        layer.bias[old:] -= _penalties(torch.cat(leads), allowed)


def _penalties(leads: Tensor, allowed: int) -> Tensor:
    """Return how much lower each new label has to score, so that few answers are lost.

    In each step, the label is lowered that keeps the most answers for each unit of its score: where
    one label resembles an old one, the others stay as they are.

    Args:
        leads: [B, L] by how much each new label leads the best old one, which is right.
        allowed: the number of answers that may be lost.
    """
    penalties = torch.zeros(leads.shape[1])
    while True:
        lead, label = (leads - penalties).max(dim=1)
        lost = lead > 0
        excess = int(lost.sum()) - allowed
        if excess <= 0:
            return penalties
        choices = []
        for one in sorted(set(label[lost].tolist())):
            needed = lead[lost & (label == one)].sort().values[:excess]
            rates = torch.arange(1, len(needed) + 1) / needed.clamp(min=_LEAST)
            place = int(rates.argmax())
            choices.append((float(rates[place]), one, float(needed[place])))
        _, one, step = max(choices)
        penalties[one] += step + _LEAST


def _old_labels(head: Head, layer: nn.Linear, masks: Mapping[str, Tensor]) -> int:
    """Return the number of labels that the head had before."""
    name = next(name for name, one in head.named_parameters() if one is layer.weight)
    return int((masks[name][:, 0] == 0).sum())


def fit(
    head: Head,
    layer: nn.Linear,
    masks: Mapping[str, Tensor],
    new: Sequence[RowBatch],
    kept: Sequence[RowBatch],
) -> None:
    """Fit a grown head's new values, whatever they were.

    The rows of the last layer are learned in coordinates in which the inputs of one label have
    equal variance in all directions. A few examples then separate the label from others by its
    mean, and not by directions in which all labels vary.

    Args:
        head: the grown head; its new values are set.
        layer: its last layer (see `last_layer`).
        masks: of its new values (see `grow`).
        new: examples of the new labels.
        kept: records with old labels.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in head.named_parameters()}
    old = _old_labels(head, layer, masks)
    whitening = _whitening(layer, old, [*new, *kept])
    rows = torch.zeros(layer.out_features - old, layer.in_features, requires_grad=True)
    others = [p for name, p in head.named_parameters() if name in masks and p is not layer.weight]
    hooks = []
    for parameter in others:
        mask = masks[names[parameter]]
        with torch.no_grad():
            parameter.masked_fill_(mask.bool(), 0.0)
        hooks.append(parameter.register_hook(lambda gradient, mask=mask: gradient * mask))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam([rows, *others], lr=LEARNING_RATE)
    trained = layer.weight.detach()[:old]

    def loss(batch: RowBatch) -> Tensor:
        weight = torch.cat([trained, rows @ whitening])
        return head.loss(nn.functional.linear(batch.inputs, weight, layer.bias), batch.targets)

    share = 0.5 if new[0].targets.is_floating_point() else NEW_SHARE
    for _, one, other in zip(range(STEPS), cycle(new), cycle(kept), strict=False):
        optimizer.zero_grad()
        torch.autograd.backward(share * loss(one) + (1 - share) * loss(other))
        optimizer.step()
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        layer.weight[old:] = rows @ whitening


def _whitening(layer: nn.Linear, old: int, batches: Sequence[RowBatch]) -> Tensor:
    """Return a matrix [D, D] by which the inputs of one label vary equally in all directions."""
    inputs, labels = [], []
    for batch in batches:
        flat = batch.inputs.flatten(0, -2)
        if batch.targets.is_floating_point():  # Several labels at once: take the most probable.
            with torch.no_grad():
                found = layer(flat)[:, :old].argmax(dim=1)
        else:
            found = batch.targets.flatten()
        inputs.append(flat[found >= 0])
        labels.append(found[found >= 0])
    vectors, groups = torch.cat(inputs), torch.cat(labels)
    counts = torch.bincount(groups, minlength=layer.out_features).clamp(min=1)
    sums = torch.zeros(layer.out_features, layer.in_features).index_add_(0, groups, vectors)
    rest = vectors - (sums / counts[:, None])[groups]
    covariance = rest.T @ rest / len(rest)
    mean = covariance.trace() / len(covariance)
    covariance = torch.lerp(covariance, mean * torch.eye(len(covariance)), SHRINKAGE)
    values, axes = torch.linalg.eigh(covariance.double())
    matrix = (axes * values.clamp(min=1e-12).rsqrt()) @ axes.T
    scaled: Tensor = matrix / matrix.trace() * len(matrix)
    return scaled.float()
