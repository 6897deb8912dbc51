"""Labelled regions of the simulated scenes, cut exactly as they are at run time.

Frames are rendered in order, compressed as the agent does, and looked at by the agent's own motion detector; its
boxes are cut out by prepare's own code. A region gets the label of the object that it shows most of, or none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.capture.simulated import KINDS, Rendered, Scene, SceneConfig
from edge_agent.gate.motion import MotionDetector
from engines.decoders import BACKGROUND
from engines.training.data import Regions
from ingest.records import Box
from ingest.site import GateConfig, PipelineConfig
from stream.prepare.regions import Window, draw, windows

__all__ = ["LABELS", "SIZE_PX", "rendered_regions"]

LABELS = (BACKGROUND, "car", "truck", "bus", "motorcycle", "person", "part_good", "part_faulty")
SIZE_PX = 64
_FRAMES = 110
"""The busy part of a scene's first cycle, at ten frames a second."""
_PART_FRAMES = range(4, _FRAMES, 2)
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
_SAME = 0.35
"""Intersection over union from which a region shows an object; below ``_NOTHING`` it shows none."""
_NOTHING = 0.05

PIPELINE = PipelineConfig(
    name="regions", model="regions", width=SIZE_PX, height=SIZE_PX, regions="motion", max_regions=16
)


def rendered_regions(seeds: Sequence[int]) -> Iterator[Regions]:
    """Yield the regions of one scene after the other: every kind, light and weather for every seed."""
    for seed, kind, light, rain in itertools.product(seeds, KINDS, ("day", "night"), (False, True)):
        noise = 3.0 + seed % 5
        config = SceneConfig(kind, seed=seed, light=light, rain=rain, noise_sigma=noise)  # type: ignore[arg-type]
        yield _scene(config)


def _scene(config: SceneConfig) -> Regions:
    scene, detector = Scene(config), MotionDetector(GateConfig().min_area)
    rng = np.random.default_rng([config.seed, 5])
    images: list[npt.NDArray[np.uint8]] = []
    classes: list[int] = []
    for index in range(_FRAMES):
        frame = scene.render(index)
        moving = detector.boxes(frame.image)
        if index not in _PART_FRAMES:
            continue
        seen = cv2.imdecode(cv2.imencode(".jpg", frame.image, _QUALITY)[1], cv2.IMREAD_COLOR)
        for window in windows(PIPELINE, (config.width, config.height), [*moving, *_shaken(frame, rng)], 16):
            label = _label(window, frame)
            if label is not None:
                row = np.empty((SIZE_PX, SIZE_PX, 3), np.uint8)
                draw(PIPELINE, np.asarray(seen, np.uint8), window, row)
                images.append(row)
                classes.append(label)
    return Regions(np.array(images, np.uint8).reshape(-1, SIZE_PX, SIZE_PX, 3), np.array(classes, np.int64))


def _shaken(frame: Rendered, rng: np.random.Generator) -> list[Box]:
    """The true boxes, moved and scaled a little, and one box of nothing in particular."""
    boxes = []
    for thing in frame.objects:
        left, top, right, bottom = thing.box
        by = rng.normal(0.0, 0.05, 4) * (right - left, bottom - top, right - left, bottom - top)
        boxes.append(Box(left + by[0], top + by[1], right + by[2], bottom + by[3]))
    x, y, side = rng.uniform(0, 560), rng.uniform(0, 290), rng.uniform(20, 70)
    return [*boxes, Box(x, y, x + side, y + side)]


def _label(window: Window, frame: Rendered) -> int | None:
    best, label = 0.0, BACKGROUND
    for thing in frame.objects:
        overlap = _overlap(window.region.box, Box(*thing.box))
        if overlap > best:
            best, label = overlap, thing.label
    if best >= _SAME:
        return LABELS.index(label)
    return 0 if best <= _NOTHING else None  # a part of something: neither one nor the other


def _overlap(a: Box, b: Box) -> float:
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a.width * a.height + b.width * b.height - both)
