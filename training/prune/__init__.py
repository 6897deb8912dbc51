"""Pruning of Keras models, by weights or by whole channels, and fine-tuning of the result."""
