"""Training data: records as arrays, batches and schedules."""
