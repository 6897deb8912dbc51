"""Sightline beside its peers on the same Kafka: frames, sensor readings, and the agent's sender."""
