"""Kafka: client settings, the log interface, its Kafka and in-memory implementations, and topic administration."""
