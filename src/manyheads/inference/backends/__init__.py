"""Backends that compute a model's outputs, one module per framework."""
