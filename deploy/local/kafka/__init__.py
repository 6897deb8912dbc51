"""A local Kafka broker: download of its jars, its configuration and its process."""
