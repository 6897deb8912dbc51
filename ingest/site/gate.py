"""Configuration of the motion gate: armed hours, frame rates, motion thresholds and the random sample."""

from __future__ import annotations

from pydantic import Field

from ingest.site.entry import ConfigSection, Polygon, Seconds, Share
from ingest.site.hours import TimeZone, WeeklyHours


class GateConfig(ConfigSection):
    """Settings of the motion gate, which withholds frames without motion. A frame rate of 0 means no limit."""

    max_fps: float = Field(default=12.5, ge=0.0)
    """Maximum number of frames per second that the gate inspects. The agent does not read the pixels of frames that
    the gate does not inspect.

    With the default of 12.5, the gate inspects every second frame of a camera with 25 frames per second. In dense
    traffic, a detector that gets 12.5 frames per second finds 93 % of the objects that it finds at 25
    (``benchmarks/gate.py``). The trackers of this project need no more than 12.5 frames per second.
    """
    open_fps: float = Field(default=5.0, ge=0.0)
    """Frames per second that are sent while the gate is open, that is, during motion. A frame in which an object
    moved by at least ``min_change`` is sent at once."""
    motion: bool = True
    """If true, frames without motion are not sent."""
    min_area: Share = 0.0005
    """Minimum area of a moving region that counts as motion, as a share of the picture's area."""
    min_change: Share = 0.15
    """An object counts as moved if at least this share of its area lies outside of the area that it covered in the
    last frame sent."""
    masks: tuple[Polygon, ...] = ()
    """Polygons in which motion is ignored, such as a tree, a road behind the fence, or a clock that the camera draws
    into the picture."""
    hold_s: Seconds = 1.0
    """Time in seconds for which the gate stays open after the last motion, so that frames are still sent."""
    pre_roll_s: float = Field(default=0.5, ge=0.0, le=3.0)
    """Length of the pre-roll in seconds. The pre-roll consists of the frames captured directly before a motion, which
    are also sent. The pre-roll must be shorter than ``spool.late_after_s``, so that the frames of the pre-roll are
    still sent as live frames."""
    keep_alive_s: Seconds = 10.0
    """Interval in seconds at which a frame of a still scene is sent; 0 for never."""
    sample: Share = 0.01
    """Share of the frames without motion that is sent nevertheless. The randomly chosen frames show how often the
    gate misses an object."""
    armed: tuple[WeeklyHours, ...] = ()
    """Hours in which frames are sent; empty for always."""
    time_zone: TimeZone | None = None
    """Time zone of the armed hours; None for the site's time zone."""
