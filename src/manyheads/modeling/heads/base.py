"""The base class of all heads, and shared functions.

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manyheads.config import TaskConfig
from manyheads.errors import ConfigError
from manyheads.modeling.features import EncoderShape, Features
from manyheads.tasks import LabelSet, TaskSpec, decode, kind_of
from manyheads.tasks.kinds import UNLABELLED, Shape

IGNORE = UNLABELLED
"""The target of padding and of sentences or words without a label; it is ignored."""


class Head(nn.Module, ABC):
    """The part of a model for one task: from features to logits, loss and labels.

    A kind of task names its head's class (`manyheads.tasks.Kind.head`).

    Args:
        labels: the task's labels, in the order of the logits.
        reads_all_layers: whether it needs `Features.layers`.
    """

    kind: ClassVar[str]
    """The name of the kind of task."""

    def __init__(self, labels: LabelSet, *, reads_all_layers: bool) -> None:
        super().__init__()
        self.labels = labels
        self.reads_all_layers = reads_all_layers

    @property
    def reads(self) -> Literal["sentence", "words", "tokens"]:
        """The parts of a sentence it reads: its vector, its words' first tokens, or all tokens."""
        return "tokens"

    @property
    def reads_word_features(self) -> bool:
        """Whether it needs `Features.word_features`."""
        return False

    @classmethod
    @abstractmethod
    def from_config(cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape) -> Head:
        """Make a new head with random weights from torch's generator.

        Raises:
            ConfigError: the settings do not fit together.
        """

    @classmethod
    def for_frozen_encoder(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> Head:
        """Make a head that shows what a frozen encoder knows of the labels.

        It is trained many times, for learning curves and suspect labels. Default: the task's own.
        """
        return cls.from_config(config, labels, encoder)

    @abstractmethod
    def logits(self, features: Features) -> Tensor:
        """Compute float32 logits: [B, L] of sentences or [B, W, L] of words."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss over the labels.

        Args:
            logits: as `logits` returned them: [B, L] or [B, W, L] float32.
            targets: as `Kind.collate` made them, int64 or float32: [B]; [B, L] of several labels;
                [B, W] of words; [B, 2] of pairs. `UNLABELLED` where there is no label.

        Returns:
            A float32 scalar; zero, with zero gradients, if there is no label.
        """

    def soft_loss(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Compute the mean distance from a teacher's answers, where they are known.

        Args:
            logits: as `forward` returned them.
            targets: float32, NaN where nothing is known: [B, S] or [B, W, S] (see `Kind.adopted`);
                of a kind of pairs, [R, S + 1] with the row of the second text last.
            temperature: divides the logarithms of the probabilities before they are compared; the
                loss is multiplied by its square (Hinton et al., 2015).

        Returns:
            A float32 scalar; zero, with zero gradients, where nothing is known.
        """
        raise ConfigError(
            f"`teacher`: heads of kind {self.kind} learn from labels alone",
            fix="Leave `teacher` out, or write the head's `soft_loss`.",
        )

    def spec(self, name: str) -> TaskSpec:
        """Return the task's description for decoding, under a name."""
        return TaskSpec(name, self.kind, self.labels.names)

    def learned(self) -> Any:
        """Return the parameters that decoding needs, such as a CRF's transitions, or None."""
        state = self.state_dict()

        def read(name: str, shape: Shape) -> NDArray[np.float32]:
            values: NDArray[np.float32] = state[name].float().cpu().numpy().copy()
            return values

        return kind_of(self.kind).learned(self.spec(self.kind), read)

    def forward(self, features: Features) -> Tensor:
        """Compute the logits in float32, regardless of the encoder's precision.

        Heads are too small to gain from lower precision, which harms logits, softmax and CRF.
        """
        device = features.tokens.device.type
        if not torch.is_autocast_enabled(device):
            return self.logits(features)
        with torch.autocast(device, enabled=False):
            return self.logits(features)

    def decode(self, logits: Tensor, word_mask: Tensor | None = None) -> Any:
        """Turn logits into labels and their probabilities (see `manyheads.tasks.decode`).

        Args:
            logits: as `forward` returned them.
            word_mask: [B, W] bool, for a head that tags words.
        """
        lengths = None if word_mask is None else word_mask.sum(dim=1).cpu().numpy()
        values = logits.detach().float().cpu().numpy()
        return decode(self.spec(self.kind), values, lengths, self.learned())


def divergence(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Compute the mean Kullback-Leibler divergence from the targets to the softmax of the logits.

    Args:
        logits: [..., L].
        targets: [..., L] probabilities; NaN in rows that are ignored.
        temperature: see `Head.soft_loss`.
    """
    known = ~targets[..., 0].isnan()
    tiny = torch.finfo(torch.float32).tiny
    wanted = targets[known].clamp(min=tiny).log().div(temperature).log_softmax(dim=-1)
    found = logits[known].float().div(temperature).log_softmax(dim=-1)
    total = (wanted.exp() * (wanted - found)).sum()
    return total * temperature**2 / known.sum().clamp(min=1)


def pairs_of(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Select the labelled pairs of a batch.

    Args:
        outputs: [R, H] of a batch's texts.
        targets: [R, 2] the label of each pair and the row of its second text, at the row of the
            first one; -100 elsewhere.

    Returns:
        the outputs of first and second texts, [P, H] each, and the labels [P].
    """
    labelled = targets[:, 0] != IGNORE
    labels, rows = targets[labelled].unbind(dim=1)
    return outputs[labelled], outputs.index_select(0, rows.long()), labels


def take_rows(vectors: Tensor, rows: Tensor) -> Tensor:
    """Select some of each sentence's vectors: [B, T, H] and int64 [B, W] -> [B, W, H].

    A single selection of whole rows is several times faster than gathering single numbers, both in
    torch and in onnxruntime.
    """
    batch, tokens, hidden = vectors.shape
    offsets = torch.arange(batch, device=rows.device).unsqueeze(1) * tokens
    flat = vectors.reshape(-1, hidden).index_select(0, (rows + offsets).flatten())
    return flat.view(batch, -1, hidden)


def output_layer(size: int, num_labels: int) -> nn.Linear:
    """Make a classifier whose initial predictions are close to uniform."""
    linear = nn.Linear(size, num_labels)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
