"""Measures: the counts and measured values of a camera in one minute."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ingest.contract.records.base import Count, Id, Many, Name, Record, SmallMap

Numbers = Annotated[dict[str, float], SmallMap]
Histogram = Annotated[dict[str, Count], SmallMap]
"""Number of values in each bin, by the bin's lower bound as a decimal number."""


MAX_LANES = 8
"""Maximum number of lanes in one record. Only the two lanes ``live`` and ``late`` are in use."""


class MinuteTally(Record):
    """Sums of one lane over one minute. Sums, peaks and histograms of several tallies can be merged."""

    KIND: ClassVar[str] = "minute-tally"

    sums: Numbers = {}
    peaks: Numbers = {}
    """Largest values, by name. When two tallies are merged, each peak becomes the larger of their two peaks."""
    histograms: Annotated[dict[str, Histogram], SmallMap] = {}
    observed_s: float = Field(default=0.0, ge=0.0)
    """Seconds of the minute in which frames were classified, or the agent saw that nothing moved."""
    closed_by: Many[str] = ()
    """Names of the frames whose arrival completed the sums of this minute. If a restarted process receives such a
    frame again, it recognises the sums by the frame's name and does not add them twice."""


class Measure(Record):
    """The values of one measure in one minute. A record with a higher revision replaces the previous record of the
    same minute.

    ``corrected`` marks a revision that adds late frames, or frames of another run of the capture.
    """

    KIND: ClassVar[str] = "measure"

    id: Id
    name: Name
    type: str
    site: str = ""
    camera: Name
    pipeline: Name
    start_ns: Count
    """Start of the minute in Unix ns, by the camera's clock."""
    length_s: float = 60.0
    revision: Count = 0
    corrected: bool = False
    observed: float = Field(ge=0.0, le=1.0)
    """Share of the minute that was observed. During outages, stalls and overload, a camera is not observed."""
    values: Numbers = {}
    """Values by name, such as ``car.forward`` or ``occupancy.mean``: see ``docs/reference/measures.md``."""
    histograms: Annotated[dict[str, Histogram], SmallMap] = {}
    parts: dict[str, MinuteTally] = Field(default={}, max_length=MAX_LANES)
    """The sums from which ``values`` are computed, by lane (``live`` or ``late``)."""
