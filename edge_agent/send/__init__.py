"""Sender of spooled rows to Kafka, either directly or through a gateway."""
