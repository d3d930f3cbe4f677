"""Heads on a frozen encoder, trained any number of times on activations that are computed once.

Axes: N records, P of them that are trained on, B records of a batch, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.config import Config, TaskConfig
from manyheads.data.records import Record
from manyheads.inference import Predictor
from manyheads.inference.backends.pytorch import load_trained, predictor_of_model
from manyheads.modeling import Encoder, MultiTaskModel, choose_compute, find_encoder
from manyheads.modeling.heads import Head, head_class
from manyheads.storage import resolve_model
from manyheads.tasks import Floats, LabelSet, TaskSpec, kind_of, units_of
from manyheads.text import TextTokenizer
from manyheads.training.activation_cache import ActivationCache
from manyheads.training.data.dataset import build_dataset

Advance = Callable[[int], None]
"""Receives the number of records read since the last call."""

BATCH = 32
_POOL = 16
"""Batches whose records are sorted by length together, to reduce padding."""
_RATE = 3e-3
_DECAY = 0.01
EPOCHS = 6
"""The least number of times that a record is read."""
STEPS = 300
"""The least number of training steps; few records are read more often to reach it."""


def epochs_for(records: int, epochs: int = EPOCHS, steps: int | None = None) -> int:
    """Return the number of epochs for a number of records.

    Args:
        records: their number.
        epochs: the least number of epochs.
        steps: the least number of training steps.
    """
    steps = STEPS if steps is None else steps
    return max(epochs, -(-steps * BATCH // max(1, records)))


def train_with_decay(
    parameters: Iterable[torch.nn.Parameter], losses: Iterable[torch.Tensor], steps: int
) -> None:
    """Take a step of AdamW on each loss; the learning rate falls to 0 in a straight line.

    Args:
        parameters: those that are trained.
        losses: a scalar for each batch, computed when it is asked for.
        steps: the number of losses.
    """
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


class FrozenHeads:
    """A frozen encoder with new heads for some records, which `fit` trains from the beginning.

    Args:
        records: the records, labels by name.
        tasks: their tasks, with the options of their heads.
        label_sets: each task's labels.
        config: encoder and machine settings.
        keeps_layers: whether the vectors of words are kept of all layers (see `suspects.words`).

    Raises:
        DataError: there is no record, or a label is not known.
        ModelError: the encoder cannot be used.
    """

    def __init__(
        self,
        records: Sequence[Record],
        tasks: Mapping[str, TaskConfig],
        label_sets: Mapping[str, LabelSet],
        config: Config,
        *,
        keeps_layers: bool = False,
    ) -> None:
        torch.manual_seed(config.seed)
        encoder = _encoder(config).eval()
        self.tasks, self._label_sets, self._shape = tasks, label_sets, encoder.shape
        self.compute = choose_compute(
            config.device, config.precision, config.threads, encoder.shape.hidden_size
        )
        per_word = any(kind_of(task.kind).per_word for task in tasks.values())
        self.tokenizer = (
            TextTokenizer.from_json(encoder.tokenizer_json)
            .with_units(units_of(label_sets.values()))
            .with_word_features(per_word)
        )
        self.max_length = min(config.max_length, encoder.max_positions)
        self.data = build_dataset(
            records, "the records", tasks, label_sets, self.tokenizer, self.max_length
        )
        self.model = MultiTaskModel(encoder, self._heads()).to(self.compute.device)
        self.cache = ActivationCache(
            self.model, [self.data], encoder.shape.num_layers + 1, self.compute,
            config.cache_memory << 20, keeps_layers=keeps_layers and per_word,
        )  # fmt: skip
        partners = self.data.partners
        seconds = np.zeros(0, np.int64) if partners is None else partners
        self.rows = np.setdiff1d(np.arange(len(self.data)), seconds[seconds >= 0])
        """[N] the row of each record, or of its first text."""

    def specs(self) -> dict[str, TaskSpec]:
        """Describe the tasks for decoding."""
        return {name: self.model.head(name).spec(name) for name in self.tasks}

    def sentences(self) -> Floats:
        """Return the sentence vectors of the records, [N, E] float32."""
        starts = range(0, len(self.rows), 1024)
        parts = [self.cache.training_batch(0, self.rows[i : i + 1024]).sentence for i in starts]
        vectors: Floats = torch.cat(parts).float().cpu().numpy()
        return vectors

    def fit(
        self,
        places: NDArray[np.int64],
        epochs: int,
        generator: np.random.Generator,
        advance: Advance,
        tasks: Sequence[str] | None = None,
    ) -> None:
        """Train new heads.

        Args:
            places: [P] int64, the positions of the records to train on, P of them.
            epochs: how often each is read.
            generator: determines the heads' first weights and the order of the records.
            advance: receives the progress.
            tasks: whose heads are trained; default, all.
        """
        trained = list(self.tasks) if tasks is None else tasks
        torch.manual_seed(int(generator.integers(2**31)))
        for name in trained:
            self.model.heads[name] = self._head(name).to(self.compute.device)
        parameters = [p for name in trained for p in self.model.head(name).parameters()]

        def losses() -> Iterator[torch.Tensor]:
            for _ in range(epochs):
                for batch in self._batches(generator.permutation(places), generator):
                    yield self._loss(batch, trained)
                    advance(len(batch))

        train_with_decay(parameters, losses(), epochs * -(-len(places) // BATCH))

    def predictor(self) -> Predictor:
        """Return a predictor with the present heads; all of them share the activations of a
        text."""
        made = predictor_of_model(self.model, self.compute, self.tokenizer, self.max_length)
        made.backend = self.cache.evaluation_backend(made.backend)
        return made

    def _loss(self, batch: NDArray[np.int64], tasks: Sequence[str]) -> torch.Tensor:
        """Return the sum of the tasks' losses of some records."""
        rows = self.data.with_partners(self.rows[batch])
        forward = self.cache.read(0, rows)
        # Filling the cache leaves the model in evaluation mode.
        self.model.train()
        outputs = forward(tasks)
        width = max(1, int(self.data.words.lengths_of(rows).max(initial=0)))
        losses = [
            self.model.head(name).loss(
                outputs[name], self.data.targets[name].collate(rows, width).to(self.compute.device)
            )
            for name in tasks
        ]
        return torch.stack(losses).sum()

    def _heads(self) -> dict[str, Head]:
        return {name: self._head(name) for name in self.tasks}

    def _head(self, task: str) -> Head:
        settings = self.tasks[task]
        make = head_class(settings.kind).for_frozen_encoder
        return make(settings, self._label_sets[task], self._shape)

    def _batches(
        self, places: NDArray[np.int64], generator: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """Yield batches of records of similar length, in random order."""
        for start in range(0, len(places), BATCH * _POOL):
            pool = places[start : start + BATCH * _POOL]
            lengths = self.data.tokens.lengths_of(self.rows[pool])
            pool = pool[np.argsort(lengths, kind="stable")]
            parts = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
            for i in generator.permutation(len(parts)):
                yield parts[i]


def _encoder(config: Config) -> Encoder:
    """Return the encoder that training with this configuration starts from."""
    if config.init_from is not None:
        return load_trained(resolve_model(config.init_from)).model.encoder
    return Encoder.from_source(find_encoder(config.model_name, config.pooling))
