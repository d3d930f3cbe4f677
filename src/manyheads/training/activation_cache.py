"""Activation cache: the frozen part of an encoder runs once for each sentence.

A training sentence runs through the frozen part when it is first drawn; later steps cost only the
trained part. The cache holds just what the trained part reads: the hidden state below the
lowest tuned layer, or, if no layer is tuned, what the heads read (the sentence vector, the vectors
of all tokens or of each word's first token, of the last layer or of all layers).

Floating-point results depend slightly on the batch they are computed in. So the sentences are
computed in fixed batches, whichever batch requests them, and a resumed run, which fills the cache
anew, gets the same bits.

Axes: B sentences, T tokens, P cached tokens (all, or the first of each word), W words, H hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyheads.config import BATCH_TOKENS, Config
from manyheads.errors import ModelError
from manyheads.inference.backends.base import Backend
from manyheads.modeling import Compute, ModelInputs, MultiTaskModel, UpperLayers, moved
from manyheads.modeling.encoder import Encoded
from manyheads.modeling.heads import Features
from manyheads.modeling.heads.base import take_rows
from manyheads.text import Batch, Floats, plan_batches
from manyheads.training.batch_reader import BatchReader, Forward, FullReader
from manyheads.training.data.batching import Rows
from manyheads.training.data.dataset import Dataset
from manyheads.training.data.ragged import Ragged, zeros
from manyheads.training.data.training_data import TrainingData

_MAX_SENTENCES = 256


@dataclass(frozen=True, slots=True)
class CachedBatch:
    """The cached activations of some sentences, padded."""

    states: Mapping[int, Tensor]
    """Hidden states [B, P, H] by layer, in the encoder's own precision."""
    sentence: Tensor
    """[B, H] float32; [B, 0] if not cached."""
    attention_mask: Tensor
    """[B, P] int64, 0 for padding."""
    word_starts: Tensor
    """[B, W] int64, each word's position among the P tokens; 0 for padding."""
    word_mask: Tensor
    """[B, W] bool."""
    word_features: Tensor | None = None
    """[B, W, F] int64 (see `ModelInputs`); never cached."""

    def to(self, device: torch.device) -> CachedBatch:
        """Copy to a device, asynchronously where it can."""
        return CachedBatch(
            {number: moved(state, device) for number, state in self.states.items()},
            moved(self.sentence, device),
            moved(self.attention_mask, device),
            moved(self.word_starts, device),
            moved(self.word_mask, device),
            None if self.word_features is None else moved(self.word_features, device),
        )


@dataclass(frozen=True, slots=True)
class _Reads:
    """Which outputs of the frozen part the trained part reads."""

    states: tuple[int, ...]
    """The layers of the hidden states; 0 is the embedding layer's output."""
    mixes: bool
    """Whether a head mixes all hidden states, instead of reading the last of these alone."""
    words: bool
    """Whether only the first token of each word is read."""
    sentence: bool
    """Whether the sentence vector is read."""

    @classmethod
    def by(cls, model: MultiTaskModel, depth: int, keeps_layers: bool) -> _Reads:
        """Determine what is read above a frozen depth (see `freezing.frozen_depth`).

        Args:
            model: the model.
            depth: how much of the encoder is frozen.
            keeps_layers: see `ActivationCache`.
        """
        last = model.encoder.shape.num_layers
        heads = [model.head(task) for task in model.heads]
        mixes = any(head.reads_all_layers for head in heads)
        own = model.head_layers
        if depth <= last:
            every = mixes or own is not None
            return cls(tuple(range(depth)) if every else (depth - 1,), mixes, False, False)
        if own is not None:
            states = tuple(range(own.reads + 1)) if mixes else (own.reads,)
            return cls(states, mixes, False, True)
        reads = {head.reads for head in heads}
        if mixes or keeps_layers:
            states = tuple(range(last + 1))
        else:
            states = (last,) if reads - {"sentence"} else ()
        return cls(states, mixes, "tokens" not in reads, True)


class _Memory:
    """The memory for activations; beyond its size, arrays are mapped from disk.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of zeros to write to.

        Raises:
            StorageError: neither memory nor disk has space for it.
        """
        size = int(np.prod(shape)) * dtype.itemsize
        if not size:
            return torch.zeros(shape, dtype=dtype)
        array = zeros(size, np.uint8, self._left)
        if size <= self._left:
            self._left -= size
        return torch.from_numpy(array).view(dtype).view(shape)


class _FrozenPart:
    """The frozen part of a model, run without gradients and dropout.

    Args:
        model: the model.
        reads: which outputs are read.
        compute: where and how the encoder runs.
    """

    def __init__(self, model: MultiTaskModel, reads: _Reads, compute: Compute) -> None:
        self._model, self._reads, self._compute = model, reads, compute

    def __call__(self, inputs: ModelInputs) -> CachedBatch:
        """Compute the outputs that are read, on the CPU; leaves the model in evaluation mode."""
        reads, encoder = self._reads, self._model.encoder
        inputs = inputs.to(self._compute.device)
        self._model.eval()
        last = encoder.shape.num_layers
        with torch.no_grad(), self._compute.autocast():
            encoded = encoder(
                inputs.input_ids,
                inputs.attention_mask,
                all_layers=reads.states not in ((), (last,)),
            )
        states = {n: encoded.layers[n] if encoded.layers else encoded.tokens for n in reads.states}
        mask, word_starts = inputs.attention_mask, inputs.word_starts
        if reads.words:
            states = {n: take_rows(state, word_starts) for n, state in states.items()}
            mask = inputs.word_mask.long()
            word_starts = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        sentence = encoded.sentence if reads.sentence else encoded.sentence[:, :0]
        cached = CachedBatch(states, sentence, mask, word_starts, inputs.word_mask)
        return cached.to(torch.device("cpu"))


class _Sentences:
    """The cached activations of a data set, in flat arrays that are filled on demand.

    Args:
        dataset: the sentences.
        frozen: computes the activations.
        pad_id: the token id of padding.
        words: whether vectors are cached by word instead of by token.
        memory: holds the arrays.
    """

    def __init__(
        self, dataset: Dataset, frozen: _FrozenPart, pad_id: int, words: bool, memory: _Memory
    ) -> None:
        self._dataset, self._frozen, self._pad_id = dataset, frozen, pad_id
        self._words, self._memory = words, memory
        self._rows: Ragged = dataset.words if words else dataset.tokens
        self._plan = plan_batches(dataset.tokens.lengths, BATCH_TOKENS, _MAX_SENTENCES)
        self._batch_of = np.empty(len(dataset), np.int32)
        for number, rows in enumerate(self._plan):
            self._batch_of[rows] = number
        self._missing = np.ones(len(self._plan), np.bool_)
        self._states: dict[int, Tensor] = {}
        self._sentence = torch.empty(0, 0)

    def batch(self, rows: NDArray[np.int64]) -> CachedBatch:
        """Gather the activations of some sentences, after computing those that are missing."""
        numbers = self._batch_of[rows]
        for number in np.unique(numbers[self._missing[numbers]]):
            self._fill(int(number))
        mask, places = self._places(rows)
        if self._words:
            word_mask = mask
            word_starts = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
        else:
            counts = self._dataset.words.lengths_of(rows)
            width = max(1, int(counts.max(initial=0)))
            word_mask = np.arange(width) < counts[:, None]
            word_starts = self._dataset.words.padded(rows, 0, width)
        flat = torch.from_numpy(places.ravel())
        return CachedBatch(
            {n: s.index_select(0, flat).view(*mask.shape, -1) for n, s in self._states.items()},
            self._sentence.index_select(0, torch.from_numpy(rows)),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(word_starts.copy()),
            torch.from_numpy(word_mask),
            self._dataset.word_features(rows),
        )

    def _places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return the mask [B, P] of what is not padding, and each position's index in the arrays.

        Padding has index 0, which holds zeros.
        """
        starts, lengths = self._rows.offsets[rows], self._rows.lengths_of(rows)
        columns = np.arange(max(1, int(lengths.max(initial=0))))
        inside = columns < lengths[:, None]
        return inside, np.where(inside, starts[:, None] + (columns + 1), 0)

    def _fill(self, number: int) -> None:
        """Compute one of the fixed batches."""
        rows = self._plan[number]
        cached = self._frozen(self._dataset.inputs(rows, self._pad_id))
        if self._missing.all():
            self._allocate(cached)
        mask, places = self._places(rows)
        inside, flat = torch.from_numpy(mask), torch.from_numpy(places[mask])
        for n, state in cached.states.items():
            self._states[n].index_copy_(0, flat, state[inside])
        self._sentence.index_copy_(0, torch.from_numpy(rows), cached.sentence)
        self._missing[number] = False

    def _allocate(self, cached: CachedBatch) -> None:
        total, count = int(self._rows.offsets[-1]), len(self._dataset)
        for n, state in cached.states.items():
            self._states[n] = self._memory.zeros((1 + total, state.shape[-1]), state.dtype)
        sentence = cached.sentence
        self._sentence = self._memory.zeros((count, sentence.shape[-1]), sentence.dtype)


@final
class ActivationCache:
    """The reader of batches whose frozen part is cached, for training and for evaluation.

    Args:
        model: the model.
        datasets: the training sentences.
        depth: how much of the encoder is frozen (see `freezing.frozen_depth`).
        compute: how the encoder runs in training; in evaluation it is float32.
        limit: bytes to hold in memory.
        keeps_layers: whether the hidden states of all layers of a frozen encoder are kept, for
            readers of `training_batch`, even if no head mixes them.

    Raises:
        ModelError: the layers above the frozen ones cannot run by themselves.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        datasets: Sequence[Dataset],
        depth: int,
        compute: Compute,
        limit: int,
        *,
        keeps_layers: bool = False,
    ) -> None:
        self.model, self._datasets, self._depth, self._compute = model, datasets, depth, compute
        self._memory = _Memory(limit)
        self._reads = reads = _Reads.by(model, depth, keeps_layers)
        self._upper: UpperLayers | None = None
        if depth <= model.encoder.shape.num_layers:
            self._upper = UpperLayers(model.encoder.backbone, depth - 1)
        pad_id = model.encoder.pad_id
        frozen = _FrozenPart(model, reads, compute)
        self._sets = [_Sentences(d, frozen, pad_id, reads.words, self._memory) for d in datasets]
        self._exactly = _FrozenPart(model, reads, replace(compute, precision="float32"))
        self._evaluated: dict[bytes, CachedBatch] = {}

    @classmethod
    def of_run(
        cls, config: Config, data: TrainingData, model: MultiTaskModel, depth: int, compute: Compute
    ) -> ActivationCache | None:
        """Return the configured cache; None if it is off, would not pay, or tokens are hidden.

        It pays from the first frozen layer on: looking up the embedding layer's output is cheap.
        """
        if config.cache_activations == "off" or config.token_dropout or depth < 2:
            return None
        try:
            return cls(model, data.datasets, depth, compute, config.cache_memory << 20)
        except ModelError:  # the tuned layers cannot run by themselves
            return None

    def read(self, dataset: int, rows: Rows) -> Forward:
        """Gather a batch's activations, after computing those that are missing."""
        return partial(self.outputs, self.training_batch(dataset, rows))

    def outputs(self, cached: CachedBatch, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Run the trained part for some tasks (see `MultiTaskModel.forward`)."""
        return self.model.answers(self.features(cached), tasks)

    def evaluation_backend(self, backend: Backend) -> Backend:
        """Return a backend that runs the trained part on cached activations."""
        return CachedBackend(self)

    def at_depth(self, depth: int) -> BatchReader:
        """Return this reader, or one that runs the whole model once more of it is trained."""
        if depth == self._depth:
            return self
        return FullReader(self.model, self._datasets, self._compute)

    def training_batch(self, dataset: int, rows: Rows) -> CachedBatch:
        """Return the activations of training sentences.

        Args:
            dataset: the index of their data set.
            rows: [B] their indices in it.
        """
        return self._sets[dataset].batch(rows).to(self._compute.device)

    def evaluated_batch(self, inputs: ModelInputs) -> CachedBatch:
        """Return the activations of a batch of evaluation, identified by its content."""
        digest = hashlib.blake2b(digest_size=16)
        for tensor in (inputs.input_ids, inputs.attention_mask, inputs.word_starts):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        key = digest.digest()
        if key not in self._evaluated:
            self._evaluated[key] = self._stored(self._exactly(inputs))
        cached = replace(self._evaluated[key], word_features=inputs.word_features)
        return cached.to(self._compute.device)

    def _stored(self, cached: CachedBatch) -> CachedBatch:
        """Move a batch's hidden states to the cache's memory."""
        states = {n: self._memory.zeros(tuple(s.shape), s.dtype).copy_(s) for n, s in
                  cached.states.items()}  # fmt: skip
        return replace(cached, states=states)

    def features(self, cached: CachedBatch) -> Features:
        """Run the trained layers on cached activations; returns what the heads read."""
        states, mask = tuple(cached.states.values()), cached.attention_mask
        tokens, sentence = states[-1] if states else cached.sentence[:, None, :0], cached.sentence
        every = self._reads.mixes or self.model.head_layers is not None
        layers = states if every else None
        if self._upper is not None:
            tokens, upper = self._upper(tokens, mask, all_layers=every)
            sentence = self.model.encoder.pooler(tokens, mask)
            layers = None if upper is None else (*states, *upper[1:])
        return self.model.features_of(
            Encoded(tokens, layers, sentence),
            mask,
            cached.word_starts,
            cached.word_mask,
            cached.word_features,
            mixes=self._reads.mixes,
        )


class CachedBackend:
    """Runs a model for evaluation on the cached activations of its frozen part.

    Args:
        cache: the activations, and the model.
    """

    def __init__(self, cache: ActivationCache) -> None:
        self._cache = cache

    @property
    def name(self) -> str:
        """The backend's name in messages."""
        return "torch"

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Compute every head's logits and the embedding (see `Backend.run`)."""
        cached = self._cache.evaluated_batch(ModelInputs.of(batch))
        model = self._cache.model
        if model.training:  # visiting every module takes longer than the heads
            model.eval()
        with torch.inference_mode():
            outputs = self._cache.outputs(cached, model.answering)
        return {name: values.float().cpu().numpy() for name, values in outputs.items()}
