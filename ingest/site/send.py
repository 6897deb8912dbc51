"""How an agent sends: over which link, and how much of it a backlog may have."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection

_MIB = 1024 * 1024


class LinkConfig(ConfigSection):
    """The link of an agent. Kafka's address and secrets come from the environment, a gateway's from here."""

    kind: Literal["kafka", "https"] = "kafka"
    max_in_flight_bytes: int = Field(default=4 * _MIB, ge=64 * 1024)
    """A second of a 30 Mbit/s link. All of it is repeated when the link fails."""
    late_share: float = Field(default=0.25, gt=0.0, le=1.0)
    """So much of what is in flight may be backlog: a live frame never waits behind more."""
    late_bytes_per_s: int = Field(default=2 * _MIB, ge=0)
    """The backlog's pace while live frames come, averaged over a second; 0 for as fast as the share lets it."""
    url: str = ""
    """Of the gateway, ``https://host[:port]``."""
    token_file: Path | None = None
    """The gateway's bearer token; read again when the file changes."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _gateway_has_an_address(self) -> Self:
        if self.kind == "https" and not self.url.startswith("https://"):
            raise ValueError(f"url = {self.url!r}: expected https://host[:port] of the gateway")
        return self
