"""Run stored frames through a candidate model and candidate rules, and compare the outcome with the live pipeline."""
