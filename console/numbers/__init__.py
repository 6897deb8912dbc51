"""Numbers of a deployment: measures over time, latencies, and the ledger."""
