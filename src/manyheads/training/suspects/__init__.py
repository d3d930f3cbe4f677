"""Labels that are likely wrong, by heads that have not seen them."""

from __future__ import annotations

from manyheads.training.suspects.search import find_suspects

__all__ = ["find_suspects"]
