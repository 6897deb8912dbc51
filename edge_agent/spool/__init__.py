"""Store and forward: rows stay on disk until Kafka acknowledges them."""
