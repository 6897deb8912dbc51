"""The engine node: reading batches, partition take-over, scheduling, model serving and transactional results."""
