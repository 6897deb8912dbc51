"""Store and forward."""
