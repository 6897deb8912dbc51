"""Kafka: client settings, the log seam, the Kafka and in-memory logs, and topic administration."""
