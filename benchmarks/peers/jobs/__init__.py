"""Programs of the peers, each of which runs in its own environment, and the program of the agent's sender."""
