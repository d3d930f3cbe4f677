"""Out-of-fold probabilities: heads on the frozen encoder, for records they were not trained on.

Axes: N records, B records of a batch, W words, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.tasks import Floats, kind_of
from manyheads.training.frozen_heads import BATCH, Advance, FrozenHeads, epochs_for


@dataclass(frozen=True)
class Folding:
    """How often heads are trained, and for how long."""

    folds: int = 5
    repeats: int = 1
    """The number of times that all records are split anew; the probabilities are averaged."""
    epochs: int = 6
    """The least number of times that a record is read."""
    steps: int = 300
    """The least number of training steps; few records are read more often to reach it."""
    seed: int = 0

    def epochs_for(self, records: int) -> int:
        """Return the number of epochs of a head, which is trained on all folds but one."""
        return epochs_for(records * (self.folds - 1) // self.folds, self.epochs, self.steps)

    def passes(self, records: int) -> int:
        """Return the total number of records read, to show the progress."""
        return records * self.repeats * (self.epochs_for(records) * (self.folds - 1) + 1)


class OutOfFold:
    """Trains heads by fold.

    Args:
        heads: the encoder with its heads.
        keys: each record's key; copies have the same key, and are in one fold.
    """

    def __init__(self, heads: FrozenHeads, keys: Sequence[str]) -> None:
        self._heads, self._keys = heads, keys

    def log_probabilities(self, folding: Folding, advance: Advance) -> dict[str, list[Floats]]:
        """Return for each task the log probabilities of each record's labels.

        Args:
            folding: how often heads are trained.
            advance: receives the progress (see `Folding.passes`).

        Returns:
            By task N arrays [L] or [W, L], as `Kind.log_probabilities` makes them.
        """
        total: dict[str, dict[int, Floats]] = {name: {} for name in self._heads.tasks}
        for repeat in range(folding.repeats):
            folds = fold_of(self._keys, folding.folds, folding.seed + repeat)
            for fold in range(folding.folds):
                generator = np.random.default_rng([folding.seed, repeat, fold])
                epochs = folding.epochs_for(len(folds))
                self._heads.fit(np.flatnonzero(folds != fold), epochs, generator, advance)
                for name, place, logs in self._predict(np.flatnonzero(folds == fold), advance):
                    total[name][place] = total[name].get(place, np.float32(0)) + logs
        count = np.float32(folding.repeats)
        places = range(len(self._heads.rows))
        return {name: [logs[i] / count for i in places] for name, logs in total.items()}

    def _predict(
        self, places: NDArray[np.int64], advance: Advance
    ) -> Iterator[tuple[str, int, Floats]]:
        """Yield (task, record, log probabilities) of some records."""
        model, data = self._heads.model, self._heads.data
        lengths = data.tokens.lengths_of(self._heads.rows[places])
        places = places[np.argsort(lengths, kind="stable")]
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            rows = data.with_partners(self._heads.rows[batch])
            forward = self._heads.cache.read(0, rows)
            model.eval()
            with torch.inference_mode():
                outputs = forward(list(self._heads.tasks))
            words = data.words.lengths_of(rows[: len(batch)])
            for name in self._heads.tasks:
                head = model.head(name)
                kind, logits = kind_of(head.kind), outputs[name].float().cpu().numpy()
                if kind.pairs:
                    logits = self._both(rows, len(batch), logits)
                logs = kind.log_probabilities(head.spec(name), logits, words, head.learned())
                yield from zip([name] * len(batch), batch.tolist(), logs, strict=True)
            advance(len(batch))

    def _both(self, rows: NDArray[np.int64], count: int, outputs: Floats) -> Floats:
        """Return the outputs of both texts of pairs, [B, 2, H]; twice its own for a single text."""
        first = np.arange(count)
        partners = self._heads.data.partners
        second = first.copy()
        if partners is not None:
            is_pair = partners[rows[:count]] >= 0
            second[is_pair] = count + np.arange(is_pair.sum())
        pairs: Floats = np.stack([outputs[first], outputs[second]], axis=1)
        return pairs


def fold_of(keys: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each record: folds of similar size, with copies of a text in one.

    It depends on the texts and the seed, and not on the order of the records.
    """

    def order(key: str) -> bytes:
        return hashlib.sha256(f"{seed}\n{key}".encode(errors="surrogatepass")).digest()

    place = {key: i % folds for i, key in enumerate(sorted(set(keys), key=order))}
    return np.array([place[key] for key in keys], np.int64)
