"""Simulated tracks of people: the boxes that a detector and a tracker would report. Pure; deterministic by seed.

A pinhole camera at a random height and tilt sees a simulated person. The boxes have the faults of a real detector and
tracker: edges that jitter, missed detections, occlusions, boxes that are cut at the edge of the picture, uneven frame
rates, and long gaps while the agent's gate sees no motion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.analyse.behaviour.window import FEATURES, STEPS, Windows, windows
from training.behaviour.people import (
    BEHAVIOURS,
    FALLEN,
    LOITERING,
    RUNNING,
    SETTLED_S,
    STEP_S,
    WALKING,
    BodyMotion,
    Floats,
    Rng,
    motion,
    smooth,
    spheres,
)

_SIZES = ((640, 360), (1280, 720), (1920, 1080), (640, 480), (704, 576))
_MIN_HEIGHT, _MAX_HEIGHT = 0.05, 1.1
"""Smallest and largest height of a standing person at the end of a track, as shares of the picture's height."""
_MIN_VISIBLE = 0.5
"""Minimum visible share of a person's box at which the detector finds the person."""
_LOST_S = 1.5
"""Longest gap that a track survives while its person moves, in seconds."""
_LONGEST_S = 40.0
_LONGER_S = (30.0, 30.0, 30.0, 14.0)
"""Longest time in seconds for which each behaviour goes on after it has settled. A fall remains an example for as
long as the window shows how the person fell, because a rule reports the fall within this time."""
_MIN_BOXES = 4
UNSETTLED = -1


class BoxFaults(NamedTuple):
    """Faults of the simulated boxes. Each pair has the lowest and highest value of a fault; each track gets a random
    value between them."""

    jitter: tuple[float, float]
    """Standard deviation of a box's edge, as a share of the box's size."""
    missed: tuple[float, float]
    """Share of the frames in which the detector misses the person."""
    occlusions_per_s: float
    fps: tuple[float, float]


NORMAL = BoxFaults(jitter=(0.008, 0.03), missed=(0.0, 0.15), occlusions_per_s=0.05, fps=(4.0, 25.0))
SLOW = NORMAL._replace(fps=(1.8, 2.2))
HARD = BoxFaults(jitter=(0.03, 0.07), missed=(0.15, 0.4), occlusions_per_s=0.15, fps=(2.0, 6.0))
"""Faults of a bad detector: twice the usual jitter, a third of the detections missed, and a low frame rate."""


class PinholeCamera(NamedTuple):
    """A pinhole camera above the origin that looks along the y axis: height in m, tilt and roll in rad, focal length
    in px, and size of the picture in px."""

    height_m: float
    tilt: float
    roll: float
    focal_px: float
    width: int
    height: int

    @classmethod
    def draw(cls, rng: Rng) -> PinholeCamera:
        """Return a random camera: 2 to 9 m high, tilted down by 5 to 40 degrees, with a field of view of 45 to 100
        degrees."""
        width, height = _SIZES[rng.integers(len(_SIZES))]
        focal_px = width / 2 / np.tan(np.radians(rng.uniform(45.0, 100.0)) / 2)
        tilt, roll = np.radians(rng.uniform(5.0, 40.0)), np.radians(rng.normal(0.0, 1.5))
        return cls(rng.uniform(2.0, 9.0), float(tilt), float(roll), float(focal_px), width, height)

    def on_ground(self, x_px: float, y_px: float) -> Floats | None:
        """Return the point of the ground that a pixel shows, ``(2,)`` in m; None above the horizon."""
        u, v = (x_px - self.width / 2) / self.focal_px, (y_px - self.height / 2) / self.focal_px
        u, v = u * np.cos(self.roll) + v * np.sin(self.roll), v * np.cos(self.roll) - u * np.sin(self.roll)
        down = v * np.cos(self.tilt) + np.sin(self.tilt)
        if down <= 0.02:
            return None
        ahead = np.cos(self.tilt) - v * np.sin(self.tilt)
        return np.array([u, ahead]) * float(self.height_m / down)

    def usual_height(self, foot: Floats) -> float:
        """Return the height of a standing person at a point of the ground, as a share of the picture's height."""
        body = np.array([[[*foot, 0.0], [*foot, 1.7]]])
        box = self.boxes(body, np.zeros((1, 2)))[0]
        return float((box[3] - box[1]) / self.height)

    def boxes(self, centres: Floats, radii: Floats) -> Floats:
        """Return the boxes ``(T, 4)`` around the spheres ``(T, S, 3)`` of bodies; NaN if a sphere is behind the
        camera."""
        x, y, z = centres[..., 0], centres[..., 1], centres[..., 2] - self.height_m
        depth = y * np.cos(self.tilt) - z * np.sin(self.tilt)
        below = -y * np.sin(self.tilt) - z * np.cos(self.tilt)
        depth = np.where(depth > 0.5, depth, np.nan)
        u, v, r = (self.focal_px * value / depth for value in (x, below, radii))
        u, v = u * np.cos(self.roll) - v * np.sin(self.roll), v * np.cos(self.roll) + u * np.sin(self.roll)
        u, v = u + self.width / 2, v + self.height / 2
        edges = ((u - r).min(axis=1), (v - r).min(axis=1), (u + r).max(axis=1), (v + r).max(axis=1))
        return np.stack(edges, axis=1)


class SimulatedTrack(NamedTuple):
    """The boxes ``(N, 5)`` of a track (time in s, left, top, right, bottom in px), the size of the picture in px, and
    the behaviour at each box ``(N,)``: ``UNSETTLED`` if the behaviour has not yet lasted for ``SETTLED_S``."""

    boxes: Floats
    width: int
    height: int
    behaviours: npt.NDArray[np.int64]


class TrackExamples(NamedTuple):
    """Windows of tracks ``(N, STEPS, FEATURES)``, and the index of each window's behaviour ``(N,)``."""

    windows: Windows
    behaviours: npt.NDArray[np.int64]


def examples(
    seed: int,
    count: int,
    faults: BoxFaults = NORMAL,
    *,
    per_track: int = 1,
    on_track: Callable[[], None] = lambda: None,
) -> TrackExamples:
    """Return ``per_track`` windows of each of ``count`` simulated tracks.

    The first window of a track ends with the track's last box, and each other window with a box that is drawn at
    random. With one window per track, all behaviours are equally frequent. ``on_track`` is called after each track.
    """
    found = np.empty((count, per_track, STEPS, FEATURES), np.float32)
    behaviours = np.empty((count, per_track), np.int64)
    for number, track in enumerate(tracks(seed, count, faults)):
        ends = np.full(per_track, len(track.boxes) - 1)
        settled = np.flatnonzero(track.behaviours != UNSETTLED)
        ends[1:] = np.random.default_rng([seed, number, 1]).choice(settled, per_track - 1)
        found[number] = windows([track.boxes[: end + 1] for end in ends], track.width, track.height)
        behaviours[number] = track.behaviours[ends]
        on_track()
    return TrackExamples(found.reshape(-1, STEPS, FEATURES), behaviours.ravel())


def tracks(seed: int, count: int, faults: BoxFaults = NORMAL) -> Iterator[SimulatedTrack]:
    """Yield simulated tracks, with the behaviours in turn. Track ``n`` of a seed is always the same track."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield simulated_track(rng, _plan(rng, number % len(BEHAVIOURS)), faults)


def simulated_track(rng: Rng, plan: Sequence[tuple[int, float]], faults: BoxFaults = NORMAL) -> SimulatedTrack:
    """Return the track of a random person who behaves as planned, seen by a random camera.

    Each entry of the plan is a behaviour and its length in s. At the end of the track, the person is in view.
    """
    behaviour = plan[-1][0]
    while True:  # about one try in three succeeds
        camera = PinholeCamera.draw(rng)
        foot = camera.on_ground(rng.uniform(0.05, 0.95) * camera.width, rng.uniform(0.3, 1.2) * camera.height)
        if foot is None or not _MIN_HEIGHT < camera.usual_height(foot) < _MAX_HEIGHT:
            continue
        track = _seen(rng, camera, motion(rng, plan), foot, faults)
        if len(track.boxes) >= _MIN_BOXES and track.behaviours[-1] == behaviour:
            return track


def _plan(rng: Rng, behaviour: int) -> list[tuple[int, float]]:
    """Return what a person does before and until the end of its track: behaviours with their lengths in s."""
    last = behaviour, SETTLED_S[behaviour] + 1.0 + min(rng.exponential(8.0), _LONGER_S[behaviour])
    if rng.random() < 0.35 and behaviour != FALLEN:
        return [last]
    before = {
        WALKING: (LOITERING, RUNNING),
        RUNNING: (WALKING, LOITERING),
        LOITERING: (WALKING,),
        FALLEN: (WALKING, RUNNING, LOITERING),
    }[behaviour]
    first = int(rng.choice(before)), rng.uniform(1.0, 15.0)
    return [first, last]


def _seen(rng: Rng, camera: PinholeCamera, person: BodyMotion, foot: Floats, faults: BoxFaults) -> SimulatedTrack:
    """Return the track of a person who is at the point ``foot`` at the end; a track without boxes if the person is
    not in view then."""
    whole = camera.boxes(*spheres(person._replace(ground=person.ground - person.ground[-1] + foot)))
    clipped = np.clip(whole, 0.0, (camera.width, camera.height, camera.width, camera.height))
    area = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    visible = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) >= _MIN_VISIBLE * area
    hidden = np.flatnonzero(~visible)
    begin = max(hidden[-1] + 1 if len(hidden) else 0, len(visible) - round(_LONGEST_S / STEP_S))
    if begin == len(visible):
        return SimulatedTrack(np.empty((0, 5)), camera.width, camera.height, np.empty(0, np.int64))
    boxes, kept = _observed(rng, clipped[begin:], person.behaviour[begin:], faults)
    behaviour, steps = person.behaviour[begin + kept], np.arange(len(person.behaviour))
    changes = np.concatenate([[True], np.diff(person.behaviour) != 0])
    since = begin + kept - np.maximum.accumulate(np.where(changes, steps, 0))[begin + kept]
    lasted_s = np.minimum(since, kept - kept[0]) * STEP_S
    settled = np.where(lasted_s >= np.array(SETTLED_S)[behaviour], behaviour, UNSETTLED)
    return SimulatedTrack(np.column_stack([kept * STEP_S, boxes[kept]]), camera.width, camera.height, settled)


def _observed(
    rng: Rng, boxes: Floats, behaviour: npt.NDArray[np.int64], faults: BoxFaults
) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the boxes with the detector's faults, and the indices of the simulation steps that have a box."""
    count = len(boxes)
    size = np.concatenate([boxes[:, 2:] - boxes[:, :2]] * 2, axis=1)
    jitter = rng.uniform(*faults.jitter)
    noise = 0.8 * rng.normal(size=boxes.shape)
    noise += 0.6 * np.stack([smooth(rng, count, 0.6) for _ in range(4)], axis=1)
    noise *= np.where(rng.random((count, 1)) < 0.02, 4.0, 1.0)
    found = _partly_hidden(rng, boxes, faults) + jitter * size * noise
    fps = np.exp(rng.uniform(*np.log(faults.fps)))
    steps = np.cumsum(np.maximum(rng.normal(1.0, 0.2, round(count * STEP_S * fps) + 8), 0.2)) / fps / STEP_S
    frames = np.unique(np.round(count - 1 - np.concatenate([[0.0], steps])).astype(np.intp))
    frames = frames[frames >= 0]
    missed = rng.uniform(*faults.missed) + 0.15 * (behaviour[frames] == FALLEN)
    seen = (rng.random(len(frames)) >= missed) & ~_hidden(rng, count, faults)[frames]
    seen[-1] = True
    kept = frames[seen]
    if rng.random() < 0.4:
        found, kept = _gated(rng, found, boxes, kept)
    apart_s = np.diff(kept) * STEP_S
    moved = np.abs(np.diff(boxes[kept], axis=0)).max(axis=1) > 0.2 * size[kept[1:], 0]
    broken = np.flatnonzero((apart_s > _LOST_S) & moved)
    return found, kept[broken[-1] + 1 :] if len(broken) else kept


def _gated(rng: Rng, found: Floats, boxes: Floats, kept: npt.NDArray[np.intp]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the boxes and steps that remain after an agent's motion gate: while a person stands still, its box stays
    as it is, and frames come rarely."""
    found, stays = found.copy(), [kept[0]]
    place, since, next_s = boxes[kept[0]], kept[0], 0.0
    for step in kept[1:]:
        here = boxes[step]
        if np.abs(here - place).max() > 0.12 * (here[2] - here[0]):
            place, since = here, step
        elif (step - since) * STEP_S > 2.0:
            found[step] = found[since]
            if step * STEP_S < next_s and step != kept[-1]:
                continue
            next_s = step * STEP_S + rng.exponential(1.5)
        stays.append(step)
    return found, np.array(stays, np.intp)


def _hidden(rng: Rng, count: int, faults: BoxFaults) -> npt.NDArray[np.bool_]:
    """Return whether the person is completely hidden at each step."""
    hidden = np.zeros(count, np.bool_)
    for begin in rng.integers(0, count, rng.poisson(faults.occlusions_per_s * count * STEP_S)):
        hidden[begin : begin + round(rng.uniform(0.2, 1.4) / STEP_S)] = True
    return hidden


def _partly_hidden(rng: Rng, boxes: Floats, faults: BoxFaults) -> Floats:
    """Return the boxes, of which some lack a part of the person that is hidden for a while: the legs behind a car, or
    one side."""
    found, count = boxes.copy(), len(boxes)
    for begin in rng.integers(0, count, rng.poisson(faults.occlusions_per_s * count * STEP_S)):
        part = slice(begin, begin + round(rng.uniform(0.5, 3.0) / STEP_S))
        share = rng.uniform(0.15, 0.5)
        if rng.random() < 0.6:
            found[part, 3] -= share * (boxes[part, 3] - boxes[part, 1])
        else:
            side = 0 if rng.random() < 0.5 else 2
            found[part, side] += (1 - side) * share * (boxes[part, 2] - boxes[part, 0])
    return found
