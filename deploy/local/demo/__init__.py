"""The demo: a whole stack on one machine, its figures, and a comparison with the simulated ground truth."""
