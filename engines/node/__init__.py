"""The engine node: intake, partition take-over, scheduling, model serving and transactional results."""
