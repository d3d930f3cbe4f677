"""The outputs of one encoder pass, as the heads read them.

Axes: B sentences, T tokens, W words, H hidden."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SUITABLE = "an encoder such as BERT, DistilBERT, RoBERTa, MPNet or ModernBERT"
"""What an error expects of an encoder."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The sizes of the encoder that a head is built for."""

    hidden_size: int
    num_layers: int
    """The number of transformer layers; hidden states are one more, the embedding layer's first."""
    own_sentence_size: int | None = None
    """The length of a sentence vector, if it differs from that of a token vector."""

    @property
    def sentence_size(self) -> int:
        """The length of a sentence vector."""
        return self.hidden_size if self.own_sentence_size is None else self.own_sentence_size


@dataclass(frozen=True, slots=True)
class Features:
    """The outputs of one encoder pass."""

    tokens: Tensor
    """[B, T, H] the last layer, in the encoder's own precision."""
    layers: tuple[Tensor, ...] | None
    """Each [B, T, H]: all hidden states, the embedding layer's first; None if no head mixes."""
    attention_mask: Tensor
    """[B, T] 1 for tokens, 0 for padding."""
    sentence: Tensor
    """[B, H] the sentence vector that goes with `tokens`, not normalised."""
    word_starts: Tensor
    """[B, W] int64, each word's first token; 0 where padded."""
    word_mask: Tensor
    """[B, W] bool, true for a sentence's first words, false for padding."""
    encoder_sentence: Tensor
    """[B, H] the encoder's own sentence vector, from which the embedding is made. It equals
    `sentence` unless the heads have layers of their own."""
    word_features: Tensor | None = None
    """[B, W, F] int64 the features of each word (see `text.word_features`); None if no head reads
    them."""
