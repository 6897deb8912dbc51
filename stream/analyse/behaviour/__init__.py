"""Behaviour of tracked people: the input of a sequence model, and the model's evaluation."""
