"""Console: web pages and an HTTP API for the people who work with a deployment."""
