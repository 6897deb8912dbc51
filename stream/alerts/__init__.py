"""The stage ``alerts``: the evidence and the alert of each event."""
