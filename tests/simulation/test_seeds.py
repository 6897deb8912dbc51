"""A thousand random simulations of the stages between the agents and the alerts.

Each seed gives a plan (``plan.py``): scenes, late frames, damaged frames, steps of clocks, overload, and faults of
the two processes of each stage. Two seeds have the same scenes and different faults. The real stages run in the
in-memory runner, and the real take-over, scheduler and overload policies of an engine node run on the in-memory log
(``processes.py``, ``world.py``). Events, measures, results and dead letters must equal those of the same scenes
without faults, ids included, and the ledger must balance (``judge.py``).

A failing seed prints the shortest plan that still fails. To run one seed:
``SIGHTLINE_SEED=254 pytest tests/simulation``. To run more seeds: ``SIGHTLINE_SEEDS=2000 pytest tests/simulation``.

Faults that were put into the product by hand, and that failed within the first sixty seeds: repeated frames are
classified again, ``analyse`` or ``sense`` opens a partition without past records, or without the events or measures
that were written, and a fenced writer still writes.
Faults of the product that seeds have found: events and measures were written twice if a worker was killed before its
first commit, and the last hopping windows of a silent sensor depended on the time of their evaluation.
"""

from __future__ import annotations

import os

import pytest

from ingest.runtime.clock import ManualClock
from stream.rules import Rule
from tests.simulation.plan import SAME_SCENES, make_plan
from tests.simulation.scene import make_inputs
from tests.simulation.simulate import Known, loop_in_thread, shortest, simulate
from tests.simulation.world import PARTITIONS, World

TOGETHER = 100
"""Number of seeds in one test."""
SEEDS = int(os.environ.get("SIGHTLINE_SEEDS", "1000"))
BLOCKS = [range(first, first + TOGETHER) for first in range(0, SEEDS, TOGETHER)]
if named := os.environ.get("SIGHTLINE_SEED"):
    BLOCKS = [range(int(named), int(named) + 1)]


@pytest.mark.timeout(900)  # a failing seed takes up to 300 simulations to find its shortest plan
@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
async def test_faults_change_neither_results_nor_events_nor_measures_of_a_simulation(seeds: range) -> None:
    known: Known = {}
    with loop_in_thread() as loop:
        for seed in seeds:
            plan = make_plan(seed)
            if await simulate(plan, loop, known):
                short = await shortest(plan, loop)
                faults = "\n".join(await simulate(short, loop, {}))
                again = f"SIGHTLINE_SEED={seed} pytest tests/simulation"
                pytest.fail(f"{faults}\n{short.story}\nRun this seed again: {again}", pytrace=False)


async def test_undisturbed_simulations_have_measures_and_events_of_every_rule() -> None:
    """Without events and measures, the comparison of two simulations could not fail."""
    plans = [make_plan(SAME_SCENES * scenes).calm for scenes in range(14, 24)]
    with loop_in_thread() as loop:
        outcomes = [
            await World(plan, make_inputs(plan, PARTITIONS, ManualClock().started_ns), loop).run() for plan in plans
        ]
    rules = {rule.EVENT_TYPE for one in outcomes for rule in one.config.of(Rule)}
    assert {event.type for one in outcomes for event in one.events} == rules
    assert sum(len(one.measures) for one in outcomes) > 10
