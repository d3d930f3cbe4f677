"""Distillation: heads learn a teacher's outputs as well as the labels."""

from __future__ import annotations

from manyheads.training.teaching.term import TEACHERS, Teaching

__all__ = ["TEACHERS", "Teaching"]
