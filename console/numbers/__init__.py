"""Numbers of a deployment: measures over time, and latencies by stage."""
