"""Out-of-fold probabilities: heads on the frozen encoder, for records they were not trained on.

Axes: N records, B records of a batch, W words of a record, H outputs of a head, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.tasks import Floats, kind_of
from manyheads.training.frozen_heads import BATCH, EPOCHS, STEPS, Advance, FrozenHeads, epochs_for
from manyheads.training.suspects.words import Words

Places = NDArray[np.int64]
_LEAST = np.float32(1e-9)


@dataclass(frozen=True)
class Folding:
    """How often heads are trained, and for how long."""

    folds: int = 5
    repeats: int = 2
    """The number of times that all records are split anew; the probabilities are averaged."""
    epochs: int = EPOCHS
    """The least number of times that a record is read."""
    steps: int = STEPS
    """The least number of training steps; few records are read more often to reach it."""
    seed: int = 0


class OutOfFold:
    """Trains heads by fold: small networks for the tags of words, the tasks' own heads for others.

    Args:
        heads: the encoder with its heads.
        keys: each record's key; copies have the same key, and are in one fold.
        folding: how often heads are trained.
    """

    def __init__(self, heads: FrozenHeads, keys: Sequence[str], folding: Folding) -> None:
        self._heads, self._keys, self._folding = heads, keys, folding
        tagged = [name for name in heads.tasks if kind_of(heads.tasks[name].kind).per_word]
        self._words = {name: Words(heads, name) for name in tagged}
        self._others = [name for name in heads.tasks if name not in tagged]
        share = 1 - 1 / folding.folds
        self._epochs = epochs_for(round(share * len(keys)), folding.epochs, folding.steps)
        self._word_epochs = {
            name: max(folding.epochs, -(-folding.steps // words.steps(share)))
            for name, words in self._words.items()
        }

    @property
    def passes(self) -> int:
        """The total number of records read, to show the progress."""
        epochs = [*self._word_epochs.values(), *([self._epochs] if self._others else [])]
        each = sum(number * (self._folding.folds - 1) + 1 for number in epochs)
        return len(self._keys) * self._folding.repeats * each

    def log_probabilities(self, advance: Advance) -> dict[str, list[Floats]]:
        """Return for each task the log probabilities of each record's labels.

        Args:
            advance: receives the progress (see `passes`).

        Returns:
            By task N arrays [L] or, of the tags of words, [W, L].
        """
        folding = self._folding
        total: dict[str, dict[int, Floats]] = {name: {} for name in self._heads.tasks}
        for repeat in range(folding.repeats):
            folds = fold_of(self._keys, folding.folds, folding.seed + repeat)
            for fold in range(folding.folds):
                generator = np.random.default_rng([folding.seed, repeat, fold])
                inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
                for name, place, shares in self._judged(inside, outside, generator, advance):
                    total[name][place] = total[name].get(place, np.float32(0)) + shares
        count = np.float32(folding.repeats)
        places = range(len(self._heads.rows))
        return {
            name: [np.log(np.maximum(shares[i] / count, _LEAST)) for i in places]
            for name, shares in total.items()
        }

    def _judged(
        self,
        inside: Places,
        outside: Places,
        generator: np.random.Generator,
        advance: Advance,
    ) -> Iterator[tuple[str, int, Floats]]:
        """Train on some records, and yield (task, record, probabilities) of others."""
        if self._others:
            self._heads.fit(inside, self._epochs, generator, advance, self._others)
            yield from self._predict(outside, advance)
        for name, words in self._words.items():
            network = words.fit(inside, self._word_epochs[name], generator, advance)
            for place, shares in words.predict(network, outside):
                yield name, place, shares
            advance(len(outside))

    def _predict(self, places: Places, advance: Advance) -> Iterator[tuple[str, int, Floats]]:
        """Yield (task, record, probabilities) of the tasks that are not about words."""
        model, data = self._heads.model, self._heads.data
        lengths = data.tokens.lengths_of(self._heads.rows[places])
        places = places[np.argsort(lengths, kind="stable")]
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            rows = data.with_partners(self._heads.rows[batch])
            forward = self._heads.cache.read(0, rows)
            model.eval()
            with torch.inference_mode():
                outputs = forward(self._others)
            for name in self._others:
                head = model.head(name)
                kind, logits = kind_of(head.kind), outputs[name].float().cpu().numpy()
                # Behind the records' own texts are the second ones of pairs.
                own = self._both(rows, len(batch), logits) if kind.pairs else logits[: len(batch)]
                shares = kind.probabilities(own, head.learned())
                yield from zip([name] * len(batch), batch.tolist(), shares, strict=True)
            advance(len(batch))

    def _both(self, rows: Places, count: int, outputs: Floats) -> Floats:
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
