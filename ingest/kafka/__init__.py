"""The log seam, its Kafka and in-memory implementations, and the only place that makes Kafka clients."""
