"""`sightline train`: train models. Each command is one module."""
