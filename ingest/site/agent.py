"""Settings of an agent: the spool of each camera, the disk as a whole, and the link to Kafka or a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection, Seconds
from ingest.site.url import checked_url

_MIB = 1024 * 1024


class SpoolConfig(ConfigSection):
    """Limits of one camera's or sensor's spool.

    When the spool is full, the oldest records of the late lane expire first.
    """

    max_bytes: int = Field(default=512 * _MIB, ge=_MIB)
    max_age_s: Seconds = 24 * 3600.0
    late_after_s: Seconds = 5.0
    """A frame that was not sent to the log within this time after capture goes to the late lane."""
    evidence: bool = False
    """If true, this camera's frames expire last when the whole disk is full."""


class DiskConfig(ConfigSection):
    """Limits of the agent's disk, over all cameras and sensors."""

    max_bytes: int = Field(default=16 * 1024 * _MIB, ge=_MIB)
    """Maximum size of all frames and readings together. Ledger entries do not count, and are always stored."""
    min_free_bytes: int = Field(default=256 * _MIB, ge=0)
    """Free bytes on the disk below which the spool drops records, even if other programs use the space."""
    reserve_bytes: int = Field(default=16 * _MIB, ge=8 * _MIB)
    """Size of a file that is deleted when the disk is full. The agent then needs the freed room to send records and
    to store counts of withheld frames; the write-ahead log alone takes 4 MiB."""
    key_file: Path | None = None
    """A file with a key of 32 bytes, raw or as 64 hexadecimal digits. If a key file is set, the spool is
    encrypted."""
    previous_key_files: tuple[Path, ...] = ()
    """Files of keys used before. Records that were encrypted with these keys stay readable."""


class LinkConfig(ConfigSection):
    """The link of an agent.

    The environment sets the address and secrets of Kafka, and this section those of a gateway.
    """

    kind: Literal["kafka", "https"] = "kafka"
    max_in_flight_bytes: int = Field(default=4 * _MIB, ge=64 * 1024)
    """Maximum number of bytes that are sent and not acknowledged: one second of a 30 Mbit/s link. When the link
    fails, all these bytes are sent again."""
    late_share: float = Field(default=0.25, gt=0.0, le=1.0)
    """Maximum share of backlog in the bytes in flight. A live frame never waits for more late records than this
    share."""
    late_bytes_per_s: int = Field(default=2 * _MIB, ge=0)
    """Maximum rate of the backlog while live frames arrive, averaged over a second. With 0, only ``late_share``
    limits the backlog."""
    url: str = ""
    """Address of the gateway, ``https://host[:port]``."""
    token_file: Path | None = None
    """File with the gateway's bearer token. The agent reads the file again when it changes."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _gateway_has_an_address(self) -> Self:
        if self.kind == "https":
            try:
                checked_url(self.url, ("https",), login=True)
            except ValueError as error:
                raise ValueError(f"url of the gateway: {error}, not {self.url!r}") from None
        return self
