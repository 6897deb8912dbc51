"""A camera of a site: where its frames come from, what of them is worth sending, and what is kept meanwhile."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ingest.site.entry import Entry, Part, Seconds, Share
from ingest.site.spool import SpoolConfig

__all__ = ["CameraConfig", "GateConfig", "SpoolConfig"]


class GateConfig(Part):
    """What is worth sending. A rate of 0 sends every frame; ``motion`` withholds frames in which nothing moves."""

    max_fps: float = Field(default=0.0, ge=0.0)
    motion: bool = True
    min_area: Share = 0.0005
    """Smallest moving region, as a share of the picture."""
    hold_s: Seconds = 1.0
    """How long the gate stays open after the last motion."""
    keep_alive_s: Seconds = 10.0
    """A still scene is sent this often all the same; 0 for never."""


class CameraConfig(Entry):
    """A camera. ``source`` is a file's path, ``device:N``, ``simulated:SCENE`` or, later, an address."""

    KIND: ClassVar[str] = "camera"

    source: str
    site: str = ""
    fps: float = Field(default=10.0, gt=0.0)
    """The pace at which files and simulated scenes are played; a device is asked for it."""
    loop: bool = False
    """Play a file again from the start when it ends."""
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    """0 keeps the source's own size; a simulated scene is rendered in this one (640×360 by default)."""
    jpeg_quality: int = Field(default=85, ge=1, le=100)
    options: dict[str, str | int | float | bool] = {}
    """Options of the source: a scene's seed, light, rain, noise_sigma, density."""
    gate: GateConfig = GateConfig()
    spool: SpoolConfig = SpoolConfig()
