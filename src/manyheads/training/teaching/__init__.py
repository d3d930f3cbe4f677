"""Teaching: the heads learn a teacher's answers beside the labels."""

from __future__ import annotations

from manyheads.training.teaching.term import TEACHERS, Teaching

__all__ = ["TEACHERS", "Teaching"]
