"""The runner of stream processors: a loop that reads and writes Kafka through Faust, a watchdog, and an in-memory
runner for tests and replays."""
