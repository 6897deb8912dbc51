"""The data contract: records, topics, Kafka access, dead letters, the ledger of frames, the site's configuration."""
