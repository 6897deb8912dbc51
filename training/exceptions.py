"""Errors of the training package. Every error derives from TrainingError.

TrainingError
└── TrainingFailed    a training cannot go on, or its model cannot be used
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of every error of the package ``training``."""


class TrainingFailed(TrainingError):
    """A training cannot go on, or its model cannot be used."""
