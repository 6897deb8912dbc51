"""The runner of stream processors: a loop on Faust, a watchdog, and an in-memory runner with the same rules."""
