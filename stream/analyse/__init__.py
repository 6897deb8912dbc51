"""The stage ``analyse``: tracks and rules turn results into events."""
