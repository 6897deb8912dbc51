"""Find rules that can never fire because of settings in the site file. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ingest.site import CameraConfig, PipelineConfig, SensorConfig, Site, conversion
from ingest.site.entry import RelativePoint
from stream.analyse.rule import CameraRule, PolygonRule
from stream.analyse.tracking.stationary import UNCONFIRMED_S
from stream.analyse.tracking.tracker import CONFIRM_FRAMES, LOST_S
from stream.join.rule import JoinRule
from stream.sense.rule import SensorRule, WindowRule

POLLED = frozenset({"simulated", "host", "modbus"})
"""Kinds of sensors that are polled at ``rate_hz``. Sensors of other kinds send at their own rate."""
_STREAMS = ("rtsp://", "rtsps://")
"""URL schemes of cameras that send at their own frame rate."""
_GRID = 512
"""Side in pixels of the raster on which the lines and polygons of rules are compared with a camera's masks. A mask
narrower than 0.2 % of the picture's side is ignored."""


class SilentRule(NamedTuple):
    """A rule that can never fire, the key whose value prevents the rule from firing, and the reason with a proposed
    correction."""

    rule: str
    key: str
    reason: str


def silent_rules(site: Site, labels: Mapping[str, Collection[str]] | None = None) -> list[SilentRule]:
    """Return the rules of a validated site that can never fire, or that miss a part of their objects.

    ``labels`` maps the name of each model to the model's labels; None if the model repository is unknown. Only
    settings are compared: a rule whose objects never appear before the camera is not reported.
    """
    cameras = {camera.name: camera for camera in site.cameras}
    pipelines = {pipeline.name: pipeline for pipeline in site.pipelines}
    sensors = {sensor.name: sensor for sensor in site.sensors}
    found: list[SilentRule] = []
    for rule in site.rules:
        if isinstance(rule, CameraRule) and rule.camera in cameras and rule.pipeline in pipelines:
            camera, pipeline = cameras[rule.camera], pipelines[rule.pipeline]
            reasons = [*_routing(rule, pipeline, labels or {}), *_places(rule, camera), *_times(rule, camera)]
            if isinstance(rule, JoinRule) and rule.sensor in sensors:
                reasons += _bounds(rule, sensors[rule.sensor])
        elif isinstance(rule, SensorRule) and rule.sensor in sensors:
            reasons = [*_windows(rule, sensors[rule.sensor]), *_bounds(rule, sensors[rule.sensor])]
        else:
            continue
        found += [SilentRule(rule.name, key, reason) for key, reason in reasons]
    return found


def _routing(
    rule: CameraRule, pipeline: PipelineConfig, labels: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, str]]:
    if not pipeline.wants(rule.camera):
        yield (
            "camera",
            f"pipeline {pipeline.name} does not get the frames of {rule.camera}: add it to its cameras",
        )
    if rule.min_score < pipeline.min_score:
        yield (
            "min_score",
            f"{rule.min_score:g} is below the {pipeline.min_score:g} of pipeline {pipeline.name}, which writes no "
            f"detection between them: lower the pipeline's min_score to {rule.min_score:g}",
        )
    yield from _attributes(rule, pipeline, labels)
    known = labels.get(pipeline.model)
    unknown = [label for label in rule.labels if known is not None and label not in known]
    if unknown:
        yield (
            "labels",
            f"model {pipeline.model} has no {', '.join(unknown)}: expected some of {', '.join(sorted(known or ()))}",
        )


def _attributes(
    rule: CameraRule, pipeline: PipelineConfig, labels: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, str]]:
    """Compare the attributes that a rule expects with the attributes that the second-stage models of the rule's
    pipeline give."""
    seconds = {second.name: second for second in pipeline.then}
    for name, wanted in rule.attributes.items():
        second = seconds.get(name)
        if second is None:
            expected = ", ".join(seconds) or "a second model"
            yield "attributes", f"pipeline {pipeline.name} has no attribute {name}: expected {expected} in its then"
            continue
        if second.on and rule.labels and not set(second.on) & set(rule.labels):
            yield (
                "attributes",
                f"{name} is given to {', '.join(second.on)} only, and the rule applies to {', '.join(rule.labels)}",
            )
        known = labels.get(second.model)
        unknown = [label for label in wanted if known is not None and label not in known]
        if unknown:
            expected = ", ".join(sorted(known or ()))
            yield "attributes", f"model {second.model} has no {', '.join(unknown)}: expected some of {expected}"


def _places(rule: CameraRule, camera: CameraConfig) -> Iterator[tuple[str, str]]:
    if not rule.shape:
        return
    key = "polygon" if isinstance(rule, PolygonRule) else "start"
    shape = _drawn([rule.shape])
    if isinstance(rule, PolygonRule) and _area(rule.polygon) == 0.0:
        yield key, "the polygon has no area: its corners lie on one line"
    for masks, name in ((camera.redact.masks, "redact.masks"), (camera.gate.masks, "gate.masks")):
        if masks and (camera.gate.motion or name == "redact.masks") and not (shape & ~_drawn(masks)).any():
            yield key, f"it lies behind {name} of camera {camera.name}: move it, or make the masks smaller"


def _times(rule: CameraRule, camera: CameraConfig) -> Iterator[tuple[str, str]]:
    gate = camera.gate
    limits = {"gate.max_fps": gate.max_fps, "fps": 0.0 if camera.source.startswith(_STREAMS) else camera.fps}
    slow = {key: fps for key, fps in limits.items() if 0.0 < fps < 1.0 / LOST_S}
    for key, fps in slow.items():
        yield (
            "camera",
            f"{key} = {fps:g} of camera {camera.name} gives a frame every {1 / fps:.3g} s, and a track ends after "
            f"{LOST_S:g} s without one: no object is seen {CONFIRM_FRAMES} times. Set at least 1",
        )
    rare = gate.motion and not 0.0 < gate.keep_alive_s < UNCONFIRMED_S
    for key, value in ((key, getattr(rule, key, 0.0)) for key in ("dwell_s", "for_s")):
        if rare and isinstance(rule, PolygonRule) and value > UNCONFIRMED_S:
            yield (
                key,
                f"{value:g} s is longer than an object at rest is followed, {UNCONFIRMED_S:g} s, because camera "
                f"{camera.name} has gate.keep_alive_s = {gate.keep_alive_s:g}: set it to 10",
            )


def _windows(rule: SensorRule, sensor: SensorConfig) -> Iterator[tuple[str, str]]:
    if not isinstance(rule, WindowRule):
        return
    has_rate = sensor.kind in POLLED or "rate_hz" in sensor.model_fields_set
    most = max(1, math.ceil(sensor.rate_hz * rule.window_s - 1e-9))
    if has_rate and most < rule.min_readings:
        yield (
            "min_readings",
            f"{rule.min_readings} is more than the {most} that sensor {sensor.name} sends in a window of "
            f"{rule.window_s:g} s at rate_hz = {sensor.rate_hz:g}: set min_readings = {most}, or window_s = "
            f"{math.ceil(rule.min_readings / sensor.rate_hz):g}",
        )


def _bounds(rule: SensorRule | JoinRule, sensor: SensorConfig) -> Iterator[tuple[str, str]]:
    """Check a threshold against the sensor's range.

    Readings outside of the range are dropped, so the mean of a window is always inside the range.
    """
    above, below = getattr(rule, "above", None), getattr(rule, "below", None)
    scale, offset = conversion(sensor.unit, sensor.convert_to) if sensor.convert_to else (1.0, 0.0)
    low, high = sensor.low * scale + offset, sensor.high * scale + offset
    if above is not None and above >= high:
        yield "above", f"{above:g} is not below high = {high:g} of sensor {sensor.name}: correct one of them"
    if below is not None and below <= low:
        yield "below", f"{below:g} is not above low = {low:g} of sensor {sensor.name}: correct one of them"


def _drawn(shapes: Collection[tuple[RelativePoint, ...]]) -> npt.NDArray[np.bool_]:
    """Return a raster in which the pixels of lines and polygons are True. The pixels of a polygon include its
    edge."""
    canvas = np.zeros((_GRID, _GRID), np.uint8)
    for shape in shapes:
        corners = np.rint(np.array(shape, np.float64) * (_GRID - 1)).astype(np.int32)
        if len(corners) == 2:
            cv2.line(canvas, corners[0].tolist(), corners[1].tolist(), 1)
        else:
            cv2.fillPoly(canvas, [corners], 1)
    return canvas.astype(bool)


def _area(polygon: tuple[RelativePoint, ...]) -> float:
    pairs = zip(polygon, (*polygon[1:], polygon[0]), strict=True)
    return round(abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2, 9)
