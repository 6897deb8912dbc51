"""The stage ``sense``: windows and rules turn sensor readings into events."""
