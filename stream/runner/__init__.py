"""The runner of stream processors: the loop on Faust, its watchdog, and a runner in memory with the same rules."""
