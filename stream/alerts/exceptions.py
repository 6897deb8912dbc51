"""The errors between an event and its receipt.

AlertError
├── EvidenceMissing     the picture of an event is not available; the event becomes a dead letter
└── StoreFailed         the evidence store fails; the process ends and its supervisor restarts it
"""

from __future__ import annotations


class AlertError(Exception):
    """Base of every error of this package."""


class EvidenceMissing(AlertError):
    """The picture of an event is not available."""

    reason = "evidencemissing"


class StoreFailed(AlertError):
    """The evidence store cannot write or read a picture."""
