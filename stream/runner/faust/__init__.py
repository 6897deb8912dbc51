"""Faust behind one door: the app, the Kafka driver, and the fetch thread."""
