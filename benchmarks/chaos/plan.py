"""The plan of a chaos run: which process is disturbed, when, and how. Pure: the same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.local.stack import AGENT, DOWNSTREAM

BROKER, CAPTURE = "broker", "capture"
TARGETS = (AGENT, CAPTURE, *DOWNSTREAM, BROKER)
"""Processes that a fault can hit: the processes of a stack, one of the agent's capture processes, and the broker."""
KILL, PAUSE, STOP, TWICE = "kill", "pause", "stop", "kill twice"
KINDS = (KILL, PAUSE, STOP, TWICE)
FIRST_S = 5.0
"""Minimum time from the agent's start to the first fault, in seconds: enough for the first results to arrive."""
CALM_S = 30.0
"""Time without a new fault at the end of a run, in seconds: enough for the last pause to end and the last restarted
process to recover."""
PAUSE_S = (1.0, 20.0)
"""Shortest and longest time in seconds for which a fault pauses a process. Some pauses are longer than the session
timeout of a consumer group, 12 s."""
AGAIN_S = (0.0, 4.0)
"""Shortest and longest time from a restart to the second kill, in seconds. The second kill may come before, during or
after the rebalance of the consumer group."""
DOWN_S = (0.0, 8.0)
"""Shortest and longest time until a killed or stopped broker starts again, in seconds."""


@dataclass(frozen=True)
class ChaosOptions:
    """Options of a run. ``seconds`` is the run's length without the start and without the wait for the last
    frames."""

    seconds: float = 600.0
    faults: int = 40
    seed: int = 1


@dataclass(frozen=True)
class PlannedFault:
    """One planned fault, ``at_s`` seconds after the start of the agent.

    ``kill`` sends SIGKILL, ``pause`` sends SIGSTOP and after ``length_s`` SIGCONT, ``stop`` sends SIGTERM and starts
    the process again. ``kill twice`` sends SIGKILL, and a second SIGKILL ``length_s`` after the restart. A killed or
    stopped broker stays down for ``length_s``.
    """

    at_s: float
    target: str
    kind: str
    length_s: float


def plan(options: ChaosOptions) -> list[PlannedFault]:
    """Return the planned faults in order of time.

    The targets are drawn in rounds: each target has one fault per round. Each target cycles through its kinds of
    faults, in an order that is random per target.
    """
    chance = random.Random(options.seed)
    kinds = {target: chance.sample(_kinds_of(target), len(_kinds_of(target))) for target in TARGETS}
    share_s = max(0.0, options.seconds - CALM_S - FIRST_S) / max(1, options.faults)
    faults, order = list[PlannedFault](), list[str]()
    for number in range(options.faults):
        turn = number // len(TARGETS)
        order = order or chance.sample(TARGETS, len(TARGETS))
        target = order.pop()
        kind = kinds[target][turn % len(kinds[target])]
        at_s = FIRST_S + (number + chance.random()) * share_s
        faults.append(PlannedFault(round(at_s, 2), target, kind, _length_s(target, kind, chance)))
    return faults


def _kinds_of(target: str) -> Sequence[str]:
    return KINDS if target != CAPTURE else (KILL, PAUSE, TWICE)  # only the agent stops a capture process


def _length_s(target: str, kind: str, chance: random.Random) -> float:
    if kind == PAUSE:
        return round(chance.uniform(*PAUSE_S), 2)
    if kind == TWICE:
        return round(chance.uniform(*AGAIN_S), 2)
    return round(chance.uniform(*DOWN_S), 2) if target == BROKER else 0.0
