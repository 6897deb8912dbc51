"""Benchmark of alert deliveries: to faulty receivers, while the dispatcher is killed, and next to a dead receiver."""
