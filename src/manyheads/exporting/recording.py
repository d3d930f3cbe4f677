"""Backends that record or compare the outputs of another, batch by batch.

Axes: B sentences, W words, L labels, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manyheads.inference import Backend
from manyheads.tasks import EMBEDDING
from manyheads.text import Batch, Floats


@dataclass
class Differences:
    """How far a task's logits are from the reference's."""

    largest: float = 0.0
    total: float = 0.0
    count: int = 0

    def add(self, values: Floats) -> None:
        """Add absolute differences, of any shape."""
        if values.size:
            # A value that is no number counts as infinitely far.
            values = np.nan_to_num(values, nan=np.inf, posinf=np.inf)
            self.largest = max(self.largest, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size


class Recorder:
    """A backend that records the outputs of another, in order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.outputs: list[Mapping[str, Floats]] = []

    @property
    def name(self) -> str:
        """The other backend's name."""
        return self._backend.name

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Compute a batch; record its logits [B, L] or [B, W, L] and embeddings [B, H]."""
        outputs = self._backend.run(batch)
        self.outputs.append(outputs)
        return outputs


class Comparer(Recorder):
    """A backend whose outputs are compared with recorded ones, batch by batch."""

    def __init__(self, backend: Backend, recorded: Sequence[Mapping[str, Floats]]) -> None:
        super().__init__(backend)
        self._recorded = iter(recorded)
        self.differences: dict[str, Differences] = {}
        self.cosines: list[Floats] = []

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Compute a batch; add the differences of its logits and the cosines of its embeddings.

        Of logits [B, W, L], only those of words count.
        """
        outputs = super().run(batch)
        self.outputs.clear()
        for name, reference in next(self._recorded).items():
            if name == EMBEDDING:
                self.cosines.append(cosines_of(outputs[name], reference))
                continue
            distance = np.abs(outputs[name] - reference)
            if distance.ndim == 3:
                distance = distance[batch.word_mask]
            self.differences.setdefault(name, Differences()).add(distance)
        return outputs


def cosines_of(left: Floats, right: Floats) -> Floats:
    """Compute the cosines of two [B, H], row by row: [B]."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Floats = (left * right).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines
