"""Cut labelled regions out of the frames of simulated scenes, with the code that cuts regions at run time.

The frames of a scene are rendered in the order of time. The agent's own motion detector finds boxes, and the prepare
stage's code cuts the regions of these boxes out of the JPEG-compressed frame. A region gets the label of the object
that it shows, or ``BACKGROUND`` if it shows no object. Ambiguous regions are left out, such as two objects in one
region, or the tip of an object at the edge of the frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import KINDS, Rendered, SceneConfig, SimulatedScene
from edge_agent.sources.simulated.actors import SIZES_PX, present
from edge_agent.sources.simulated.config import LIGHTS, Light, SceneKind
from engines.decoders import BACKGROUND
from ingest.contract.records import Box
from ingest.picture import draw
from ingest.site import GateConfig, PipelineConfig
from stream.prepare.regions import windows

LABELS = (BACKGROUND, "car", "truck", "bus", "motorcycle", "person", "part_good", "part_faulty")
SIZE_PX = 64
_FRAMES = 110
"""Number of frames per scene, at ten frames per second, enough for the busy part of the scene's first cycle."""
_CUT_EVERY = 4
"""Regions are cut from every fourth frame, so that each object yields about fifteen regions. The motion detector
processes all frames, also those from which no region is cut."""
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
_SCENES: tuple[tuple[SceneKind, Light, bool], ...] = tuple(itertools.product(KINDS, LIGHTS, (False, True)))
SCENES_PER_SEED = len(_SCENES)
_MIN_OVERLAP = 0.35
"""A region gets an object's label if the intersection over union of region and object is at least this value."""
_MAX_COVERED = 0.05
"""Maximum share of a background region that an object may cover."""
_CROWDED = 0.5
"""A region is ambiguous if at least this share of a second object is inside the region."""

PIPELINE = PipelineConfig(
    name="regions", model="regions", width=SIZE_PX, height=SIZE_PX, regions="motion", max_regions=16
)


@dataclass(frozen=True, slots=True)
class LabelledRegions:
    """Images ``(N, height, width, 3)`` uint8 BGR, and the class index of each image ``(N,)``."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: Iterable[LabelledRegions]) -> LabelledRegions:
        """Return the regions of all parts, in order."""
        regions = list(parts)
        return cls(np.concatenate([r.images for r in regions]), np.concatenate([r.classes for r in regions]))

    def balanced(self, most: int, seed: int) -> LabelledRegions:
        """Return at most ``most`` images of each class, drawn at random, in random order."""
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(np.flatnonzero(self.classes == label))[:most] for label in np.unique(self.classes)]
        order = rng.permutation(np.concatenate(chosen))
        return LabelledRegions(self.images[order], self.classes[order])

    def __len__(self) -> int:
        return len(self.classes)


def rendered_regions(seeds: Sequence[int]) -> Iterator[LabelledRegions]:
    """Yield the regions of each scene. For every seed, there is a scene of every kind, light and weather.

    No two scenes share a vehicle, a person or a part.
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


def _scene(config: SceneConfig) -> LabelledRegions:
    scene, detector = SimulatedScene(config), MotionDetector(GateConfig().min_area)
    size, rng = (config.width, config.height), np.random.default_rng([config.seed, 5])
    images: list[npt.NDArray[np.uint8]] = []
    classes: list[int] = []
    for index in range(_FRAMES):
        frame = scene.render(index)
        moving = detector.boxes(frame.image)
        if index % _CUT_EVERY or index < _CUT_EVERY:
            continue
        found = windows(PIPELINE, size, moving, PIPELINE.max_regions) if moving else ()
        jittered = windows(PIPELINE, size, _jittered(frame, rng), PIPELINE.max_regions)
        image = cv2.imdecode(cv2.imencode(".jpg", frame.image, _QUALITY)[1], cv2.IMREAD_COLOR)
        actors = _actor_boxes(config, index / config.fps)
        for window in (*found, *jittered):
            label = _label(window.region.box, frame, actors)
            if label is not None:
                images.append(draw(np.asarray(image, np.uint8), window, PIPELINE.colour))
                classes.append(label)
    return LabelledRegions(np.array(images, np.uint8).reshape(-1, SIZE_PX, SIZE_PX, 3), np.array(classes, np.int64))


def _jittered(frame: Rendered, rng: np.random.Generator) -> list[Box]:
    """Return the true boxes of a frame's objects, each randomly moved and scaled a little, and one box at a random
    position."""
    boxes = []
    for actor in frame.objects:
        left, top, right, bottom = actor.box
        by = rng.normal(0.0, 0.05, 4) * (right - left, bottom - top, right - left, bottom - top)
        boxes.append(Box(left + by[0], top + by[1], right + by[2], bottom + by[3]))
    height, width = frame.image.shape[:2]
    x, y, side = rng.uniform(0, width - 80), rng.uniform(0, height - 70), rng.uniform(20, 70)
    return [*boxes, Box(x, y, x + side, y + side)]


def _label(box: Box, frame: Rendered, actors: Sequence[Box]) -> int | None:
    """Return the class of a region; None if the region is ambiguous.

    ``actors`` has the boxes of all actors, including invisible actors.
    """
    overlaps = [box.iou(Box(*other.box)) for other in frame.objects]
    best = int(np.argmax(overlaps)) if overlaps else -1
    if best >= 0 and overlaps[best] >= _MIN_OVERLAP:
        others = [Box(*other.box) for number, other in enumerate(frame.objects) if number != best]
        crowded = any(box.shared(other) >= _CROWDED * other.area for other in others)
        return None if crowded else LABELS.index(frame.objects[best].label)
    most = max((box.shared(actor) for actor in actors), default=0.0)
    return 0 if most <= _MAX_COVERED * box.area else None


def _actor_boxes(config: SceneConfig, at_s: float) -> list[Box]:
    """Return the boxes of all actors, including actors too far outside the frame to count as visible objects."""
    boxes = []
    for actor in present(config, at_s):
        (x, y), (width, height) = actor.centre(at_s), SIZES_PX[actor.label]
        boxes.append(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return boxes
