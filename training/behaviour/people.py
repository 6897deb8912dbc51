"""Simulated people on a plane: paths, postures and gaits, in metres and seconds. Pure.

A simulated person is a chain of spheres from the feet to the head. The chain of spheres leans, bends and lies down.
While the person walks or runs, its feet are apart by the length of a stride. Walking speeds follow Bohannon (Age and
Ageing, 1997): 0.7 to 1.9 m/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

BEHAVIOURS = ("walking", "running", "loitering", "fallen")
WALKING, RUNNING, LOITERING, FALLEN = range(4)
STEP_S = 0.04
"""Time step of the simulation in seconds."""
SETTLED_S = (2.5, 1.5, 2.5, 1.5)
"""Time in seconds for which each behaviour must have lasted before a track counts as an example of the behaviour. In
its first seconds, a behaviour looks like the previous behaviour of the person."""
_SPEEDS_M_S = {WALKING: (1.35, 0.25, 0.7, 1.9), RUNNING: (3.6, 0.8, 2.6, 6.0)}
"""Mean, standard deviation, lowest and highest mean speed of a person by behaviour, in m/s."""
_STROLL_M_S = (0.3, 0.8)
_LOITER_M = (0.4, 2.5)
"""Smallest and largest radius in metres of the area in which a person loiters."""
_PARTS = np.array([0.0, 0.25, 0.55, 0.8, 0.93])
_RADII_M = np.array([0.10, 0.14, 0.22, 0.27, 0.13])
"""Positions of the spheres along the body, as shares of the body's height, and radii of the spheres in metres."""


class BodyMotion(NamedTuple):
    """A person at every time step: position on the ground ``(T, 2)`` in m, the angle between body and vertical, the
    direction of the lean and of the steps (rad), the length of the body in m, and the half length of a stride in m
    (each ``(T,)``). ``girth`` is the width of the body relative to the usual width."""

    ground: Floats
    lean: Floats
    direction: Floats
    heading: Floats
    tall: Floats
    stride: Floats
    girth: float
    behaviour: npt.NDArray[np.int64]


def motion(rng: Rng, plan: Sequence[tuple[int, float]]) -> BodyMotion:
    """Return the motion of a random person who behaves as planned: each entry is a behaviour and its length in s."""
    counts = [max(1, round(seconds / STEP_S)) for _, seconds in plan]
    behaviour = np.repeat([one for one, _ in plan], counts)
    speeds, turns = zip(
        *(_movement(rng, one, count) for (one, _), count in zip(plan, counts, strict=True)), strict=True
    )
    speed = np.concatenate(speeds)
    heading = rng.uniform(0.0, 2 * np.pi) + np.cumsum(np.concatenate(turns)) * STEP_S
    ground = np.cumsum(speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1) * STEP_S, axis=0)
    ground += _loitering(rng, plan, counts)
    speed = np.hypot(*(np.gradient(ground, axis=0).T / STEP_S))
    lean, tall = _posture(rng, behaviour)
    phase = np.cumsum(np.where(speed > 2.2, 2.7, 0.55 + 0.9 * np.sqrt(speed))) * STEP_S * np.pi
    stride = np.minimum(0.18 + 0.17 * speed, 0.65) * np.abs(np.sin(phase)) * (speed > 0.2) * (behaviour != FALLEN)
    sideways = np.repeat(rng.uniform(0.0, 2 * np.pi), len(speed))
    direction = np.where(behaviour == FALLEN, sideways + smooth(rng, len(speed), 6.0) * 0.06, heading)
    return BodyMotion(ground, lean, direction, heading, tall, stride, rng.uniform(0.85, 1.3), behaviour)


def spheres(person: BodyMotion) -> tuple[Floats, Floats]:
    """Return the centres ``(T, S, 3)`` and radii ``(T, S)`` of the spheres of a body, in metres; z is the height."""
    across = np.sin(person.lean)[:, None] * _PARTS * person.tall[:, None]
    x = person.ground[:, :1] + across * np.cos(person.direction)[:, None]
    y = person.ground[:, 1:] + across * np.sin(person.direction)[:, None]
    radii = np.repeat(_RADII_M[None] * person.girth, len(x), axis=0)
    z = np.cos(person.lean)[:, None] * _PARTS * person.tall[:, None]
    feet = [
        np.stack(
            [
                person.ground[:, 0] + sign * person.stride * np.cos(person.heading),
                person.ground[:, 1] + sign * person.stride * np.sin(person.heading),
                np.zeros(len(x)),
            ],
            axis=1,
        )[:, None]
        for sign in (1.0, -1.0)
    ]
    centres = np.concatenate([np.stack([x, y, z], axis=2), *feet], axis=1)
    radii = np.concatenate([radii, np.full((len(x), 2), _RADII_M[0])], axis=1)
    centres[:, :, 2] = np.maximum(centres[:, :, 2], radii)
    return centres, radii


def smooth(rng: Rng, count: int, correlation_s: float) -> Floats:
    """Return a random function of time with mean 0, standard deviation 1 and the correlation time ``correlation_s``:
    an autoregressive process of first order."""
    keep = np.exp(-STEP_S / correlation_s)
    every = max(1, round(correlation_s / STEP_S / 4))
    keep = keep**every
    coarse = np.empty(count // every + 2)
    value = rng.normal()
    for index, step in enumerate(rng.normal(0.0, np.sqrt(1 - keep**2), len(coarse))):
        coarse[index] = value
        value = keep * value + step
    return np.interp(np.arange(count) / every, np.arange(len(coarse)), coarse)


def _movement(rng: Rng, behaviour: int, count: int) -> tuple[Floats, Floats]:
    """Return the speed of a person in m/s and the change of its heading in rad/s at each step."""
    if behaviour in (LOITERING, FALLEN):
        return np.zeros(count), np.zeros(count)
    mean, deviation, low, high = _SPEEDS_M_S[behaviour]
    mean = float(np.clip(rng.normal(mean, deviation), low, high))
    speed = mean * np.clip(1 + 0.07 * smooth(rng, count, 2.0), 0.85, 1.15)
    bend = rng.choice([0.02, 0.1, 0.3], p=[0.5, 0.3, 0.2])
    return speed, bend * smooth(rng, count, 3.0)


def _loitering(rng: Rng, plan: Sequence[tuple[int, float]], counts: list[int]) -> Floats:
    """Return the offset of a loitering person from the place where it began to loiter, ``(T, 2)`` in metres.

    A loitering person stands, walks slowly to another point of its place, and stands again. A person who has just
    arrived stands for some seconds first, such as at a table, so that a model learns that a sudden stop is no fall.
    """
    parts, end = [], np.zeros(2)
    for (behaviour, _), count in zip(plan, counts, strict=True):
        if behaviour != LOITERING:
            parts.append(np.repeat(end[None], count, axis=0))
            continue
        radius, times, points, at = rng.uniform(*_LOITER_M), [0.0], [end], 0.0
        while at < count * STEP_S:
            stand_s = rng.exponential(6.0) + (3.0 if at == 0.0 else 0.0) if rng.random() < 0.7 or at == 0.0 else 0.0
            there = end + radius * np.sqrt(rng.random()) * _unit(rng) if rng.random() < 0.85 else points[-1]
            walk_s = max(0.4, float(np.hypot(*(there - points[-1]))) / rng.uniform(*_STROLL_M_S))
            times += [at + stand_s, at + stand_s + walk_s]
            points += [points[-1], there]
            at += stand_s + walk_s
        seconds = np.arange(count) * STEP_S
        path = np.stack([np.interp(seconds, times, [p[axis] for p in points]) for axis in (0, 1)], axis=1)
        path += 0.03 * np.stack([smooth(rng, count, 2.0), smooth(rng, count, 2.0)], axis=1)
        parts.append(path)
        end = path[-1]
    return np.concatenate(parts)


def _posture(rng: Rng, behaviour: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the angle between the person's body and the vertical in rad, and the length of the body in m, at each
    step."""
    count = len(behaviour)
    tall_m = rng.uniform(1.05, 1.4) if rng.random() < 0.06 else float(np.clip(rng.normal(1.7, 0.1), 1.45, 1.98))
    lean = np.where(behaviour == RUNNING, 0.15, 0.04) * np.ones(count)
    tall = np.full(count, tall_m)
    at_s = np.arange(count, dtype=np.float64) * np.float64(STEP_S)
    if (behaviour == LOITERING).any() and rng.random() < 0.25:  # bends down or sits down for some seconds
        begin, long_s = rng.uniform(0.0, at_s[-1]), rng.uniform(1.5, 8.0)
        bent = _ramp(at_s, begin, 0.8) * (1 - _ramp(at_s, begin + long_s, 0.8)) * (behaviour == LOITERING)
        tall *= 1 - rng.uniform(0.25, 0.45) * bent
        lean += rng.uniform(0.0, 0.5) * bent
    if (behaviour == FALLEN).any():
        begin = at_s[np.argmax(behaviour == FALLEN)]
        down = _ramp(at_s, begin, rng.uniform(0.4, 1.0))
        lean = lean * (1 - down) + down * rng.uniform(1.35, 1.6)
        curled = rng.uniform(0.6, 0.8) if rng.random() < 0.25 else rng.uniform(0.82, 1.0)
        tall = tall * (1 - down * (1 - curled)) * (1 + 0.03 * down * smooth(rng, count, 4.0))
    return lean, tall


def _ramp(at_s: Floats, begin_s: float, length_s: float) -> Floats:
    return np.clip((at_s - begin_s) / length_s, 0.0, 1.0)


def _unit(rng: Rng) -> Floats:
    angle = rng.uniform(0.0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
