"""A local Kafka broker: jars, configuration and process."""
