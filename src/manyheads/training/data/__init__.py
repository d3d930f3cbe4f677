"""What a step trains on: records as arrays, batches, schedules."""
