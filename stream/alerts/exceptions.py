"""What can go wrong on the way from an event to a receipt.

AlertError
├── EvidenceMissing     the picture of an event cannot be had; the event becomes a dead letter, never silence
└── StoreFailed         the evidence store does not take a picture; the process ends and is started again
"""

from __future__ import annotations


class AlertError(Exception):
    """Base of every error of this package."""


class EvidenceMissing(AlertError):
    """The picture of an event cannot be had."""

    reason = "evidencemissing"


class StoreFailed(AlertError):
    """The evidence store does not take a picture."""
