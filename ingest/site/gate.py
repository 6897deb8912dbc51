"""What of a camera is worth sending: its hours, its rates, what counts as motion, and how that is checked."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from ingest.site.entry import ConfigSection, RelativePoint, Seconds, Share

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_LONGEST_ZONE = 64
"""Twice the longest that there is. A zone is looked for as a module in packages, which goes as deep as its name."""
_EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
        raise ValueError("expected a time zone by its IANA name, such as Europe/Berlin") from None
    return name


def _local(at: time) -> time:
    if at.tzinfo is not None:
        raise ValueError("expected a time of day without an offset: the time zone is a setting of its own")
    return at


TimeZone = Annotated[str, Field(max_length=_LONGEST_ZONE), AfterValidator(_known)]
TimeOfDay = Annotated[time, AfterValidator(_local)]
Mask = Annotated[tuple[RelativePoint, ...], Field(min_length=3)]


class ArmedHours(ConfigSection):
    """From ``start`` to ``end`` by the clock on the wall; an ``end`` not after ``start`` is on the next day.

    ``days`` are those on which it starts.
    """

    days: tuple[Day, ...] = Field(default=_EVERY_DAY, min_length=1)
    start: TimeOfDay
    end: TimeOfDay


class GateConfig(ConfigSection):
    """What is worth sending. A rate of 0 is no limit; ``motion`` withholds frames in which nothing moves."""

    max_fps: float = Field(default=12.5, ge=0.0)
    """So many frames a second are looked at; the pixels of the others are not even asked for.

    Every second one of a usual camera: what a detector finds in that is 0.93 of what it finds in every frame where
    traffic is dense (``benchmarks/gate.py``), and no tracker here needs more.
    """
    open_fps: float = Field(default=5.0, ge=0.0)
    """So many of these are sent while the gate is open, and at once those in which something has moved on."""
    motion: bool = True
    min_area: Share = 0.0005
    """Smallest moving region, as a share of the picture."""
    min_change: Share = 0.15
    """Something has moved on when this share of it covers new ground since the last frame that was sent."""
    masks: tuple[Mask, ...] = ()
    """Polygons in which motion does not count: a tree, a road behind the fence, a burnt-in clock."""
    hold_s: Seconds = 1.0
    """How long the gate stays open after the last motion."""
    pre_roll_s: float = Field(default=0.5, ge=0.0, le=3.0)
    """What came before the motion by no more than this is sent too. It has to be young enough for the live lane."""
    keep_alive_s: Seconds = 10.0
    """A still scene is sent this often all the same; 0 for never."""
    sample: Share = 0.01
    """Of the frames in which nothing moved, the share that is sent all the same, so that misses can be counted."""
    armed: tuple[ArmedHours, ...] = ()
    """Outside these hours nothing is sent; empty for always armed."""
    time_zone: TimeZone | None = None
    """Of the hours; None for the site's."""
