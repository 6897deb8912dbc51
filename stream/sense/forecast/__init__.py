"""Forecasts of measures: steps, features, models, prediction intervals, skill, and the processor of ``measures``."""
