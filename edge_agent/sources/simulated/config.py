"""Configuration of a simulated scene, with its counting lines and zones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SceneKind = Literal["road", "yard", "conveyor"]
KINDS: tuple[SceneKind, ...] = ("road", "yard", "conveyor")
Light = Literal["day", "night"]
LIGHTS: tuple[Light, ...] = ("day", "night")

BASE_WIDTH_PX, BASE_HEIGHT_PX = 640, 360
"""Picture size in px for which the scenes and boxes are defined. For another picture size, the whole scene and all
boxes are scaled."""

COUNTING_LINES: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "road": ((0.5, 1.0), (0.5, 0.0)),
    "yard": ((0.45, 1.0), (0.45, 0.0)),
    "conveyor": ((0.6, 1.0), (0.6, 0.0)),
}
"""Start ``(x, y)`` and end ``(x, y)`` of the counting line by kind of scene, as shares of the picture's width and
height.

All counting lines point upwards, so an object that moves to the right crosses in direction ``forward``.
"""

RESTRICTED_ZONE: tuple[tuple[float, float], ...] = ((0.56, 0.60), (0.93, 0.60), (0.93, 0.97), (0.56, 0.97))
"""Corners ``(x, y)`` of the restricted zone in the yard scene, as shares of the picture's width and height."""


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """Configuration of a simulated scene. Equal configurations produce equal frames on every machine.

    ``noise_sigma`` is the standard deviation of the sensor noise at mid grey by day, in grey levels. The sensor noise
    doubles at night. Bright parts of a picture are noisier than dark parts. ``density`` scales the amount of traffic;
    with 1.0, the scene is busy but not crowded.
    """

    kind: SceneKind
    seed: int = 0
    width: int = BASE_WIDTH_PX
    height: int = BASE_HEIGHT_PX
    fps: float = 10.0
    light: Light = "day"
    rain: bool = False
    noise_sigma: float = 4.0
    density: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"scene {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.light not in LIGHTS:
            raise ValueError(f"light {self.light!r}: expected {' or '.join(LIGHTS)}")
        if self.fps <= 0 or min(self.width, self.height) < 64 or self.density <= 0:
            raise ValueError("fps and density must be above 0, and the picture must be at least 64×64 px")
