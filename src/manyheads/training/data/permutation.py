"""Random permutations that take no memory: any part of one is computed on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
"""Rounds of the Feistel network; four already make it hard to tell from random (Luby and Rackoff,
1988, "How to construct pseudorandom permutations from pseudorandom functions")."""

_Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Permutation:
    """A random permutation of the numbers 0 to `count - 1`.

    A Feistel network permutes all numbers of some bits, which are at most four times as many; a
    result that is out of range goes through it again until it is in range ("cycle walking", Black
    and Rogaway, 2002).
    """

    count: int
    half: int
    """Bits of each half of a number in the network."""
    keys: tuple[int, ...]
    """One for each round."""

    @classmethod
    def draw(cls, count: int, random: np.random.Generator) -> Permutation:
        """Draw a permutation from a generator."""
        half = max(1, ((count - 1).bit_length() + 1) // 2)
        return cls(count, half, tuple(int(k) for k in random.integers(0, 2**63, ROUNDS)))

    def __getitem__(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the numbers at some positions of the permutation."""
        values = self._permute(positions.astype(np.uint64))
        while (outside := values >= self.count).any():
            values[outside] = self._permute(values[outside])
        return values.astype(np.int64)

    def _permute(self, values: _Words) -> _Words:
        half, mask = np.uint64(self.half), np.uint64((1 << self.half) - 1)
        left, right = values >> half, values & mask
        for key in self.keys:
            left, right = right, left ^ (_scrambled(right, key) & mask)
        joined: _Words = (left << half) | right
        return joined


def _scrambled(values: _Words, key: int) -> _Words:
    """Hash numbers to pseudorandom ones (the finaliser of splitmix64)."""
    mixed: _Words = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
