"""What computes a model's outputs for a batch: one module per framework."""
