"""Timetable of the actors (moving objects) in a simulated scene. Pure.

Traffic comes in bursts: each cycle of 20 s has a busy part and a quiet part without motion. The random generator of a
cycle is seeded with the scene's seed, the kind of scene and the cycle's number, so any frame can be rendered without
rendering earlier frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edge_agent.sources.simulated.config import BASE_HEIGHT_PX, BASE_WIDTH_PX, COUNTING_LINES, KINDS, SceneConfig

CYCLE_S = 20.0
BUSY_S = 11.0
"""Length of the busy part of a cycle, in seconds. Actors start only in the busy part, and all actors leave the
picture before the next cycle."""

SIZES_PX: dict[str, tuple[int, int]] = {
    "car": (92, 44),
    "truck": (150, 56),
    "bus": (168, 54),
    "motorcycle": (50, 22),
    "person": (28, 70),
    "part_good": (58, 58),
    "part_faulty": (58, 58),
}
"""Width and height in px, by kind of actor, for a picture of 640×360 px (the base size)."""

_ROAD_LANES = ((150.0, -1), (208.0, -1), (262.0, 1), (318.0, 1))
"""For each lane of the road: distance of the centre line from the top in px, and direction of traffic (-1 for left, 1
for right)."""
_VEHICLES = (("car", 0.62), ("truck", 0.14), ("bus", 0.10), ("motorcycle", 0.14))
_ROAD_GAP_S = 1.3
"""Minimum time between two vehicles of a lane, in seconds. This gap prevents overlaps: the slowest vehicles drive 150
px/s, and a bus is 168 px long."""
_MARGIN_PX = 100.0
"""Distance in px from the picture's edge at which actors start and end outside the picture, so that no actor appears
suddenly."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Moving object with a path from ``start`` through ``via`` to ``end`` (centres in px of the base size).

    The centre's x coordinate changes evenly from ``begins_s`` to ``ends_s``; the y coordinate follows straight lines
    between the three points.
    """

    id: int
    label: str
    begins_s: float
    ends_s: float
    start: tuple[float, float]
    via: tuple[float, float]
    end: tuple[float, float]
    look: int

    def centre(self, at_s: float) -> tuple[float, float]:
        """Return the actor's centre ``(x, y)`` at a time, in px of the base size."""
        x = float(np.interp(at_s, (self.begins_s, self.ends_s), (self.start[0], self.end[0])))
        path = sorted((self.start, self.via, self.end))
        return x, float(np.interp(x, [p[0] for p in path], [p[1] for p in path]))

    def crosses_s(self, x: float) -> float:
        """Return the time at which the actor's centre passes the x coordinate ``x``."""
        xs = sorted(((self.start[0], self.begins_s), (self.end[0], self.ends_s)))
        return float(np.interp(x, [p[0] for p in xs], [p[1] for p in xs]))

    @property
    def rightwards(self) -> bool:
        """Whether the actor moves to the right."""
        return self.end[0] > self.start[0]


@dataclass(frozen=True, slots=True)
class SimulatedCrossing:
    """Crossing of the counting line by the centre of an actor.

    ``at_s`` is in seconds since the start of the scene.
    """

    actor: int
    label: str
    direction: str
    at_s: float


def present(config: SceneConfig, at_s: float) -> list[Actor]:
    """Return the actors in the scene at a time, ordered by id."""
    cycle = int(at_s // CYCLE_S)
    actors = [*_cycle(config, cycle - 1), *_cycle(config, cycle)] if cycle else list(_cycle(config, cycle))
    return [a for a in actors if a.begins_s <= at_s <= a.ends_s]


def crossings_between(config: SceneConfig, after_s: float, until_s: float) -> list[SimulatedCrossing]:
    """Return the crossings of the counting line in the interval ``(after_s, until_s]``, in order of time."""
    line_x = COUNTING_LINES[config.kind][0][0] * BASE_WIDTH_PX
    first, last = max(0, int(after_s // CYCLE_S) - 1), int(max(until_s, 0.0) // CYCLE_S)
    found = [
        SimulatedCrossing(a.id, a.label, "forward" if a.rightwards else "backward", a.crosses_s(line_x))
        for cycle in range(first, last + 1)
        for a in _cycle(config, cycle)
    ]
    return sorted((c for c in found if after_s < c.at_s <= until_s), key=lambda c: (c.at_s, c.actor))


@lru_cache(maxsize=64)
def _cycle(config: SceneConfig, cycle: int) -> tuple[Actor, ...]:
    rng = np.random.default_rng([config.seed, KINDS.index(config.kind), cycle])
    make = {"road": _road, "yard": _yard, "conveyor": _conveyor}[config.kind]
    return tuple(make(config, rng, cycle))


def _road(config: SceneConfig, rng: np.random.Generator, cycle: int) -> list[Actor]:
    actors: list[Actor] = []
    labels, shares = [v[0] for v in _VEHICLES], [v[1] for v in _VEHICLES]
    for lane, (y, direction) in enumerate(_ROAD_LANES):
        seconds = rng.uniform(4.2, 5.6)  # all vehicles of a lane have one speed in a cycle, so none collide
        begins = cycle * CYCLE_S + rng.uniform(0.0, 4.0)
        while begins < cycle * CYCLE_S + BUSY_S:
            label = str(rng.choice(labels, p=shares))
            ends = (-_MARGIN_PX, BASE_WIDTH_PX + _MARGIN_PX)[::direction]
            centre = y + rng.uniform(-3.0, 3.0)
            start, end = (ends[0], centre), (ends[1], centre)
            number = cycle * 1000 + lane * 100 + len(actors)
            look = int(rng.integers(2**31))
            actors.append(Actor(number, label, begins, begins + seconds, start, start, end, look))
            begins += max(_ROAD_GAP_S, rng.uniform(2.4, 7.0) / config.density)
    return actors


def _yard(config: SceneConfig, rng: np.random.Generator, cycle: int) -> list[Actor]:
    actors: list[Actor] = []
    begins = cycle * CYCLE_S + rng.uniform(0.0, 2.0)
    while begins < cycle * CYCLE_S + BUSY_S:
        rightwards = bool(rng.random() < 0.5)
        trespasses = bool(rng.random() < 0.3)
        row = rng.choice((130.0, 168.0))
        via = (float(rng.uniform(440.0, 520.0)), float(rng.uniform(262.0, 290.0)) if trespasses else row)
        ends = (-_MARGIN_PX, BASE_WIDTH_PX + _MARGIN_PX)
        start, end = (ends[0], row), (ends[1], row)
        if not rightwards:
            start, end = end, start
        seconds = rng.uniform(7.0, 8.8)
        look = int(rng.integers(2**31))
        actors.append(Actor(cycle * 1000 + len(actors), "person", begins, begins + seconds, start, via, end, look))
        begins += rng.uniform(1.8, 4.5) / config.density
    return actors


def _conveyor(config: SceneConfig, rng: np.random.Generator, cycle: int) -> list[Actor]:
    actors: list[Actor] = []
    begins = cycle * CYCLE_S + rng.uniform(0.0, 1.0)
    while begins < cycle * CYCLE_S + BUSY_S:
        label = "part_faulty" if rng.random() < 0.25 else "part_good"
        y = BASE_HEIGHT_PX / 2 + rng.uniform(-16.0, 16.0)
        start, end = (-_MARGIN_PX, y), (BASE_WIDTH_PX + _MARGIN_PX, y)
        look = int(rng.integers(2**31))
        actors.append(Actor(cycle * 1000 + len(actors), label, begins, begins + 6.0, start, start, end, look))
        begins += max(0.9, rng.uniform(1.0, 2.4) / config.density)  # 0.9 s at 140 px/s: parts do not touch
    return actors
