"""Clients of receivers: signed webhooks, and the connections that they use."""
