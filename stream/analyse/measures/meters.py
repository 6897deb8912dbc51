"""Meters, which collect the values of each type of measure from the tracked frames of a camera. Pure."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

from ingest.contract.records.measure import MinuteTally
from ingest.site.measure import MeasureConfig
from stream.analyse.lasting import END_FRAMES
from stream.analyse.measures.minute import ClosedMinute, MinuteClock
from stream.analyse.motion import SpeedMeter, on_ground
from stream.analyse.rule import Scene, SceneTrack
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.traffic.turning import TurningRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.tracking.ends import EndReason

DWELL_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Lower bounds of the histogram bins for dwell times, in seconds."""
SPEEDS_KM_H = tuple(float(bound) for bound in range(0, 200, 10))
"""Lower bounds of the histogram bins for speeds, in km/h."""
SPEED_WINDOW_S = 1.0
LEVELS_OF_SERVICE = (7.0, 11.0, 16.0, 22.0, 28.0)
"""Highest densities of the levels of service A to E of a motorway, in vehicles per kilometre and lane. A motorway
with a higher density than level E has level F. The Highway Capacity Manual gives the densities per mile: 11, 18, 26,
35 and 45."""


class MeasureMeter(abc.ABC):
    """Collects one measure of a camera during one epoch (capture run)."""

    def __init__(self, config: MeasureConfig) -> None:
        self.config = config
        self.clock = MinuteClock(config.name)

    def step(self, scene: Scene) -> list[ClosedMinute]:
        """Collect the values of the next frame's tracks, and return the minutes that this frame completes."""
        closed = self.clock.advance(scene, self._elapsed)
        self._collect(scene)
        return closed

    def catch_up(self, scene: Scene) -> None:
        """Collect the values of an earlier frame of a track that waited until now, in the current minute. ``scene``
        has only this track."""
        self._collect_tracks(scene)

    @abc.abstractmethod
    def forget(self, track: str, reason: EndReason = "left") -> None:
        """Drop the state of a track that has ended for ``reason``."""

    def _elapsed(self, observed_s: float) -> None:  # noqa: B027  (most meters need no time)
        """Note that the previous frame stands for ``observed_s`` seconds of the current minute."""

    def _collect(self, scene: Scene) -> None:
        """Add the tracks of the next frame to the sums of the current minute."""
        self._collect_tracks(scene)

    @abc.abstractmethod
    def _collect_tracks(self, scene: Scene) -> None:
        """Add values that depend on single tracks to the sums of the current minute."""


class LineMeter(MeasureMeter):
    """Counts crossings by label and direction. With a ground plane, the meter also measures the speed at the line."""

    def __init__(self, config: MeasureConfig, width: int, height: int) -> None:
        super().__init__(config)
        rule = LineRule(start=config.start, end=config.end, anchor=config.anchor, **_common(config))
        self._watch = rule.watch(width, height)
        self._speeds = SpeedMeter(SPEED_WINDOW_S, on_ground)
        self._last_ns: dict[str, int] = {}

    def forget(self, track: str, reason: EndReason = "left") -> None:
        """Drop the state of a track that has ended."""
        self._watch.forget(track)
        self._speeds.forget(track)

    def _collect_tracks(self, scene: Scene) -> None:
        sums = self.clock.sums
        for track in scene.tracks:
            self._speeds.note(track, scene)
        for happening, _ in self._watch.observe(scene, ()):
            if happening.track is None:
                continue
            label, direction = happening.track.label, str(happening.details["direction"])
            sums.add(f"{label}.{direction}")
            if direction in self._last_ns:
                sums.add(f"headway_s.{direction}", abs(scene.at_ns - self._last_ns[direction]) / 1e9)
                sums.add(f"headways.{direction}")
            self._last_ns[direction] = max(scene.at_ns, self._last_ns.get(direction, 0))
            if speed := self._speeds.speed(happening.track.name):
                sums.add(f"speed_km_h.{direction}", speed.km_h)
                sums.add(f"speeds.{direction}")
                sums.sort_in(f"speed_km_h.{direction}", speed.km_h, SPEEDS_KM_H)


class FlowMeter(MeasureMeter):
    """Counts movements by origin, destination and label."""

    def __init__(self, config: MeasureConfig, width: int, height: int) -> None:
        super().__init__(config)
        self._watch = TurningRule(lines=config.lines, **_common(config)).watch(width, height)

    def forget(self, track: str, reason: EndReason = "left") -> None:
        """Drop the state of a track that has ended."""
        self._watch.forget(track)

    def _collect_tracks(self, scene: Scene) -> None:
        for happening, _ in self._watch.observe(scene, ()):
            if happening.track:
                origin, destination = happening.details["origin"], happening.details["destination"]
                self.clock.sums.add(f"{happening.track.label}.{origin}-{destination}")


@dataclass
class _Stay:
    label: str
    since_ns: int
    seen_ns: int
    outside: int = 0
    speed_km_h: float = 0.0
    """Sum of the object's speeds in all frames of the stay."""
    speeds: int = 0


class ZoneMeter(MeasureMeter):
    """Measures the objects inside a polygon: their mean and largest number, their entries, and how long they stay."""

    def __init__(self, config: MeasureConfig, width: int, height: int) -> None:
        super().__init__(config)
        rule = ZoneRule(polygon=config.polygon, **_common(config))
        self._rule, self._watch = rule, rule.watch(width, height)
        self._speeds = SpeedMeter(SPEED_WINDOW_S, on_ground)
        self._stays: dict[str, _Stay] = {}
        self._present = 0

    def forget(self, track: str, reason: EndReason = "left") -> None:
        """End the stay of a track that has ended. The length of a stay in the polygon is unknown if the tracker lost
        the object inside."""
        self._speeds.forget(track)
        stay = self._stays.pop(track, None)
        if stay and reason == "lost":
            self.clock.sums.add(f"{stay.label}.lost")
        elif stay:
            self._end(stay)

    def _collect(self, scene: Scene) -> None:
        present = sum([self._update_stay(track, scene) for track in scene.tracks])
        present += sum(self._is_inside(track) for track in scene.waiting)
        self.clock.sums.peak("occupancy.max", float(present))
        self._present = present

    def _collect_tracks(self, scene: Scene) -> None:
        for track in scene.tracks:
            self._update_stay(track, scene)

    def _update_stay(self, track: SceneTrack, scene: Scene) -> bool:
        """Begin, continue or end the stay of a track, and return whether the track is inside the polygon."""
        self._speeds.note(track, scene)
        if self._is_inside(track):
            if stay := self._stays.get(track.name):
                stay.seen_ns, stay.outside, stay.label = scene.at_ns, 0, track.label
            else:
                stay = self._stays[track.name] = _Stay(track.label, scene.at_ns, scene.at_ns)
                self.clock.sums.add(f"{track.label}.entries")
            if speed := self._speeds.speed(track.name):
                stay.speed_km_h += speed.km_h
                stay.speeds += 1
            return True
        if stay := self._stays.get(track.name):
            stay.outside += 1
            if stay.outside >= END_FRAMES:
                self._end(self._stays.pop(track.name))
        return False

    def _elapsed(self, observed_s: float) -> None:
        self.clock.sums.add("occupied_s", observed_s * self._present)
        if observed_s > 0.0:
            self.clock.sums.peak("occupancy.max", float(self._present))

    def _is_inside(self, track: SceneTrack) -> bool:
        """Return whether a track is inside the polygon and the measure applies to the track. A low score does not end
        the stay of an object in the polygon."""
        counted = track._replace(score=1.0) if track.name in self._stays else track
        return self._rule.applies_to(counted) and self._watch.covers(track.box.centre)

    def _end(self, stay: _Stay) -> None:
        sums, dwell_s = self.clock.sums, (stay.seen_ns - stay.since_ns) / 1e9
        sums.add(f"{stay.label}.exits")
        sums.add("dwell_s", dwell_s)
        sums.add("dwells")
        sums.sort_in("dwell_s", dwell_s, DWELL_S)
        if stay.speeds:
            mean = stay.speed_km_h / stay.speeds
            sums.add("speed_km_h", mean)
            sums.add("speeds")
            sums.sort_in("speed_km_h", mean, SPEEDS_KM_H)


def make_meter(config: MeasureConfig, width: int, height: int) -> MeasureMeter:
    """Return the meter of a measure for pictures of ``width`` × ``height`` pixels."""
    match config.type:
        case "line":
            return LineMeter(config, width, height)
        case "flow":
            return FlowMeter(config, width, height)
        case "zone":
            return ZoneMeter(config, width, height)


def values(tally: MinuteTally, config: MeasureConfig) -> dict[str, float]:
    """Return the values of a measure: its counts, and the means that follow from its sums.

    A sum ``x`` is divided by the count of its values, such as ``dwell_s`` by ``dwells``, and returned as ``x.mean``.
    """
    sums = dict(tally.sums)
    found: dict[str, float] = {}
    for total, count in (("dwell_s", "dwells"), ("speed_km_h", "speeds"), ("headway_s", "headways")):
        for key in [key for key in sums if key.split(".")[0] == total]:
            number = sums.pop(count + key[len(total) :], 0.0)
            if number:  # a label may have the name of a sum
                found[f"{key}.mean"] = round(sums.pop(key) / number, 3)
    occupied_s = sums.pop("occupied_s", None)
    if occupied_s is not None and tally.observed_s > 0.0:
        mean = found["occupancy.mean"] = round(occupied_s / tally.observed_s, 3)
        if config.length_m:
            density = found["density.per_km_lane"] = round(1000.0 * mean / (config.length_m * config.lanes), 2)
            found["level_of_service"] = 1.0 + sum(density > bound for bound in LEVELS_OF_SERVICE)
    return {**sums, **tally.peaks, **found}


def _common(config: MeasureConfig) -> dict[str, Any]:
    keys = ("name", "camera", "pipeline", "labels", "min_score")
    return {key: getattr(config, key) for key in keys}
