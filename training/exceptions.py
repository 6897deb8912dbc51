"""Errors of the training package. Every error derives from TrainingError.

TrainingError
├── SeriesUnusable    the data of a forecast cannot be read, or are too few
└── TrainingFailed    a training cannot go on, or its model cannot be used
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of every error of the package ``training``."""


class SeriesUnusable(TrainingError):
    """A series to train a forecast on cannot be read, or is too short."""


class TrainingFailed(TrainingError):
    """A training cannot go on, or its model cannot be used."""
