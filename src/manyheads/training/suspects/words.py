"""Out-of-fold probabilities of tags: small networks on the frozen vectors of single words.

The encoder has seen the sentence, so a word's vector has its context, and batches of words need
neither padding nor sentences.

Axes: N records, B sentences or words of a batch, W words, F columns of features, H hidden, L tags.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from manyheads.modeling.cpu.dropout import Dropout
from manyheads.modeling.heads.base import take_rows
from manyheads.modeling.heads.probe import DROPOUT, UNITS, joined, probed_layers
from manyheads.tasks import Floats
from manyheads.text import WORD_FEATURE_ROWS
from manyheads.training.frozen_heads import Advance, FrozenHeads, train_with_decay

BATCH = 512
_FEATURES = 32
_ROWS = 256
_READ = 8192


class WordNetwork(nn.Module):
    """Tags a word by its vectors and the shape of it and its neighbours.

    An encoder that lower-cases does not show the shape.

    Args:
        size: of the vectors.
        tags: L.
    """

    def __init__(self, size: int, tags: int) -> None:
        super().__init__()
        self.table = nn.Embedding(WORD_FEATURE_ROWS, _FEATURES)
        nn.init.normal_(self.table.weight, std=0.1)
        self.context = nn.Linear(3 * _FEATURES, _FEATURES)
        self.hidden = nn.Linear(size + _FEATURES, UNITS)
        self.output = nn.Linear(UNITS, tags)
        self.dropout = Dropout(DROPOUT)

    def forward(self, vectors: Tensor, features: Tensor) -> Tensor:
        """Return logits [B, L].

        Args:
            vectors: [B, H].
            features: [B, 3, F] of the word before, the word and the word after; 0 for none.
        """
        shapes = self.table(features).sum(dim=2) * (features[:, :, :1] > 0)
        context = torch.relu(self.context(shapes.flatten(1)))
        inputs = torch.cat([vectors, (shapes[:, 1] + context).to(vectors.dtype)], dim=1)
        units = functional.gelu(self.hidden(self.dropout(inputs)))
        logits: Tensor = self.output(self.dropout(units))
        return logits


class Words:
    """The words of all records, one after the other, as a network reads them.

    Args:
        heads: the frozen encoder with the records.
        task: the task whose tags are learned.
    """

    def __init__(self, heads: FrozenHeads, task: str) -> None:
        self._compute, self._tags = heads.compute, len(heads.specs()[task].labels)
        layers = probed_layers(heads.model.encoder.shape)
        vectors, features, targets, counts = [], [], [], []
        for start in range(0, len(heads.rows), _ROWS):
            rows = heads.rows[start : start + _ROWS]
            batch = heads.cache.training_batch(0, rows)
            mask = batch.word_mask
            states = [take_rows(batch.states[n], batch.word_starts)[mask] for n in layers]
            vectors.append(joined(states).to(torch.bfloat16))
            features.append(_with_neighbours(batch.word_features, mask))
            targets.append(heads.data.targets[task].collate(rows, mask.shape[1])[mask.cpu()])
            counts.append(mask.sum(dim=1).cpu())
        self._vectors, self._features = torch.cat(vectors), torch.cat(features)
        self._targets = torch.cat(targets).to(self._compute.device)
        self._counts: NDArray[np.int64] = torch.cat(counts).numpy()
        self._record = np.repeat(np.arange(len(self._counts)), self._counts)

    def steps(self, records: float = 1.0) -> int:
        """Return the number of steps of an epoch with a share of the records."""
        return max(1, round(records * len(self._record) / BATCH))

    def fit(
        self,
        places: NDArray[np.int64],
        epochs: int,
        generator: np.random.Generator,
        advance: Advance,
    ) -> WordNetwork:
        """Train a network on some records (see `FrozenHeads.fit`)."""
        torch.manual_seed(int(generator.integers(2**31)))
        network = WordNetwork(self._vectors.shape[1], self._tags).to(self._compute.device)
        words = np.flatnonzero(np.isin(self._record, places))
        words = words[(self._targets[torch.from_numpy(words)] >= 0).cpu().numpy()]

        def losses() -> Iterator[Tensor]:
            for _ in range(epochs):
                order = torch.from_numpy(generator.permutation(words))
                for start in range(0, len(order), BATCH):
                    batch = order[start : start + BATCH]
                    logits = self._logits(network, batch)
                    yield functional.cross_entropy(logits, self._targets[batch])
                advance(len(places))

        # Labels in few texts may all be in the fold that is left out.
        steps = max(1, epochs * -(-len(words) // BATCH))
        train_with_decay(network.parameters(), losses(), steps)
        return network.eval()

    def predict(
        self, network: WordNetwork, places: NDArray[np.int64]
    ) -> Iterator[tuple[int, Floats]]:
        """Yield (record, probabilities [W, L] of its words' tags) of some records."""
        places = np.sort(places)
        words = torch.from_numpy(np.flatnonzero(np.isin(self._record, places)))
        with torch.inference_mode():
            parts = [
                self._logits(network, words[start : start + _READ]).softmax(dim=1)
                for start in range(0, len(words), _READ)
            ]
        shares = torch.cat(parts).cpu().numpy()
        ends = np.cumsum(self._counts[places])
        yield from zip(places.tolist(), np.split(shares, ends[:-1]), strict=True)

    def _logits(self, network: WordNetwork, words: Tensor) -> Tensor:
        vectors = self._vectors[words]
        with self._compute.autocast():
            if not torch.is_autocast_enabled(vectors.device.type):
                vectors = vectors.float()
            logits: Tensor = network(vectors, self._features[words])
        return logits.float()


def _with_neighbours(features: Tensor | None, mask: Tensor) -> Tensor:
    """Return [W, 3, F] the features of the words before, of the words and after, of [B, W, F]."""
    assert features is not None
    features = features * mask[:, :, None]
    none = torch.zeros_like(features[:, :1])
    before = torch.cat([none, features[:, :-1]], dim=1)
    after = torch.cat([features[:, 1:], none], dim=1)
    return torch.stack([before, features, after], dim=2)[mask]
