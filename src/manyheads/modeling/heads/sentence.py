"""The common part of heads for sentences: from features to vectors and scores of labels.

Axes: B sentences, T tokens, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.errors import ConfigError
from manyheads.modeling.cpu.dropout import Dropout
from manyheads.modeling.features import EncoderShape, Features
from manyheads.modeling.heads.base import IGNORE, Head, output_layer
from manyheads.modeling.heads.layer_mix import ScalarMix, TokenReader
from manyheads.modeling.pooling import pool
from manyheads.tasks import LabelSet

SENTENCE, EMBEDDING, ATTENTION, MIDDLE = "sentence", "embedding", "attention", "middle"
"""Poolings besides those of `manyheads.modeling.pooling`: the encoder's own, the same scaled to
length one, a learned one, and the mean of the middle layer's tokens, scaled to length one."""

_ENCODERS_OWN = frozenset({SENTENCE, EMBEDDING})
_UNMIXED = _ENCODERS_OWN | {MIDDLE}

_STRENGTH = 30.0
"""The inverse strength of the L2 penalty of fitted heads, per labelled sentence (the C of
scikit-learn). On normalised embeddings of banking77 and CLINC150, 10 is as good."""
FIT_STEPS = 100


class AttentionPooling(nn.Module):
    """A mean of the tokens with learned weights.

    Additive attention with one query (Yang et al., 2016, "Hierarchical attention networks").
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_size, hidden_size)
        self.query = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Map [B, T, H] and [B, T] to [B, H]; every sentence has a token."""
        scores = self.query(torch.tanh(self.project(tokens))).squeeze(2)
        weights = scores.masked_fill(attention_mask == 0, -torch.inf).softmax(dim=1)
        return torch.einsum("bt,bth->bh", weights, tokens)


class SentenceReader(nn.Module):
    """Computes the vectors that describe a sentence, concatenated.

    Args:
        encoder: the encoder's shape.
        pooling: the vectors to compute.
        mix: whether tokens are read from a mix of all layers instead of the last.
    """

    def __init__(self, encoder: EncoderShape, *, pooling: Sequence[str], mix: bool) -> None:
        super().__init__()
        self.pooling = tuple(pooling)
        self._shape = encoder
        self.reader = TokenReader(ScalarMix(encoder.num_layers + 1) if mix else None)
        self.attention = AttentionPooling(encoder.hidden_size) if ATTENTION in pooling else None
        self.size = sum(map(self._size, pooling))
        """The length of the concatenated vector."""

    @classmethod
    def from_config(cls, config: TaskConfig, encoder: EncoderShape) -> SentenceReader:
        """Make the reader that a task's configuration asks for.

        Raises:
            ConfigError: layers are to be mixed, and no pooling reads the mix.
        """
        return cls(encoder, pooling=config.pooling, mix=mixes(config))

    @property
    def reads(self) -> Literal["sentence", "tokens"]:
        """The features of a sentence that the head reads (see `Head.reads`)."""
        return "sentence" if set(self.pooling) <= _ENCODERS_OWN else "tokens"

    @property
    def reads_all_layers(self) -> bool:
        """Whether it needs `Features.layers`."""
        return self.reader.mix is not None or MIDDLE in self.pooling

    def columns(self, pooling: str) -> slice:
        """Return the position of a pooling's vector in the concatenated one."""
        sizes = [self._size(mode) for mode in self.pooling]
        place = self.pooling.index(pooling)
        return slice(sum(sizes[:place]), sum(sizes[: place + 1]))

    def _size(self, pooling: str) -> int:
        shape = self._shape
        return shape.sentence_size if pooling in _ENCODERS_OWN else shape.hidden_size

    def forward(self, features: Features) -> Tensor:
        """Return [B, `size`] float32."""
        return self.read(features)

    def read(self, features: Features) -> Tensor:
        """Return the concatenated vectors [B, `size`] float32, the input of a scorer's layers."""
        return torch.cat(self._vectors(features), dim=1)

    def _vectors(self, features: Features) -> list[Tensor]:
        """Return the vectors that describe the sentence, each [B, H] float32."""
        sentence = features.sentence.float()
        own = {SENTENCE: sentence}
        if EMBEDDING in self.pooling:
            own[EMBEDDING] = functional.normalize(sentence, dim=1)
        if self.reads == "sentence":
            return [own[mode] for mode in self.pooling]
        tokens = self.reader(features)
        if MIDDLE in self.pooling:
            if features.layers is None:
                raise ValueError("a head that reads the middle layer needs all of them")
            middle = features.layers[len(features.layers) // 2]
            own[MIDDLE] = functional.normalize(pool(middle, features.attention_mask, "mean"), dim=1)
        vectors = []
        for mode in self.pooling:
            if mode in own:
                vectors.append(own[mode])
            elif mode == ATTENTION and self.attention is not None:
                vectors.append(self.attention(tokens, features.attention_mask))
            else:
                vectors.append(pool(tokens, features.attention_mask, mode))
        return vectors


def mixes(config: TaskConfig) -> bool:
    """Return whether a head mixes the encoder's layers.

    Raises:
        ConfigError: layers are to be mixed, and no pooling reads the mix.
    """
    mix = config.reads == "mix"
    if mix and set(config.pooling) <= _UNMIXED:
        raise ConfigError(
            f"`reads: mix` with `pooling: [{', '.join(config.pooling)}]` mixes layers that nothing "
            "reads",
            expected="cls, mean, max or attention among the poolings",
            fix="Add one of them to `pooling`, or leave out `reads`.",
        )
    return mix


class SentenceScorer(SentenceReader):
    """Scores the labels of a sentence: pooled vectors, dropout, an optional hidden layer, linear.

    Args:
        encoder: the encoder's shape.
        num_labels: L.
        pooling: the vectors to concatenate.
        mix: whether tokens are read from a mix of all layers instead of the last.
        hidden: units of the hidden layer; None for none.
        dropout: share of inputs and hidden units dropped in training.
    """

    def __init__(
        self,
        encoder: EncoderShape,
        num_labels: int,
        *,
        pooling: Sequence[str],
        mix: bool,
        hidden: int | None,
        dropout: float,
    ) -> None:
        super().__init__(encoder, pooling=pooling, mix=mix)
        layers: list[nn.Module] = [Dropout(dropout)]
        if hidden is not None:
            layers += [nn.Linear(self.size, hidden), nn.GELU(), Dropout(dropout)]
        layers.append(output_layer(hidden or self.size, num_labels))
        self.layers = nn.Sequential(*layers)

    @classmethod
    def for_labels(
        cls, config: TaskConfig, num_labels: int, encoder: EncoderShape
    ) -> SentenceScorer:
        """Make the scorer that a task's configuration asks for.

        Raises:
            ConfigError: layers are to be mixed, and no pooling reads the mix.
        """
        return cls(
            encoder,
            num_labels,
            pooling=config.pooling,
            mix=mixes(config),
            hidden=config.hidden,
            dropout=config.dropout,
        )

    def forward(self, features: Features) -> Tensor:
        """Return logits [B, L] float32."""
        scores: Tensor = self.layers(self.read(features))
        return scores


class SentenceHead(Head):
    """The base of heads that score sentences.

    Args:
        labels: the labels.
        scorer: computes the logits.
    """

    def __init__(self, labels: LabelSet, scorer: SentenceScorer) -> None:
        super().__init__(labels, reads_all_layers=scorer.reads_all_layers)
        self.scorer = scorer

    @property
    def reads(self) -> Literal["sentence", "tokens"]:
        """The parts of a sentence that are read (see `Head.reads`)."""
        return self.scorer.reads

    def logits(self, features: Features) -> Tensor:
        """Return [B, L] float32."""
        scores: Tensor = self.scorer(features)
        return scores

    def fit(self, vectors: Tensor, targets: Tensor, steps: int = FIT_STEPS) -> None:
        """Fit the output layer to given vectors by regularised logistic regression.

        The problem is convex, so the result does not depend on the initial weights.

        Args:
            vectors: [B, H] float32 of all sentences, from `SentenceReader.read`.
            targets: their targets, as for `loss`.
            steps: the solver's limit.
        """
        output = self.scorer.layers[-1]
        assert isinstance(output, nn.Linear)
        labels = int((targets != IGNORE).sum())
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        solver = torch.optim.LBFGS(
            output.parameters(), max_iter=steps, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            solver.zero_grad()
            penalty = output.weight.square().sum() / (2 * _STRENGTH * max(1, labels))
            value = self.loss(output(vectors), targets) + penalty
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(objective)  # type: ignore[no-untyped-call]
        solver.zero_grad()
