"""Numbers of a deployment: measures over time, forecasts, and latencies by stage."""
