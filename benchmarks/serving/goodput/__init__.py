"""Responses in time under open load: the engine node, LitServe and Ray Serve with the same model and session."""
