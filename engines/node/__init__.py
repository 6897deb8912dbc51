"""The engine node: intake, take-over, scheduling, serving, and transactional results."""
