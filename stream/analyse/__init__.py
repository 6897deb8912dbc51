"""The stage ``analyse``, which tracks objects, applies rules to the tracks, and writes events."""
