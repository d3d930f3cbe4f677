"""What the frozen part of an encoder gives is computed once a sentence and kept.

Each training sentence runs through the frozen part when it is first drawn; from then on training
costs what is trained alone. Only what the trained part reads is kept: the hidden state on which
the layers that are tuned stand, or, where none is tuned, what the heads read: the sentence's
vector, the vectors of all tokens or of the words' first tokens alone, of the last layer or of all.

A float depends a little on the batch that it is computed in. So sentences are computed in batches
that are fixed beforehand, whatever batch asks for them, and a resumed run, which computes them
anew, finds the same bits.

Axes: B sentences, T tokens, P tokens that are kept (all, or the words' first ones), W words,
H hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyheads.config import BATCH_TOKENS, Config
from manyheads.errors import ModelError
from manyheads.modeling import Compute, ModelInputs, MultiTaskModel, UpperLayers, moved, pool
from manyheads.modeling.heads import Features
from manyheads.modeling.heads.base import take_rows
from manyheads.text import Batch, Floats, plan_batches
from manyheads.training.data.dataset import Dataset
from manyheads.training.data.ragged import Ragged, zeros
from manyheads.training.data.training_data import TrainingData

_MAX_SENTENCES = 256


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """What is kept of some sentences, padded."""

    states: Mapping[int, Tensor]
    """By number, hidden states [B, P, H] in the encoder's own precision."""
    sentence: Tensor
    """[B, H] float32; [B, 0] where it is not kept."""
    attention_mask: Tensor
    """[B, P] int64, 0 for padding."""
    word_tokens: Tensor
    """[B, W] int64, each word's place among the P tokens; 0 where padded."""
    word_mask: Tensor
    """[B, W] bool."""

    def to(self, device: torch.device) -> KeptBatch:
        """Copy to a device, without waiting for it."""
        others = (self.sentence, self.attention_mask, self.word_tokens, self.word_mask)
        return KeptBatch(
            {number: moved(state, device) for number, state in self.states.items()},
            *(moved(tensor, device) for tensor in others),
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of the frozen part's output somebody reads."""

    states: tuple[int, ...]
    """The numbers of the hidden states, from 0, which is the embedding layer's output."""
    mixes: bool
    """Whether all hidden states are read, and not the last of these alone."""
    words: bool
    """Whether words' first tokens are all that is read of them."""
    sentence: bool
    """Whether the sentence vector is among it, too."""

    @classmethod
    def by(cls, model: MultiTaskModel, depth: int) -> _Wanted:
        """Find out what is read above a frozen depth (see `freezing.frozen_depth`)."""
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
        states = tuple(range(last + 1)) if mixes else (last,) if reads - {"sentence"} else ()
        return cls(states, mixes, "tokens" not in reads, True)


class _Room:
    """The memory that there is for activations; what it does not hold is mapped from disk.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of zeros to write to.

        Raises:
            StorageError: it does not fit into memory, and the disk has no room for it.
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
        wanted: what of the output is read.
        compute: where and how the encoder runs.
    """

    def __init__(self, model: MultiTaskModel, wanted: _Wanted, compute: Compute) -> None:
        self._model, self._wanted, self._compute = model, wanted, compute

    def __call__(self, inputs: ModelInputs) -> KeptBatch:
        """Compute what is read, on the CPU; the model is in evaluation mode afterwards."""
        wanted, encoder = self._wanted, self._model.encoder
        inputs = inputs.to(self._compute.device)
        self._model.eval()
        last = encoder.shape.num_layers
        with torch.no_grad(), self._compute.autocast():
            encoded = encoder(
                inputs.input_ids,
                inputs.attention_mask,
                all_layers=wanted.states not in ((), (last,)),
            )
        states = {n: encoded.layers[n] if encoded.layers else encoded.tokens for n in wanted.states}
        mask, word_tokens = inputs.attention_mask, inputs.word_tokens
        if wanted.words:
            states = {n: take_rows(state, word_tokens) for n, state in states.items()}
            mask = inputs.word_mask.long()
            word_tokens = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        sentence = encoded.sentence if wanted.sentence else encoded.sentence[:, :0]
        kept = KeptBatch(states, sentence, mask, word_tokens, inputs.word_mask)
        return kept.to(torch.device("cpu"))


class _Sentences:
    """What is kept of a data set, in flat arrays that are filled when somebody asks.

    Args:
        dataset: the sentences.
        frozen: computes what is kept.
        pad_id: the token id of padding.
        words: whether it is words, and not tokens, whose vectors are kept.
        room: where it is kept.
    """

    def __init__(
        self, dataset: Dataset, frozen: _FrozenPart, pad_id: int, words: bool, room: _Room
    ) -> None:
        self._dataset, self._frozen, self._pad_id = dataset, frozen, pad_id
        self._words, self._room = words, room
        self._rows: Ragged = dataset.words if words else dataset.tokens
        self._plan = plan_batches(dataset.tokens.lengths, BATCH_TOKENS, _MAX_SENTENCES)
        self._batch_of = np.empty(len(dataset), np.int32)
        for number, rows in enumerate(self._plan):
            self._batch_of[rows] = number
        self._missing = np.ones(len(self._plan), np.bool_)
        self._states: dict[int, Tensor] = {}
        self._sentence = torch.empty(0, 0)

    def batch(self, rows: NDArray[np.int64]) -> KeptBatch:
        """Gather what is kept of some sentences, after computing what is not there yet."""
        numbers = self._batch_of[rows]
        for number in np.unique(numbers[self._missing[numbers]]):
            self._fill(int(number))
        mask, places = self._places(rows)
        if self._words:
            word_mask = mask
            word_tokens = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
        else:
            counts = self._dataset.words.lengths_of(rows)
            width = max(1, int(counts.max(initial=0)))
            word_mask = np.arange(width) < counts[:, None]
            word_tokens = self._dataset.words.padded(rows, 0, width)
        flat = torch.from_numpy(places.ravel())
        return KeptBatch(
            {n: s.index_select(0, flat).view(*mask.shape, -1) for n, s in self._states.items()},
            self._sentence.index_select(0, torch.from_numpy(rows)),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(word_tokens.copy()),
            torch.from_numpy(word_mask),
        )

    def _places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which of [B, P] are no padding, and where in the arrays they stand.

        Padding stands at place 0, where there are zeros.
        """
        starts, lengths = self._rows.offsets[rows], self._rows.lengths_of(rows)
        columns = np.arange(max(1, int(lengths.max(initial=0))))
        inside = columns < lengths[:, None]
        return inside, np.where(inside, starts[:, None] + (columns + 1), 0)

    def _fill(self, number: int) -> None:
        """Compute one of the fixed batches."""
        rows = self._plan[number]
        kept = self._frozen(self._dataset.inputs(rows, self._pad_id))
        if self._missing.all():
            self._make_room(kept)
        mask, places = self._places(rows)
        inside, flat = torch.from_numpy(mask), torch.from_numpy(places[mask])
        for n, state in kept.states.items():
            self._states[n].index_copy_(0, flat, state[inside])
        self._sentence.index_copy_(0, torch.from_numpy(rows), kept.sentence)
        self._missing[number] = False

    def _make_room(self, kept: KeptBatch) -> None:
        total, count = int(self._rows.offsets[-1]), len(self._dataset)
        for n, state in kept.states.items():
            self._states[n] = self._room.zeros((1 + total, state.shape[-1]), state.dtype)
        self._sentence = self._room.zeros((count, kept.sentence.shape[-1]), kept.sentence.dtype)


class KeptActivations:
    """What a frozen part gave for the training sentences, and for whatever is evaluated.

    Args:
        model: the model.
        datasets: the training sentences.
        depth: how much of the encoder is frozen (see `freezing.frozen_depth`).
        compute: how the encoder runs in training; in evaluation it is float32.
        limit: bytes that may be kept in memory.

    Raises:
        ModelError: the layers above the frozen ones cannot be run by themselves.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        datasets: Iterable[Dataset],
        depth: int,
        compute: Compute,
        limit: int,
    ) -> None:
        self.model, self._device = model, compute.device
        self._room = _Room(limit)
        self._wanted = wanted = _Wanted.by(model, depth)
        self._upper: UpperLayers | None = None
        if depth <= model.encoder.shape.num_layers:
            self._upper = UpperLayers(model.encoder.backbone, depth - 1)
        pad_id = model.encoder.pad_id
        frozen = _FrozenPart(model, wanted, compute)
        self._sets = [_Sentences(d, frozen, pad_id, wanted.words, self._room) for d in datasets]
        self._exactly = _FrozenPart(model, wanted, replace(compute, precision="float32"))
        self._evaluated: dict[bytes, KeptBatch] = {}

    @classmethod
    def of_run(
        cls, config: Config, data: TrainingData, model: MultiTaskModel, depth: int, compute: Compute
    ) -> KeptActivations | None:
        """Make what a configuration asks for, if so much is frozen that it is worth keeping.

        That is a layer at least: to look up the embedding layer's output again costs little.
        """
        if config.cache_activations == "off" or depth < 2:
            return None
        try:
            return cls(model, data.datasets, depth, compute, config.cache_memory << 20)
        except ModelError:  # the layers that are tuned cannot be run by themselves
            return None

    def training_batch(self, dataset: int, rows: NDArray[np.int64]) -> KeptBatch:
        """Return what is kept of training sentences.

        Args:
            dataset: which of the data sets they are of.
            rows: [B] their numbers in it.
        """
        return self._sets[dataset].batch(rows).to(self._device)

    def evaluated_batch(self, inputs: ModelInputs) -> KeptBatch:
        """Return what is kept of a batch that is evaluated, told by its content."""
        digest = hashlib.blake2b(digest_size=16)
        for tensor in (inputs.input_ids, inputs.attention_mask, inputs.word_tokens):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        key = digest.digest()
        if key not in self._evaluated:
            self._evaluated[key] = self._stored(self._exactly(inputs))
        return self._evaluated[key].to(self._device)

    def _stored(self, kept: KeptBatch) -> KeptBatch:
        """Put the large ones of a batch's tensors where there is room for them."""
        states = {n: self._room.zeros(tuple(s.shape), s.dtype).copy_(s) for n, s in
                  kept.states.items()}  # fmt: skip
        return replace(kept, states=states)

    def features(self, kept: KeptBatch) -> Features:
        """Make what the heads read of what is kept, by running the layers that are trained."""
        own, mixes, mask = self.model.head_layers, self._wanted.mixes, kept.attention_mask
        states, sentence, encoders = tuple(kept.states.values()), kept.sentence, kept.sentence
        tokens = states[-1] if states else sentence[:, None, :0]
        layers = states if mixes else None
        if self._upper is not None:
            every = mixes or own is not None
            tokens, upper = self._upper(tokens, mask, all_layers=every)
            sentence = encoders = pool(tokens, mask, self.model.encoder.pooling.mode)
            layers = None if upper is None else (*states, *upper[1:])
        if own is not None:
            below = states if layers is None else layers[: own.reads + 1]
            tokens, layers, sentence = own(below, mask, all_layers=mixes)
        return Features(
            tokens=tokens,
            layers=layers,
            attention_mask=mask,
            sentence=sentence,
            word_tokens=kept.word_tokens,
            word_mask=kept.word_mask,
            encoder_sentence=encoders,
        )


class KeptBackend:
    """Runs a model for evaluation on what is kept of its frozen part.

    Args:
        activations: what is kept, and the model.
    """

    def __init__(self, activations: KeptActivations) -> None:
        self._activations = activations

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return "torch"

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Compute every head's logits and the embedding."""
        kept = self._activations.evaluated_batch(ModelInputs.of(batch))
        model = self._activations.model
        if model.training:  # to say so to every module takes longer than the heads
            model.eval()
        with torch.inference_mode():
            outputs = model.answers(self._activations.features(kept), model.answering)
        return {name: values.float().cpu().numpy() for name, values in outputs.items()}
