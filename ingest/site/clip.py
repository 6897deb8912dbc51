"""Configuration of the clips of alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ingest.contract.records.event import MAX_CLIP_S
from ingest.site.entry import ConfigSection

ClipSeconds = Annotated[float, Field(ge=0.0, le=MAX_CLIP_S)]


class ClipConfig(ConfigSection):
    """The clip that the alerts of a rule get: its length before and after the event. If both are 0, there is no
    clip."""

    before_s: ClipSeconds = 5.0
    after_s: ClipSeconds = 10.0
    boxes: bool = False
    """If true, a second clip has the boxes of the detected objects drawn."""
