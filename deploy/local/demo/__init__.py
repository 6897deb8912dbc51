"""The demo: a whole stack on one machine, its figures, and its comparison with the truth."""
