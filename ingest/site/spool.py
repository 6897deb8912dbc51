"""What an agent keeps while its link is gone: per camera, and on its disk as a whole."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ingest.site.entry import ConfigSection, Seconds

_MIB = 1024 * 1024


class SpoolConfig(ConfigSection):
    """How much an agent keeps while the link is gone, per camera; the oldest late frames expire first."""

    max_bytes: int = Field(default=512 * _MIB, ge=_MIB)
    max_age_s: Seconds = 24 * 3600.0
    late_after_s: Seconds = 5.0
    """A frame that was not offered to the log within this time after capture goes to the late lane."""
    evidence: bool = False
    """When the disk as a whole has no room, these frames expire after all others."""


class DiskConfig(ConfigSection):
    """The agent's disk as a whole: over all cameras and sensors, and what of the disk is left to others."""

    max_bytes: int = Field(default=16 * 1024 * _MIB, ge=_MIB)
    """Of frames and readings together. What the ledger needs is not counted: it always has room."""
    min_free_bytes: int = Field(default=256 * _MIB, ge=0)
    """The spool gives way before less than this of the disk is free, whoever has taken it."""
    reserve_bytes: int = Field(default=16 * _MIB, ge=8 * _MIB)
    """Held back in a file of its own, and let go when the disk is full: sending and accounts need some room, the
    write-ahead log alone 4 MiB."""
    key_file: Path | None = None
    """A key of 32 bytes (raw, or as 64 hexadecimal digits): what is kept is encrypted with it."""
    previous_key_files: tuple[Path, ...] = ()
    """Keys that were used before: what was kept with them can still be read."""
