"""Manyheads: one sentence encoder, many heads."""

from __future__ import annotations

__version__ = "0.1.0"
