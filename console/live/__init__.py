"""Live data: bounded views of Kafka's topics, kept up to date while the console runs."""
