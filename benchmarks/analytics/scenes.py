"""Counts, dwell times, speeds and levels of service of simulated scenes, against the truth of each scene.

Two sources of boxes: a detector of the whole frame whose faults grow with bad weather, and the moving regions of the
agent's gate with the shipped classifier ``regions``. The detector's faults are simulated: its boxes are drawn at
random around the true boxes, because no public detector recognises the drawn vehicles. Two objects that touch in the
picture are one moving region.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from benchmarks.analytics.chain import Analysed, analysed, captured, classified
from benchmarks.analytics.detector import inexact, result_of
from benchmarks.analytics.identities import IdentityTally
from deploy.local.demo.run import SHIPPED_MODELS
from deploy.local.demo.site import pipeline_for
from deploy.local.demo.truth import CrossingScore, LineCrossing, score
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.simulated import COUNTING_LINES, KINDS, SceneConfig
from edge_agent.sources.simulated.actors import SIZES_PX, Actor, crossings_between, present
from edge_agent.sources.simulated.config import BASE_HEIGHT_PX, BASE_WIDTH_PX
from edge_agent.sources.simulated.source import SimulatedSource
from engines.repository.store import Repository
from ingest.contract.records import Box, Detection, Event, Result
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, MeasureConfig
from ingest.site.ground import GroundConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.measures.meters import LEVELS_OF_SERVICE
from stream.analyse.rules.line import LineRule
from stream.analyse.tracking.tracker import ByteTracker, Tracker

METRES_PER_PX = 0.1
"""Scale of the scenes: the picture shows 64 m of road. At this scale, a car of 92 px is 9 m long, which is of no
importance."""
MIDDLE = (0.25, 0.0), (0.75, 0.0), (0.75, 1.0), (0.25, 1.0)
"""The middle half of the picture, as shares of width and height: the zone of the dwell times and densities."""
_ZONE_M = 0.5 * BASE_WIDTH_PX * METRES_PER_PX
_LANES = 4
MIN_VISIBLE = 0.25
"""Minimum visible share of an object that counts as present, as in the simulated camera's ground truth."""
_STEP_S = 0.01
"""Time step in seconds in which the truth is sampled."""
RUN_S, MINUTE_S = 62.0, 60.0
"""Length of a run, and of the minute that is compared. The first frame after the minute completes its measures. No
object is in the picture when the minute ends, because traffic comes in bursts."""


class Faults(NamedTuple):
    """Faults of a detector: share of objects that it misses, standard deviation of an edge in px, and false boxes per
    frame."""

    missed: float
    edge_px: float
    false: float


FAULTS = {
    ("day", False): Faults(0.03, 1.0, 0.005),
    ("day", True): Faults(0.06, 1.5, 0.01),
    ("night", False): Faults(0.08, 2.0, 0.01),
    ("night", True): Faults(0.12, 3.0, 0.02),
}
"""Faults of the simulated detector, by light and rain. YOLOX-nano misses about as many objects on ``highway.avi`` by
day."""


@dataclass(frozen=True)
class SceneRun:
    """One scene: its settings, the true objects ``(id, label, box)`` by frame, and the results for its frames."""

    scene: SceneConfig
    truth: dict[int, list[tuple[int, str, Box]]]
    results: list[Result]

    @property
    def name(self) -> str:
        """Kind, light, weather and density in words."""
        weather = "rain" if self.scene.rain else "dry"
        return f"{self.scene.kind}, {self.scene.light}, {weather}, density {self.scene.density:g}"

    @property
    def site(self) -> Config:
        """The entries of the site: a counting line, and measures of the line and of the middle zone."""
        start, end = COUNTING_LINES[self.scene.kind]
        common: dict[str, Any] = {"camera": "sim", "pipeline": "regions"}
        entries = (
            _camera(self.scene),
            _pipeline(),
            LineRule(name="line", start=start, end=end, **common),
            MeasureConfig(name="line", type="line", start=start, end=end, **common),
            MeasureConfig(name="zone", type="zone", polygon=MIDDLE, lanes=_LANES, length_m=_ZONE_M, **common),
        )
        return Config({entry.key: entry for entry in entries})

    @cached_property
    def output(self) -> Analysed:
        """The events and measures of the scene."""
        return asyncio.run(analysed(self.results, self.site))

    def figures(self) -> dict[str, Any]:
        """Return the figures of the scene, each as measured and as true."""
        counted = _crossings(self.scene, self.output.events)
        found, false = counted.found, counted.false
        tally = identities(self)
        return {
            "scene": self.name,
            "crossings": counted.line_crossings,
            "recall": round(found / max(counted.line_crossings, 1), 4),
            "precision": round(found / max(found + false, 1), 4),
            "identity_switches": tally.switches,
            "objects": len(tally.objects),
            **_dwell(self),
            **_speed(self),
            **(_service(self) if self.scene.kind == "road" else {}),
        }


def scenes(density: Sequence[float] = (0.5, 1.0, 2.0), seed: int = 11) -> Iterator[SceneConfig]:
    """Yield the scenes of each kind by day and night, dry and in rain, with each density."""
    for kind, light, rain, each in itertools.product(KINDS, ("day", "night"), (False, True), density):
        yield SceneConfig(kind, seed=seed, light=light, rain=rain, density=each)  # type: ignore[arg-type]


def detected(scene: SceneConfig) -> SceneRun:
    """Return a scene with the results of a detector that has the faults of the scene's weather."""
    rng = np.random.default_rng([scene.seed, 5])
    faults, truth, results = FAULTS[scene.light, scene.rain], dict[int, list[tuple[int, str, Box]]](), list[Result]()
    for seq in range(round(RUN_S * scene.fps)):
        truth[seq] = objects_at(scene, seq / scene.fps)
        found = [
            _detection(inexact(box, faults.edge_px, rng), label, rng)
            for _, label, box in truth[seq]
            if rng.random() >= faults.missed
        ]
        if rng.random() < faults.false:
            x, y = rng.uniform(0.0, BASE_WIDTH_PX - 60), rng.uniform(0.0, BASE_HEIGHT_PX - 60)
            found.append(_detection(Box(x, y, x + 50.0, y + 50.0), "car", rng))
        results.append(_result(scene, seq, found))
    return SceneRun(scene, truth, results)


def objects_at(scene: SceneConfig, at_s: float) -> list[tuple[int, str, Box]]:
    """Return the visible objects at a time, as the ground truth of a camera lists them."""
    found = []
    for actor in present(scene, at_s):
        (x, y), (width, height) = actor.centre(at_s), SIZES_PX[actor.label]
        whole = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        box = whole.clipped(BASE_WIDTH_PX, BASE_HEIGHT_PX)
        if box.area >= MIN_VISIBLE * whole.area:
            found.append((actor.id, actor.label, box))
    return found


def moving(scene: SceneConfig) -> SceneRun:
    """Return a scene with the results of the chain: gate, prepare, and the shipped classifier of moving regions."""
    clock = ManualClock(started_ns=0)
    pace = FramePacer(scene.fps, clock, wait=clock.advance)
    source = SimulatedSource(scene, clock, frames=round(RUN_S * scene.fps), pace=pace)
    frames = captured(_camera(scene), source, clock)
    run = SceneRun(scene, {frame.seq: objects_at(scene, frame.seq / scene.fps) for frame in frames}, [])
    run.results.extend(asyncio.run(classified(frames, run.site, SHIPPED_MODELS)))
    if run.results[-1].captured_ns < MINUTE_S * 1e9:
        run.results.append(_still(scene, run.results[-1].seq))
    return run


def _still(scene: SceneConfig, before: int) -> Result:
    """Return the result of the last frame of a run in which nothing moved after the frame ``before``. A gate sends
    such a frame to keep the connection alive, and the frame completes the minute."""
    last = round(RUN_S * scene.fps) - 1
    withheld = {"still": last - before - 1}
    return _result(scene, last, ()).model_copy(update={"outcome": "empty", "motion": (), "withheld": withheld})


def _detection(box: Box, label: str, rng: np.random.Generator) -> Detection:
    return Detection(box=box, label=label, class_id=1, score=float(rng.uniform(0.4, 0.95)))


def _result(scene: SceneConfig, seq: int, found: Sequence[Detection]) -> Result:
    return result_of("sim", "regions", seq, scene.fps, (BASE_WIDTH_PX, BASE_HEIGHT_PX), found)


def identities(run: SceneRun, make_tracker: Callable[[float], Tracker] = ByteTracker) -> IdentityTally:
    """Return the number of identity switches in the tracks of a simulated scene."""
    tally = IdentityTally()
    analyser = Analyser(run.site.of(LineRule), _camera(run.scene), make_tracker)
    for result in run.results:
        analyser.step(result)
        if analyser.scene is not None and result.outcome == "classified":
            objects = [(number, box) for number, _, box in run.truth[result.seq]]
            tally.add(objects, [(track.name, track.box) for track in analyser.scene.tracks])
    return tally


def _camera(scene: SceneConfig) -> CameraConfig:
    width_m, length_m = BASE_WIDTH_PX * METRES_PER_PX, BASE_HEIGHT_PX * METRES_PER_PX
    corners = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))
    ground = GroundConfig(corners=corners, width_m=width_m, length_m=length_m)
    return CameraConfig(name="sim", source=f"simulated:{scene.kind}", fps=scene.fps, ground=ground)


def _pipeline() -> Any:
    return pipeline_for(Repository(SHIPPED_MODELS).open("regions").manifest, regions=True)


def _crossings(scene: SceneConfig, events: Sequence[Event]) -> CrossingScore:
    truth = crossings_between(scene, 0.0, MINUTE_S)
    seen = [
        LineCrossing("sim", str(e.data.details["direction"]), round(e.data.seq / scene.fps * 1e9), e.data.label)
        for e in events
    ]
    true = [LineCrossing("sim", one.direction, round(one.at_s * 1e9), one.label) for one in truth]
    return score(true, [one for one in seen if one.at_ns < MINUTE_S * 1e9])


def _actors(scene: SceneConfig) -> list[Actor]:
    """Return the objects that are present in the compared minute of the scene."""
    seconds = range(int(MINUTE_S))
    return list({actor.id: actor for second in seconds for actor in present(scene, float(second))}.values())


def _dwell(run: SceneRun) -> dict[str, Any]:
    """Return the error of the mean time that an object stays in the middle zone, in seconds."""
    left, right = MIDDLE[0][0] * BASE_WIDTH_PX, MIDDLE[1][0] * BASE_WIDTH_PX
    true = [abs(actor.crosses_s(right) - actor.crosses_s(left)) for actor in _actors(run.scene)]
    measured = _minute(run, "zone")
    visits = sum(value for key, value in measured.items() if key.endswith(".exits"))
    error_s = abs(measured.get("dwell_s.mean", 0.0) - sum(true) / len(true))
    return {"visits": int(visits), "true_visits": len(true), "dwell_error_s": round(error_s, 3)}


def _speed(run: SceneRun) -> dict[str, Any]:
    """Return the error of the mean speed at the counting line, in percent: the larger error of the two directions."""
    line_x, errors = COUNTING_LINES[run.scene.kind][0][0] * BASE_WIDTH_PX, [0.0]
    measured = _minute(run, "line")
    for direction in ("forward", "backward"):
        true = [
            _km_h(actor, actor.crosses_s(line_x))
            for actor in _actors(run.scene)
            if actor.rightwards == (direction == "forward")
        ]
        if true:
            errors.append(abs(measured.get(f"speed_km_h.{direction}.mean", 0.0) * len(true) / sum(true) - 1.0))
    return {"speed_error_percent": round(100 * max(errors), 2)}


def _km_h(actor: Actor, at_s: float) -> float:
    (ax, ay), (bx, by) = actor.centre(at_s - _STEP_S), actor.centre(at_s + _STEP_S)
    return 3.6 * METRES_PER_PX * math.hypot(bx - ax, by - ay) / (2 * _STEP_S)


def _service(run: SceneRun) -> dict[str, Any]:
    """Return the density of the minute in vehicles per kilometre and lane, and its level of service."""
    left, right = MIDDLE[0][0] * BASE_WIDTH_PX, MIDDLE[1][0] * BASE_WIDTH_PX
    stays_s = sum(abs(actor.crosses_s(right) - actor.crosses_s(left)) for actor in _actors(run.scene))
    true = 1000.0 * stays_s / MINUTE_S / (_ZONE_M * _LANES)
    measured = _minute(run, "zone")
    return {
        "density": measured.get("density.per_km_lane"),
        "true_density": round(true, 2),
        "level_of_service": "ABCDEF"[int(measured.get("level_of_service", 1.0)) - 1],
        "true_level_of_service": "ABCDEF"[sum(true > bound for bound in LEVELS_OF_SERVICE)],
    }


def _minute(run: SceneRun, name: str) -> Mapping[str, float]:
    """Return the values of a measure in the compared minute."""
    return next(one.values for one in run.output.measures if one.name == name and one.start_ns == 0)
