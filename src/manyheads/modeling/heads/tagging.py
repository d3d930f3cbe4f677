"""Tagging: a tag for every word, for entities, slots or parts of speech.

Axes: B sentences, W words, H hidden, L labels.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, final

from torch import Tensor
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.modeling.cpu.dropout import Dropout
from manyheads.modeling.features import EncoderShape, Features
from manyheads.modeling.heads.base import IGNORE, Head, divergence, output_layer, take_rows
from manyheads.modeling.heads.crf import CRF
from manyheads.modeling.heads.layer_mix import ScalarMix, TokenReader
from manyheads.modeling.heads.necks import Neck, make_neck
from manyheads.modeling.heads.probe import DROPOUT, HiddenLayer, ProbedLayers
from manyheads.modeling.heads.word_features import SIZE, WordFeatures
from manyheads.tasks import LabelSet, TagSet, TaskSpec
from manyheads.tasks.spec import Decoder
from manyheads.text import WORD_FEATURES_VERSION, Units


@final
class TaggingHead(Head):
    """Tags words, each read through its first token.

    Args:
        tags: the tag set.
        reader: the token vectors to read.
        neck: a network between them and the classifier, or None.
        hidden_size: the size of the words' vectors that neck or classifier read.
        crf: learns sequences of tags; None decides word by word.
        dropout: share of the classifier's inputs, and of the neck's, dropped in training.
        word_features: appends features of the words' characters to their vectors, or None.
    """

    kind: ClassVar[str] = "tagging"

    def __init__(
        self,
        tags: TagSet,
        reader: TokenReader | ProbedLayers,
        neck: Neck | HiddenLayer | None,
        *,
        hidden_size: int,
        crf: CRF | None,
        dropout: float,
        word_features: WordFeatures | None = None,
    ) -> None:
        super().__init__(tags, reads_all_layers=reader.mix is not None)
        self.tags = tags
        self.reader = reader
        self.word_features = word_features
        self.neck = neck
        self.dropout = Dropout(dropout)
        self.classifier = output_layer(neck.output_size if neck else hidden_size, len(tags))
        self.crf = crf

    @property
    def reads(self) -> Literal["words"]:
        """The parts of a sentence that are read (see `Head.reads`)."""
        return "words"

    @property
    def reads_word_features(self) -> bool:
        """Whether it needs `Features.word_features`."""
        return self.word_features is not None

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> TaggingHead:
        """Make a new head (see `Head.from_config`)."""
        word_features = WordFeatures(config.dropout) if config.word_features == "on" else None
        size = encoder.hidden_size + (SIZE if word_features else 0)
        tags = _tags(labels)
        return cls(
            tags,
            TokenReader(ScalarMix(encoder.num_layers + 1) if config.reads == "mix" else None),
            make_neck(config, size),
            hidden_size=size,
            crf=CRF(tags) if config.decoder == "crf" else None,
            dropout=config.dropout,
            word_features=word_features,
        )

    @classmethod
    def for_frozen_encoder(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> TaggingHead:
        """Make a small network on two of the encoder's layers (see `Head.for_frozen_encoder`)."""
        reader = ProbedLayers(encoder)
        size = reader.output_size
        # Not `cls`: the head of a derived kind may take other arguments.
        head = TaggingHead(
            _tags(labels), reader, HiddenLayer(size), hidden_size=size, crf=None, dropout=DROPOUT
        )
        head.kind = cls.kind  # type: ignore[misc]
        return head

    def logits(self, features: Features) -> Tensor:
        """Return the emissions [B, W, L] float32; those of padding are arbitrary."""
        words = take_rows(self.reader(features), features.word_starts)
        if self.word_features is not None:
            words = self.word_features(words, features.word_mask, features.word_features)
        words = self.dropout(words)
        if self.neck is not None:
            words = self.dropout(self.neck(words, features.word_mask))
        emissions: Tensor = self.classifier(words)
        return emissions

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss per labelled word.

        Cross-entropy; with a CRF the negative log-likelihood of whole sentences, divided by the
        number of words so that tasks stay comparable.

        Args:
            logits: [B, W, L].
            targets: [B, W] int64, -100 for padding and for all words of a sentence without labels,
                `UNKNOWN` for a word without a label in another sentence. With a CRF, words come
                before padding and make an allowed sequence.
        """
        labelled = targets >= 0
        if self.crf is None:
            total = functional.cross_entropy(
                logits.float().flatten(0, 1),
                targets.flatten().clamp(min=IGNORE),
                ignore_index=IGNORE,
                reduction="sum",
            )
        else:
            total = -self.crf.log_likelihood(logits, targets, targets != IGNORE).sum()
        return total / labelled.sum().clamp(min=1)

    def soft_loss(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Compute the mean divergence from each word's distribution over the tags.

        With a CRF, the tags of the teacher's words are treated as independent, and the temperature
        is ignored.

        Args:
            logits: [B, W, L].
            targets: [B, W, L]; NaN for padding, and for all words of a sentence without targets.
            temperature: see `Head.soft_loss`.
        """
        if self.crf is None:
            return divergence(logits, targets, temperature)
        known = ~targets[..., 0].isnan()
        total = self.crf.divergence(logits, targets.nan_to_num(), known).sum()
        return total / known.sum().clamp(min=1)

    def spec(self, name: str) -> TaskSpec:
        """Describe the task for decoding."""
        tags = self.tags
        details: dict[str, Any] = {}
        if tags.units is not Units.WORDS:
            details["units"] = tags.units.value
        if tags.stages:
            details["stages"] = list(tags.stages)
        if self.reads_word_features:
            details["word_features"] = WORD_FEATURES_VERSION
        decoder: Decoder = "linear" if self.crf is None else "crf"
        return TaskSpec(name, self.kind, tags.names, tags.scheme, decoder, details=details)


def _tags(labels: LabelSet) -> TagSet:
    if not isinstance(labels, TagSet):
        raise TypeError(f"a tagging head needs a TagSet, not a {type(labels).__name__}")
    return labels
