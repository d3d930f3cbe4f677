"""Faster training on processors: attention, dropout masks, memory kept for reuse."""
