"""Faster training on CPUs: attention, dropout and memory reuse."""
