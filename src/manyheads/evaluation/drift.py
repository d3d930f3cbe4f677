"""Drift of a model's sentence embedding from the original encoder's.

Users need it before they mix stored vectors of the original encoder with the model's. Both embed
the same sentences. The cosine shows whether old and new vectors are comparable, the correlation of
similarities whether the new ones rank sentences as the old ones do.

The original's vectors are computed by sentence-transformers, which also made the stored ones.

Axes: N sentences, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manyheads.config import Config
from manyheads.data.records import Record
from manyheads.errors import ManyheadsError
from manyheads.inference import Predictor, embed_texts
from manyheads.sampling import spread
from manyheads.tasks.metrics import DriftMetrics, drift_metrics

REFERENCE = "original_embeddings"
"""The name of the run's reference in a checkpoint."""

MAX_SENTENCES = 300
"""The most sentences on which drift is measured: about 45,000 pairs, one second of work."""


@dataclass(frozen=True)
class Reference:
    """Sentences and the original encoder's embeddings of them."""

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]
    """[N, E]."""

    @classmethod
    def of(
        cls, embed: Callable[[Sequence[str]], NDArray[np.float32]], records: Iterable[Record]
    ) -> Reference:
        """Embed some sentences of records with the original encoder."""
        texts = sample_texts(records)
        return cls(tuple(texts), embed(texts))

    def drift(self, predictor: Predictor) -> DriftMetrics:
        """Compare a model's embeddings with the original's, except those of texts without words."""
        vectors = embed_texts(predictor, self.texts)
        known = vectors.any(axis=1)
        return drift_metrics(self.vectors[known], vectors[known])


def sample_texts(records: Iterable[Record]) -> list[str]:
    """Return the distinct texts of records, at most `MAX_SENTENCES`, spread evenly."""
    texts = list(dict.fromkeys(text for record in records for text in record.texts))
    return spread(texts, MAX_SENTENCES)


def measure_drift(
    predictor: Predictor, config: Config, records: Iterable[Record], threads: int | None = None
) -> DriftMetrics | str:
    """Compare a model with the encoder that its configuration names, if that can be loaded.

    Args:
        predictor: the model, on any backend.
        config: the configuration it was trained with.
        records: the records whose texts are embedded (see `sample_texts`).
        threads: processor threads; default, all cores.

    Returns:
        The drift, or the reason why it is unknown.
    """
    try:
        # Imported here: the rest of an evaluation runs without torch if the model was exported.
        from manyheads.inference.backends.pytorch import source_embedder
    except ImportError as error:
        return f"the original encoder cannot be run without PyTorch and transformers ({error})"
    try:
        original = source_embedder(config, threads)
    except ManyheadsError as error:
        return f"the original encoder cannot be loaded: {error}"
    return Reference.of(original, records).drift(predictor)
