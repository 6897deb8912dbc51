"""One camera: its supervisor, its capture process, and the state of its view."""
