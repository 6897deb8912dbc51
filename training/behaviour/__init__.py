"""A classifier of the behaviour of tracked people, trained on simulated tracks."""
