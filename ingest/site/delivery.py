"""Destinations of frames and alerts: pinned partitions and webhooks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ingest.site.entry import ConfigEntry, Seconds, SharedEntry


class PinConfig(ConfigEntry):
    """A camera's partition. `sightline topics grow` writes it so that the camera keeps its partition."""

    KIND: ClassVar[str] = "pin"

    partition: int = Field(ge=0)


class ReceiverConfig(SharedEntry):
    """A webhook that receives alerts. The secret is read from a file (``whsec_…``, Standard Webhooks)."""

    KIND: ClassVar[str] = "receiver"

    url: str
    secret_file: Path
    timeout_s: float = Field(default=10.0, gt=0.0, le=60.0)
    retry_s: tuple[Seconds, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """Pause before each attempt in seconds: the schedule of Standard Webhooks, 75 hours in all."""
