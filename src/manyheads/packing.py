"""Batches without padding: the sentences one after another in one row.

Axes: B sentences, T tokens of a padded batch, N tokens of all sentences.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from manyheads.devices import moved

# Relative; the arithmetic of bf16 makes less than a hundredth.
_ERROR = 0.03


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the tokens of a padded batch lie once the padding is gone."""

    places: Tensor
    """[N] int64, each token's number in the padded batch, [B T]."""
    positions: Tensor
    """[N] int64, each token's number in its sentence."""
    starts: Tensor
    """[B + 1] int64, where each sentence begins, and N."""
    shortest: int
    longest: int
    """Tokens of a sentence."""

    @classmethod
    def of(cls, attention_mask: Tensor) -> Packing:
        """Look at a mask, [B, T] with 0 for padding, in the processor's memory."""
        lengths = attention_mask.sum(1)
        places = attention_mask.flatten().nonzero().squeeze(1)
        return cls(
            places,
            places % attention_mask.shape[1],
            torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
            int(lengths.min()),
            int(lengths.max()),
        )

    def to(self, device: torch.device) -> Packing:
        """Copy to a device, without waiting for it."""
        return Packing(
            moved(self.places, device),
            moved(self.positions, device),
            moved(self.starts, device),
            self.shortest,
            self.longest,
        )

    def pack(self, padded: Tensor) -> Tensor:
        """Take the padding out: [B, T] to [1, N]."""
        return padded.flatten().index_select(0, self.places).unsqueeze(0)

    def unpack(self, packed: Tensor, length: int) -> Tensor:
        """Put padding of zeros in: [1, N, H] to [B, T, H], where `length` is T."""
        count, hidden = len(self.starts) - 1, packed.shape[2]
        padded = packed.new_zeros(count * length, hidden)
        return padded.index_copy(0, self.places, packed[0]).view(count, length, hidden)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None
    ) -> Tensor:
        """Let the tokens of each sentence attend to each other.

        Args:
            query, key, value: [1, A, N, D], for A heads of size D.
            dropout: the share of weights that are dropped.
            scaling: the factor on the scores; default, one over the root of D.

        Returns:
            [1, N, A, D].
        """
        queries, keys, values = (self._apart(vectors) for vectors in (query, key, value))
        attended = scaled_dot_product_attention(
            queries, keys, values, dropout_p=dropout, scale=scaling
        )
        return attended.transpose(1, 2).values().unsqueeze(0)

    def _apart(self, vectors: Tensor) -> Tensor:
        """Cut [1, A, N, D] into sentences: a jagged [B, A, length, D]."""
        jagged: Tensor = torch.nested.nested_tensor_from_jagged(
            vectors[0].transpose(0, 1).contiguous(), offsets=self.starts,
            min_seqlen=self.shortest, max_seqlen=self.longest,
        )  # fmt: skip
        return jagged.transpose(1, 2)


def can_attend(device: torch.device, dtype: torch.dtype, heads: int, size: int) -> bool:
    """Try whether a device attends over packed sentences as it does sentence by sentence.

    Args:
        device: where.
        dtype: the arithmetic.
        heads: heads of attention.
        size: the size D of each.
    """
    lengths = [5, 1, 3]
    packing = Packing.of((torch.arange(5) < torch.tensor(lengths).unsqueeze(1)).long()).to(device)
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, 1, heads, sum(lengths), size, generator=draw).to(device, dtype)
    query, key, value, gradient = vectors.unbind()
    asked = [each.requires_grad_() for each in (query, key, value)]
    sentences = (torch.split(each, lengths, dim=2) for each in asked)
    apart = [scaled_dot_product_attention(q, k, v) for q, k, v in zip(*sentences, strict=True)]
    wanted = _with_gradients(torch.cat(apart, dim=2), asked, gradient)
    # What torch has to say, once, is of what is under its own hands.
    log = logging.getLogger("torch.fx._symbolic_trace")
    with warnings.catch_warnings(), _silent(log), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        try:
            found, dropped = (
                _with_gradients(
                    packing.attend(query, key, value, dropout, None).transpose(1, 2),
                    asked, gradient,
                )
                for dropout in (0.0, 0.1)
            )  # fmt: skip
        except Exception:  # torch raises all kinds where a device lacks something
            return False
    near = [
        (one - other).norm() < _ERROR * other.norm()
        for one, other in zip(found, wanted, strict=True)
    ]
    finite = [each.isfinite().all() for each in dropped]
    return bool(torch.stack([*near, *finite]).all())


def _with_gradients(
    attended: Tensor, vectors: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor, ...]:
    return attended, *torch.autograd.grad(attended, vectors, gradient)


@contextmanager
def _silent(log: logging.Logger) -> Iterator[None]:
    was = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = was
