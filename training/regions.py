"""Labelled regions of the simulated scenes, cut exactly as they are at run time.

Frames are rendered in order, compressed as the agent does, and looked at by the agent's own motion detector; its
boxes are cut out by prepare's own code. A region gets the label of the object that it shows, or background; what has
no right answer, two objects in one region or the tip of one at the rim, is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import KINDS, Rendered, Scene, SceneConfig
from edge_agent.sources.simulated.actors import SIZES_PX, present
from edge_agent.sources.simulated.config import LIGHTS, Light, SceneKind
from engines.decoders import BACKGROUND
from ingest.contract.records import Box
from ingest.site import GateConfig, PipelineConfig
from stream.prepare.regions import draw, windows
from training.data import Regions

LABELS = (BACKGROUND, "car", "truck", "bus", "motorcycle", "person", "part_good", "part_faulty")
SIZE_PX = 64
_FRAMES = 110
"""The busy part of a scene's first cycle, at ten frames a second."""
_CUT_EVERY = 4
"""Frames between two that are cut: an object is seen about fifteen times on its way. The detector sees them all."""
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
_SCENES: tuple[tuple[SceneKind, Light, bool], ...] = tuple(itertools.product(KINDS, LIGHTS, (False, True)))
SCENES_PER_SEED = len(_SCENES)
_SAME = 0.35
"""Intersection over union from which a region shows an object."""
_NOTHING = 0.05
"""A region of which no more is covered by anything shows the background."""
_CROWDED = 0.5
"""A region that shows so much of a second object has no one label."""

PIPELINE = PipelineConfig(
    name="regions", model="regions", width=SIZE_PX, height=SIZE_PX, regions="motion", max_regions=16
)


def rendered_regions(seeds: Sequence[int]) -> Iterator[Regions]:
    """Yield the regions of one scene after the other: every kind, light and weather for every seed.

    Each scene has traffic of its own: no two of them share a vehicle, a person or a part.
    """
    for seed in seeds:
        for number, (kind, light, rain) in enumerate(_SCENES):
            config = SceneConfig(
                kind,
                seed=seed * len(_SCENES) + number,
                light=light,
                rain=rain,
                noise_sigma=3.0 + seed % 5,
            )
            yield _scene(config)


def _scene(config: SceneConfig) -> Regions:
    scene, detector = Scene(config), MotionDetector(GateConfig().min_area)
    size, rng = (config.width, config.height), np.random.default_rng([config.seed, 5])
    images: list[npt.NDArray[np.uint8]] = []
    classes: list[int] = []
    for index in range(_FRAMES):
        frame = scene.render(index)
        moving = detector.boxes(frame.image)
        if index % _CUT_EVERY or index < _CUT_EVERY:
            continue
        found = windows(PIPELINE, size, moving, PIPELINE.max_regions) if moving else ()
        shaken = windows(PIPELINE, size, _shaken(frame, rng), PIPELINE.max_regions)
        seen = cv2.imdecode(cv2.imencode(".jpg", frame.image, _QUALITY)[1], cv2.IMREAD_COLOR)
        actors = _outlines(config, index / config.fps)
        for window in (*found, *shaken):
            label = _label(window.region.box, frame, actors)
            if label is not None:
                images.append(draw(PIPELINE, np.asarray(seen, np.uint8), window))
                classes.append(label)
    return Regions(np.array(images, np.uint8).reshape(-1, SIZE_PX, SIZE_PX, 3), np.array(classes, np.int64))


def _shaken(frame: Rendered, rng: np.random.Generator) -> list[Box]:
    """The true boxes, moved and scaled a little, and one box of nothing in particular."""
    boxes = []
    for thing in frame.objects:
        left, top, right, bottom = thing.box
        by = rng.normal(0.0, 0.05, 4) * (right - left, bottom - top, right - left, bottom - top)
        boxes.append(Box(left + by[0], top + by[1], right + by[2], bottom + by[3]))
    height, width = frame.image.shape[:2]
    x, y, side = rng.uniform(0, width - 80), rng.uniform(0, height - 70), rng.uniform(20, 70)
    return [*boxes, Box(x, y, x + side, y + side)]


def _label(box: Box, frame: Rendered, actors: Sequence[Box]) -> int | None:
    """Return the class of a region, or None if it has no right answer. ``actors`` are all there are, seen or not."""
    overlaps = [box.iou(Box(*thing.box)) for thing in frame.objects]
    best = int(np.argmax(overlaps)) if overlaps else -1
    if best >= 0 and overlaps[best] >= _SAME:
        others = [Box(*thing.box) for number, thing in enumerate(frame.objects) if number != best]
        crowded = any(box.shared(other) >= _CROWDED * other.area for other in others)
        return None if crowded else LABELS.index(frame.objects[best].label)
    most = max((box.shared(actor) for actor in actors), default=0.0)
    return 0 if most <= _NOTHING * box.area else None


def _outlines(config: SceneConfig, at_s: float) -> list[Box]:
    """Return the boxes of all actors on their way, with those of which too little is in the picture to be told."""
    boxes = []
    for actor in present(config, at_s):
        (x, y), (width, height) = actor.centre(at_s), SIZES_PX[actor.label]
        boxes.append(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return boxes
