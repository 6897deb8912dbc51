"""Line crossings in the clips of ``shared/data``, compared with counts by eye.

Each clip has a site file, as a user would write it, and a file with the crossings that a person has counted.
"""

from __future__ import annotations

import asyncio
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.analytics.chain import Analysed, analysed, captured, classified, clip_source
from deploy.local.demo.truth import LineCrossing, score
from ingest.contract.records import Event
from ingest.runtime.clock import ManualClock
from ingest.site import Site
from ingest.site.file import load
from ingest.site.topic.view import Config
from stream.rules import validated_site

CLIPS = ("cars", "highway", "people")
TOLERANCE_S = 2.0
"""Maximum time in seconds between a crossing and its event. Before that, the model may miss an object at the line for
up to 1.5 s, and two more frames past the line complete the crossing."""
_FOLDER = Path(__file__).parent / "clips"


@dataclass(frozen=True)
class CountedClip:
    """A clip with its site and the crossings that were counted by eye."""

    name: str
    site: Site
    crossings: tuple[LineCrossing, ...]

    @classmethod
    def of(cls, name: str) -> CountedClip:
        """Load the clip called ``name``, one of ``CLIPS``."""
        file = _FOLDER / f"{name}.toml"
        truth = tomllib.loads((_FOLDER / f"{name}.truth.toml").read_text(encoding="utf-8"))
        crossings = (LineCrossing(name, one["direction"], round(one["at_s"] * 1e9)) for one in truth["crossings"])
        return cls(name, validated_site(load(file), file), tuple(crossings))

    @property
    def config(self) -> Config:
        """The configuration entries of the clip's site."""
        return Config({entry.key: entry for entry in self.site.entries()})

    def analyse(self, data: Path, models: Path, from_s: float = 0.0, to_s: float = math.inf) -> Analysed:
        """Run a part of the clip through the motion gate, ``prepare``, the model and ``analyse``."""
        (camera,) = self.site.cameras
        clock = ManualClock(started_ns=0)
        sent = captured(camera, clip_source(camera, data / camera.source, clock), clock)
        frames = [frame for frame in sent if from_s <= frame.captured_ns / 1e9 < to_s]
        found = asyncio.run(classified(frames, self.config, models))
        return asyncio.run(analysed(found, self.config))

    def compared(self, events: Sequence[Event], from_s: float = 0.0, to_s: float = math.inf) -> dict[str, Any]:
        """Compare the events with the count by eye. Return the crossings by direction, as counted by eye and as
        reported in events, and the numbers of missed crossings and false events."""
        truth = [one for one in self.crossings if from_s <= one.at_ns / 1e9 < to_s]
        (camera,) = self.site.cameras
        seen = [
            LineCrossing(self.name, str(one.data.details["direction"]), round(one.data.seq / camera.fps * 1e9))
            for one in events
        ]
        found = score(truth, seen, round(TOLERANCE_S * 1e9))
        return {
            "by_eye": _by_direction(truth),
            "counted": _by_direction(seen),
            "missed": found.line_crossings - found.found,
            "false": found.false,
        }


def _by_direction(crossings: Sequence[LineCrossing]) -> dict[str, int]:
    ways = [one.direction for one in crossings]
    return {way: ways.count(way) for way in sorted(set(ways))}
