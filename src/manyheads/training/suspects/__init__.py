"""The search for wrong labels, with heads that were not trained on them."""

from __future__ import annotations

from manyheads.training.frozen_heads import FrozenHeads
from manyheads.training.suspects.search import find_suspects

__all__ = ["FrozenHeads", "find_suspects"]
