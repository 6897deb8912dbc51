"""Configuration of the motion gate: armed hours, frame rates, motion thresholds and the random sample."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from ingest.site.entry import ConfigSection, Polygon, Seconds, Share

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_LONGEST_ZONE = 64
"""Maximum length of a time zone's name: twice the longest existing name. Python looks up each part of the name as a
package, so a longer name would be slow."""
_EVERY_DAY: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
        raise ValueError("expected a time zone by its IANA name, such as Europe/Berlin") from None
    return name


def _local(at: time) -> time:
    if at.tzinfo is not None:
        raise ValueError("expected a time of day without an offset: set time_zone instead")
    return at


TimeZone = Annotated[str, Field(max_length=_LONGEST_ZONE), AfterValidator(_known)]
TimeOfDay = Annotated[time, AfterValidator(_local)]


class ArmedHours(ConfigSection):
    """Hours from ``start`` to ``end`` in local time. An ``end`` that is not after ``start`` is on the next day.

    ``days`` are the days on which the hours start.
    """

    days: tuple[Day, ...] = Field(default=_EVERY_DAY, min_length=1)
    start: TimeOfDay
    end: TimeOfDay


class GateConfig(ConfigSection):
    """Settings of the gate, which withholds frames without news. A rate of 0 means no limit."""

    max_fps: float = Field(default=12.5, ge=0.0)
    """Frames per second that the gate inspects. The agent does not read the pixels of the other frames.

    The default is every second frame of a camera with 25 frames per second. At this rate, a detector finds 93 % of
    the objects in dense traffic that it finds at the full rate (``benchmarks/gate.py``). The trackers of this project
    need no higher rate.
    """
    open_fps: float = Field(default=5.0, ge=0.0)
    """Frames per second that are sent while the gate is open. A frame in which an object moved by ``min_change`` is
    sent at once."""
    motion: bool = True
    """Withhold frames without motion."""
    min_area: Share = 0.0005
    """Area of the smallest moving region, as a share of the picture."""
    min_change: Share = 0.15
    """An object counts as moved when this share of its area is outside its area in the last frame sent."""
    masks: tuple[Polygon, ...] = ()
    """Polygons in which motion is ignored: a tree, a road behind the fence, a burnt-in clock."""
    hold_s: Seconds = 1.0
    """Time for which the gate stays open after the last motion."""
    pre_roll_s: float = Field(default=0.5, ge=0.0, le=3.0)
    """Length of the pre-roll in seconds: frames of this time before a motion are also sent. The pre-roll must be
    shorter than ``spool.late_after_s``, so that these frames still go to the live lane."""
    keep_alive_s: Seconds = 10.0
    """Interval at which a frame of a still scene is sent; 0 for never."""
    sample: Share = 0.01
    """Share of the frames without motion that is sent anyway, to estimate how often the gate misses an object."""
    armed: tuple[ArmedHours, ...] = ()
    """Hours in which frames are sent; empty for always."""
    time_zone: TimeZone | None = None
    """Time zone of the armed hours; None for the site's time zone."""
