"""An Apache Kafka broker on loopback."""
