"""The random plan of a simulation: cameras, sensors, and the faults of the processes. Pure: the same seed gives the
same plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ingest.site.pipeline import Overload

STAGES = ("prepare", "prepare.late", "engine", "analyse", "sense", "alerts")
"""Consumer groups of the simulation. Each has two processes."""
FIRST_S = 2.0
MINUTE_S, SECOND_OF_MINUTE_S = 60.0, 20.0
"""Length of a minute, and the second of a minute at which the simulation starts."""
SAME_SCENES = 2
"""Number of consecutive seeds with the same scenes and different faults. Their undisturbed simulation runs once."""
AFTER_S = 3.0
"""Time in seconds after a visit in which a fault may hit the processing of its frames."""
NAMES = ("bay", "door", "gate", "lane", "roof", "yard")
FaultKind = Literal["kill", "rebalance", "zombie", "stall", "clock", "repeat"]


@dataclass(frozen=True)
class Visit:
    """An object that passes through the picture of a camera.

    The object is at ``way[0]`` in the first frame and at ``way[1]`` in the last frame, as shares of the picture's
    width. A second object follows ``follower`` frames behind if ``follower`` is above 0. Before the first frame, the
    camera withholds ``still`` frames in which nothing moves.
    """

    begin_s: float
    frames: int
    step_s: float
    way: tuple[float, float]
    label: str
    follower: int = 0
    still: int = 0
    late_s: float = 0.0
    """Seconds after which the frames arrive on the late lane, because the link is down; 0 for the live lane."""
    restart: bool = False
    """Whether the capture restarts before the visit, so that a new epoch begins."""
    clock_step_s: float = 0.0
    """Seconds by which the camera's clock is set before the visit."""
    unreadable: int = -1
    """Number of the frame whose record is damaged, -1 for none."""
    failing: int = -1
    """Number of the frame that makes the model fail, -1 for none."""


@dataclass(frozen=True)
class CameraPlan:
    """A camera and the visits of objects, in order of time. Its clock is ahead by ``ahead_s``."""

    name: str
    visits: tuple[Visit, ...]
    ahead_s: float = 0.0


@dataclass(frozen=True)
class SensorPlan:
    """A sensor that sends records of ``column`` readings, ``period_s`` apart. Its values are too high during ``hot``.

    ``jitter_s`` is the largest error of a reading's time, within the allowed lateness.
    """

    name: str
    period_s: float
    column: int
    readings: int
    hot: tuple[tuple[float, float], ...]
    jitter_s: float
    restart_at: int
    """Number of the reading at which a new epoch begins, 0 for none."""


@dataclass(frozen=True)
class Fault:
    """One fault, ``at_s`` seconds after the start.

    ``kill``: the process ends at its ``writes``-th write from now on, with or without the effect of this write
    (``applied``), and restarts after ``length_s``. Meanwhile, the other process has its partitions if ``moved``.
    ``rebalance``: the partitions are dealt anew, by the bits of ``owners``. The commit at the revocation fails unless
    ``applied``. ``zombie``: as ``rebalance``, but the processes do not notice that they lost partitions before
    ``length_s`` have passed. ``stall``: a process does nothing for ``length_s``. ``clock``: the clock of broker and
    services is set by ``step_s``. ``repeat``: every agent sends its last ``writes`` records a second time.
    """

    at_s: float
    kind: FaultKind
    stage: str = ""
    process: int = 0
    writes: int = 1
    applied: bool = True
    moved: bool = False
    owners: int = 0
    length_s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True)
class OverloadPlan:
    """An engine that classifies ``batches`` batches in each round, and the policy of the pipeline under overload."""

    policy: Overload
    freshness_s: float
    batches: int


@dataclass(frozen=True)
class Plan:
    """One simulation. Without ``shuffled``, each process works through all waiting records in order."""

    seed: int
    cameras: tuple[CameraPlan, ...]
    sensors: tuple[SensorPlan, ...]
    faults: tuple[Fault, ...]
    overload: OverloadPlan | None = None
    shuffled: bool = True
    alerts: bool = False
    """Whether the stage ``alerts`` runs, which draws a picture of each event."""

    second_pipeline: bool = False
    """Whether a second pipeline classifies every frame, too."""
    audited: bool = True
    """Whether the balance of the ledger is computed."""

    @property
    def scenes(self) -> int:
        """The seed of the scenes, which ``SAME_SCENES`` plans have in common."""
        return self.seed // SAME_SCENES

    @property
    def calm(self) -> Plan:
        """The same scenes without faults and overload, which are equal for all seeds with these scenes."""
        return replace(
            self,
            seed=self.scenes * SAME_SCENES,
            faults=(),
            shuffled=False,
            overload=None,
            alerts=False,
            audited=False,
        )

    @property
    def story(self) -> str:
        """The plan as text, one line for each part."""
        lines = [f"seed {self.seed}, {'shuffled' if self.shuffled else 'in order'}, {self.overload or 'no overload'}"]
        lines += [
            f"  camera {camera.name}, {camera.ahead_s:.2f} s ahead: {visit}"
            for camera in self.cameras
            for visit in camera.visits
        ]
        lines += [f"  {sensor}" for sensor in self.sensors]
        return "\n".join(lines + [f"  {fault}" for fault in self.faults])


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    number, other = divmod(seed, SAME_SCENES)
    scenes, overloaded = random.Random(number), number % 8 == 4
    cameras = tuple(
        _camera(scenes, name, shifted=not overloaded) for name in scenes.sample(NAMES, scenes.choice((1, 2)))
    )
    sensors = tuple(_sensor(scenes, name) for name in ("cellar",)[: scenes.randrange(2)])
    chance = random.Random(f"{number}/{other}") if other else scenes
    faults = sorted((_fault(chance, cameras) for _ in range(chance.randint(2, 6))), key=lambda fault: fault.at_s)
    overload = OverloadPlan(chance.choice(("shed", "every-nth")), chance.uniform(1.0, 4.0), chance.randrange(3))
    return Plan(
        seed,
        cameras,
        sensors,
        tuple(faults),
        overload if overloaded else None,
        alerts=number % 8 == 0,
        second_pipeline=number % 16 == 1,
    )


def _camera(chance: random.Random, name: str, *, shifted: bool) -> CameraPlan:
    visits: list[Visit] = []
    at_s = FIRST_S + chance.uniform(0.0, 5.0)
    for number in range(chance.randint(1, 2)):
        frames, step_s = chance.randint(5, 7), chance.choice((0.25, 0.5, 0.75))
        visits.append(
            Visit(
                at_s,
                frames,
                step_s,
                chance.choice(((0.1, 0.9), (0.9, 0.1), (0.15, 0.6), (0.8, 0.35))),
                chance.choice(("car", "person")),
                follower=chance.choice((0, 0, 1, 2)),
                still=chance.randrange(4),
                late_s=chance.uniform(1.0, 20.0) if chance.random() < 0.2 else 0.0,
                restart=number > 0 and chance.random() < 0.25,
                clock_step_s=chance.choice((-3600.0, -20.0, 5.0, 90.0)) if number and chance.random() < 0.15 else 0.0,
                unreadable=chance.randrange(frames) if chance.random() < 0.1 else -1,
                failing=chance.randrange(frames) if chance.random() < 0.15 else -1,
            )
        )
        at_s += frames * step_s + chance.uniform(3.0, 55.0)
    return CameraPlan(name, tuple(visits), _ahead_s(chance, chance.choice(visits)) if shifted else 0.0)


def _ahead_s(chance: random.Random, visit: Visit) -> float:
    """Return an error of a camera's clock with which a minute begins during a visit, so that measures are written."""
    at_s = visit.begin_s + chance.uniform(0.0, visit.frames * visit.step_s)
    return (MINUTE_S - SECOND_OF_MINUTE_S - at_s) % MINUTE_S


def _sensor(chance: random.Random, name: str) -> SensorPlan:
    begin_s = chance.uniform(0.0, 40.0)
    hot = [(begin_s, begin_s + chance.uniform(2.0, 15.0))]
    if chance.random() < 0.5:
        again_s = hot[0][1] + chance.uniform(6.0, 15.0)
        hot.append((again_s, again_s + chance.uniform(2.0, 15.0)))
    readings = chance.randint(12, 30)
    restart_at = chance.randrange(1, readings) if chance.random() < 0.3 else 0
    return SensorPlan(
        name,
        chance.choice((0.5, 1.0, 1.5)),
        chance.randint(1, 4),
        readings,
        tuple(hot),
        chance.choice((0.0, 0.4)),
        restart_at,
    )


def _fault(chance: random.Random, cameras: tuple[CameraPlan, ...]) -> Fault:
    kind: FaultKind = chance.choices(("kill", "rebalance", "zombie", "stall", "clock", "repeat"), (8, 4, 1, 2, 1, 2))[
        0
    ]
    stage = "engine" if kind == "zombie" else chance.choice(STAGES)
    visit = chance.choice([visit for camera in cameras for visit in camera.visits])
    at_s = chance.uniform(visit.begin_s, visit.begin_s + visit.frames * visit.step_s + visit.late_s + AFTER_S)
    return Fault(
        round(at_s, 2),
        kind,
        stage if kind not in ("clock", "repeat") else "",
        chance.randrange(2),
        chance.randint(1, 6),
        applied=chance.random() < 0.7,
        moved=chance.random() < 0.5,
        owners=chance.randrange(16),
        length_s=round(chance.uniform(0.0, 20.0), 2),
        step_s=round(chance.uniform(-30.0, 30.0), 2) if kind == "clock" else 0.0,
    )


def shorter(plan: Plan) -> Iterator[Plan]:
    """Yield plans that lack one part of ``plan`` each: a fault, the shuffling, a sensor, a camera, or a visit."""
    for number in range(len(plan.faults)):
        yield replace(plan, faults=plan.faults[:number] + plan.faults[number + 1 :])
    if plan.shuffled:
        yield replace(plan, shuffled=False)
    if plan.overload:
        yield replace(plan, overload=None)
    if plan.sensors:
        yield replace(plan, sensors=())
    for number, camera in enumerate(plan.cameras):
        others = plan.cameras[:number] + plan.cameras[number + 1 :]
        if others:
            yield replace(plan, cameras=others)
        for left_out in range(len(camera.visits)):
            visits = camera.visits[:left_out] + camera.visits[left_out + 1 :]
            if visits:
                yield replace(plan, cameras=(*others, replace(camera, visits=visits)))
