"""Out-of-fold probabilities: heads on the frozen encoder, each for the records it has not seen.

The encoder runs once for each record; the heads are trained on its cached activations.

Axes: N records, B records of a batch, W words, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.config import TaskConfig
from manyheads.modeling import Compute, Encoder, MultiTaskModel
from manyheads.modeling.heads import Head, make_head
from manyheads.tasks import Floats, LabelSet, TagSet, TaskSpec, kind_of
from manyheads.training.activation_cache import ActivationCache
from manyheads.training.data.dataset import Dataset
from manyheads.training.suspects.probe import probe

Advance = Callable[[int], None]
"""Takes the number of records that were read since the last call."""

BATCH = 32
_POOL = 16
"""Batches whose records are sorted by length together, so that little of a batch is padding."""
RATE = 3e-3
DECAY = 0.01


@dataclass(frozen=True)
class Folding:
    """How often heads are trained, and for how long."""

    folds: int = 5
    repeats: int = 1
    """Times that all records are split anew; the probabilities are averaged."""
    epochs: int = 6
    """Times that a record is read at least."""
    steps: int = 300
    """Steps of training at least, for which few records are read more often."""
    seed: int = 0

    def epochs_for(self, records: int) -> int:
        """Return how often the records of all folds but one are read."""
        seen = max(1, records * (self.folds - 1) // self.folds)
        return max(self.epochs, -(-self.steps * BATCH // seen))

    def passes(self, records: int) -> int:
        """Return how many records are read in all, for progress."""
        return records * self.repeats * (self.epochs_for(records) * (self.folds - 1) + 1)


class OutOfFold:
    """Trains heads by fold.

    Args:
        tasks: the tasks, with the options of their heads.
        label_sets: each task's labels.
        dataset: the records.
        keys: of each record, what copies of it share; they are in one fold.
        encoder: the encoder, which stays as it is.
        compute: where it runs.
        memory: bytes of activations that stay in memory.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        label_sets: Mapping[str, LabelSet],
        dataset: Dataset,
        keys: Sequence[str],
        encoder: Encoder,
        compute: Compute,
        memory: int,
    ) -> None:
        self._tasks, self._label_sets, self._data, self._keys = tasks, label_sets, dataset, keys
        self._shape, self._compute = encoder.shape, compute
        self._model = MultiTaskModel(encoder, self._heads()).to(compute.device)
        depth = encoder.shape.num_layers + 1
        self._cache = ActivationCache(self._model, [dataset], depth, compute, memory)
        seconds = np.zeros(0, np.int64) if dataset.partners is None else dataset.partners
        self._rows = np.setdiff1d(np.arange(len(dataset)), seconds[seconds >= 0])

    def specs(self) -> dict[str, TaskSpec]:
        """Describe the tasks for decoding."""
        return {name: self._model.head(name).spec(name) for name in self._tasks}

    def sentences(self) -> Floats:
        """Return the sentence vectors of the records, [N, E] float32."""
        starts = range(0, len(self._rows), 1024)
        parts = [self._cache.training_batch(0, self._rows[i : i + 1024]).sentence for i in starts]
        vectors: Floats = torch.cat(parts).float().cpu().numpy()
        return vectors

    def log_probabilities(self, folding: Folding, advance: Advance) -> dict[str, list[Floats]]:
        """Return for each task the log probabilities of each record's labels.

        Args:
            folding: how often heads are trained.
            advance: takes the progress (see `Folding.passes`).

        Returns:
            By task N arrays [L] or [W, L], as `Kind.log_probabilities` makes them.
        """
        total: dict[str, dict[int, Floats]] = {name: {} for name in self._tasks}
        for repeat in range(folding.repeats):
            folds = fold_of(self._keys, folding.folds, folding.seed + repeat)
            for fold in range(folding.folds):
                generator = np.random.default_rng([folding.seed, repeat, fold])
                torch.manual_seed(int(generator.integers(2**31)))
                epochs = folding.epochs_for(len(folds))
                self._fit(np.flatnonzero(folds != fold), epochs, generator, advance)
                for name, place, logs in self._predict(np.flatnonzero(folds == fold), advance):
                    total[name][place] = total[name].get(place, np.float32(0)) + logs
        count = np.float32(folding.repeats)
        places = range(len(self._rows))
        return {name: [logs[i] / count for i in places] for name, logs in total.items()}

    def _heads(self) -> dict[str, Head]:
        return {name: self._head(name) for name in self._tasks}

    def _head(self, task: str) -> Head:
        labels = self._label_sets[task]
        if isinstance(labels, TagSet):
            return probe(labels, self._shape)
        return make_head(self._tasks[task], labels, self._shape)

    def _fit(
        self,
        places: NDArray[np.int64],
        epochs: int,
        generator: np.random.Generator,
        advance: Advance,
    ) -> None:
        """Train new heads on some records."""
        for name, head in self._heads().items():
            self._model.heads[name] = head.to(self._compute.device)
        optimizer = torch.optim.AdamW(self._model.heads.parameters(), lr=RATE, weight_decay=DECAY)
        steps = epochs * -(-len(places) // BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for _ in range(epochs):
            for batch in self._batches(generator.permutation(places), generator):
                rows = self._data.with_partners(self._rows[batch])
                forward = self._cache.read(0, rows)
                # Filling the cache leaves the model in evaluation mode.
                self._model.train()
                outputs = forward(list(self._tasks))
                width = max(1, int(self._data.words.lengths_of(rows).max(initial=0)))
                losses = [
                    self._model.head(name).loss(
                        outputs[name],
                        self._data.targets[name].collate(rows, width).to(self._compute.device),
                    )
                    for name in self._tasks
                ]
                optimizer.zero_grad()
                torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                advance(len(batch))

    def _predict(
        self, places: NDArray[np.int64], advance: Advance
    ) -> Iterator[tuple[str, int, Floats]]:
        """Yield (task, record, log probabilities) of some records."""
        lengths = self._data.tokens.lengths_of(self._rows[places])
        places = places[np.argsort(lengths, kind="stable")]
        heads = {name: self._model.head(name) for name in self._tasks}
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            rows = self._data.with_partners(self._rows[batch])
            forward = self._cache.read(0, rows)
            self._model.eval()
            with torch.inference_mode():
                outputs = forward(list(self._tasks))
            words = self._data.words.lengths_of(rows[: len(batch)])
            for name, head in heads.items():
                kind, logits = kind_of(head.kind), outputs[name].float().cpu().numpy()
                if kind.pairs:
                    logits = self._both(rows, len(batch), logits)
                logs = kind.log_probabilities(head.spec(name), logits, words, head.learned())
                yield from zip([name] * len(batch), batch.tolist(), logs, strict=True)
            advance(len(batch))

    def _both(self, rows: NDArray[np.int64], count: int, outputs: Floats) -> Floats:
        """Return the outputs of both texts of pairs, [B, 2, H]; of a single text, both its own."""
        first = np.arange(count)
        partners = self._data.partners
        second = first.copy()
        if partners is not None:
            is_pair = partners[rows[:count]] >= 0
            second[is_pair] = count + np.arange(is_pair.sum())
        pairs: Floats = np.stack([outputs[first], outputs[second]], axis=1)
        return pairs

    def _batches(
        self, places: NDArray[np.int64], generator: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """Yield batches of records of similar length, in random order."""
        for start in range(0, len(places), BATCH * _POOL):
            pool = places[start : start + BATCH * _POOL]
            lengths = self._data.tokens.lengths_of(self._rows[pool])
            pool = pool[np.argsort(lengths, kind="stable")]
            parts = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
            for i in generator.permutation(len(parts)):
                yield parts[i]


def fold_of(keys: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each record: about as many in each, and copies of a text together.

    It depends on the texts and the seed, and not on the order of the records.
    """

    def order(key: str) -> bytes:
        return hashlib.sha256(f"{seed}\n{key}".encode(errors="surrogatepass")).digest()

    place = {key: i % folds for i, key in enumerate(sorted(set(keys), key=order))}
    return np.array([place[key] for key in keys], np.int64)
