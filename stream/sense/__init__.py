"""The stage ``sense``: sensor readings are collected in windows, and rules turn the windows into events."""
