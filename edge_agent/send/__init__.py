"""Sending of spooled rows to Kafka, directly or over a gateway."""
