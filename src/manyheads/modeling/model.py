"""The multi-task model: one encoder pass, then every requested head.

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manyheads.modeling.devices import moved
from manyheads.modeling.encoder import Encoded, Encoder
from manyheads.modeling.head_layers import HeadLayers
from manyheads.modeling.heads import Features, Head
from manyheads.tasks import EMBEDDING, kind_of
from manyheads.text import Batch


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """One padded batch."""

    input_ids: Tensor
    """[B, T] int64."""
    attention_mask: Tensor
    """[B, T] int64, 0 for padding."""
    word_starts: Tensor
    """[B, W] int64, the position of each word's first sub-token; 0 where padded."""
    word_mask: Tensor
    """[B, W] bool."""
    word_features: Tensor | None = None
    """[B, W, F] int64, the features of each word; None if no head reads them."""

    @classmethod
    def of(cls, batch: Batch) -> ModelInputs:
        """Wrap a batch of arrays without copying them."""
        arrays = (batch.input_ids, batch.attention_mask, batch.word_starts, batch.word_mask)
        ids, mask, starts, word_mask = (torch.from_numpy(array) for array in arrays)
        features = batch.word_features
        known = None if features is None else torch.from_numpy(features)
        return cls(ids, mask, starts, word_mask, known)

    def to(self, device: torch.device) -> ModelInputs:
        """Copy to a device asynchronously."""
        return ModelInputs(
            moved(self.input_ids, device),
            moved(self.attention_mask, device),
            moved(self.word_starts, device),
            moved(self.word_mask, device),
            None if self.word_features is None else moved(self.word_features, device),
        )


class MultiTaskModel(nn.Module):
    """A shared encoder and its task heads.

    Args:
        encoder: the shared encoder.
        heads: the heads by task name.
        head_layers: layers that the heads read instead of the encoder's own upper layers.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: Mapping[str, Head],
        head_layers: HeadLayers | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head_layers = head_layers
        self.heads = nn.ModuleDict(heads)

    def head(self, task: str) -> Head:
        """Return a task's head."""
        head = self.heads[task]
        assert isinstance(head, Head)
        return head

    @property
    def answering(self) -> list[str]:
        """The tasks for which a text has a result besides its embedding."""
        return [name for name in self.heads if kind_of(self.head(name).kind).answers]

    @property
    def reads_word_features(self) -> bool:
        """Whether a head reads `Features.word_features`."""
        return any(self.head(name).reads_word_features for name in self.heads)

    def features(self, inputs: ModelInputs, tasks: Iterable[str] | None = None) -> Features:
        """Run the encoder once and collect the inputs of the heads of `tasks` (default: all)."""
        names = self.answering if tasks is None else list(tasks)
        mixes = any(self.head(task).reads_all_layers for task in names)
        own = bool(names) and self.head_layers is not None
        mask = inputs.attention_mask
        encoded = self.encoder(inputs.input_ids, mask, all_layers=mixes or own)
        return self.features_of(
            encoded, mask, inputs.word_starts, inputs.word_mask, inputs.word_features, mixes=mixes
        )

    def features_of(
        self,
        encoded: Encoded,
        attention_mask: Tensor,
        word_starts: Tensor,
        word_mask: Tensor,
        word_features: Tensor | None,
        *,
        mixes: bool,
    ) -> Features:
        """Collect the inputs of the heads, from their own upper layers if they have any.

        Args:
            encoded: an encoder pass; with its hidden states where a head mixes them, and up to the
                one that the heads' own layers read.
            attention_mask, word_starts, word_mask, word_features: as in `ModelInputs`.
            mixes: whether a head mixes the hidden states.
        """
        tokens, layers, sentence = encoded.tokens, encoded.layers, encoded.sentence
        own = self.head_layers
        if own is not None and layers is not None:
            tokens, layers, sentence = own(
                layers[: own.reads + 1], attention_mask, all_layers=mixes
            )
        return Features(
            tokens=tokens,
            layers=layers,
            attention_mask=attention_mask,
            sentence=sentence,
            word_starts=word_starts,
            word_mask=word_mask,
            encoder_sentence=encoded.sentence,
            word_features=word_features,
        )

    def forward(self, inputs: ModelInputs, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Compute the outputs of some tasks (default: all `answering`) from one encoder pass.

        Returns:
            By task name the head's logits, float32: [B, L] for sentence heads, [B, W, L] for
            tagging, [B, H] sentence vectors for scored pairs; and under `embedding` the sentence
            embedding [B, H].
        """
        names = self.answering if tasks is None else list(tasks)
        return self.answers(self.features(inputs, names), names)

    def answers(self, features: Features, tasks: Iterable[str]) -> dict[str, Tensor]:
        """Compute the outputs of some tasks from an encoder pass (see `forward`)."""
        outputs: dict[str, Tensor] = {task: self.head(task)(features) for task in tasks}
        outputs[EMBEDDING] = self.encoder.embed(features.encoder_sentence)
        return outputs
