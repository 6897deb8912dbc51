"""What every process runs on: clock, logs, event loop, signals, back-off."""
