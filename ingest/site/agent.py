"""Settings of an agent: limits of each camera's spool, limits of the whole disk, and the link to Kafka or a
gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ingest.runtime.url import checked_url
from ingest.site.entry import ConfigSection, Seconds

_MIB = 1024 * 1024


class SpoolConfig(ConfigSection):
    """Limits of one camera's or sensor's spool.

    When the spool is full, the oldest records of the late lane (the backlog) are deleted first.
    """

    max_bytes: int = Field(default=512 * _MIB, ge=_MIB)
    max_age_s: Seconds = 24 * 3600.0
    late_after_s: Seconds = 5.0
    """A frame that was not sent to Kafka within this time after its capture goes to the late lane, which holds the
    backlog."""
    evidence: bool = False
    """If true, this camera's frames expire last when the whole disk is full."""


class DiskConfig(ConfigSection):
    """Limits of the agent's disk usage, for all cameras and sensors together."""

    max_bytes: int = Field(default=16 * 1024 * _MIB, ge=_MIB)
    """Maximum size of all frames and readings in the spool together. Ledger entries, which count withheld frames, are
    always stored and do not add to the size of the spool."""
    min_free_bytes: int = Field(default=256 * _MIB, ge=0)
    """Minimum free space on the disk, in bytes. If less than ``min_free_bytes`` is free, the spool deletes records,
    even if other programs fill the disk."""
    reserve_bytes: int = Field(default=16 * _MIB, ge=8 * _MIB)
    """Size in bytes of a reserve file, which the agent deletes when the disk is full. The agent needs the freed space
    to send records and to store counts of withheld frames; SQLite's write-ahead log alone takes 6 MiB."""
    key_file: Path | None = None
    """File with the spool's encryption key: 32 bytes, raw or as 64 hexadecimal digits. If no key file is set, the
    spool is not encrypted."""
    previous_key_files: tuple[Path, ...] = ()
    """Files with earlier encryption keys of the spool. Records that were encrypted with an earlier key stay
    readable."""


class LinkConfig(ConfigSection):
    """Settings of the link from an agent to Kafka or to a gateway.

    Environment variables set the address and the secrets of Kafka. The section ``link`` of the site file sets the
    address and the secrets of a gateway.
    """

    kind: Literal["kafka", "https"] = "kafka"
    max_in_flight_bytes: int = Field(default=4 * _MIB, ge=64 * 1024)
    """Maximum number of bytes that are sent and not yet acknowledged. Sending the default of 4 MiB takes about one
    second on a 30 Mbit/s link. When the link fails, all unacknowledged bytes are sent again. The limit is never
    larger than a quarter of the agent's smallest spool."""
    late_share: float = Field(default=0.25, gt=0.0, le=1.0)
    """Maximum share of ``max_in_flight_bytes`` that the backlog may use. If a live frame must wait, it waits for at
    most this share of ``max_in_flight_bytes``."""
    late_bytes_per_s: int = Field(default=2 * _MIB, ge=0)
    """Maximum rate at which the backlog is sent while live frames arrive, averaged over one second. If 0, only
    ``late_share`` limits the backlog."""
    url: str = ""
    """Address of the gateway, ``https://host[:port]``."""
    token_file: Path | None = None
    """File with the gateway's bearer token. When the file changes, the agent reads the new token."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _gateway_has_an_address(self) -> Self:
        if self.kind == "https":
            try:
                checked_url(self.url, ("https",), login=True)
            except ValueError as error:
                raise ValueError(f"{error} as url of the gateway, not {self.url!r}") from None
        return self
