"""Run plans, judge them, and find the shortest plan that still fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from ingest.contract.codec import decode_json
from ingest.contract.records import Event, Measure
from ingest.contract.topics import EVENTS, MEASURES, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.analyse.stage import AnalyseStage
from stream.runner.memory import MemoryRunner
from tests.simulation.judge import faults_of
from tests.simulation.plan import Plan, shorter
from tests.simulation.scene import make_inputs
from tests.simulation.world import PARTITIONS, Outcome, World

MAX_RUNS = 300
"""Maximum number of simulations of the search for the shortest plan."""


@contextlib.contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield an event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="reader")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


Known = dict[Plan, Outcome]
"""The last undisturbed simulation. The next seed may have the same scenes."""


async def simulate(plan: Plan, loop: asyncio.AbstractEventLoop, known: Known) -> list[str]:
    """Run a plan with and without its faults, and return the violated invariants.

    Take the outcome without faults from ``known`` if it is there, and else note it there.
    """
    inputs = make_inputs(plan, PARTITIONS, ManualClock().started_ns)
    try:
        found = await World(plan, inputs, loop).run()
    except Exception as error:
        return [f"a process failed: {error!r}"]
    if not (calm := known.get(plan.calm)):
        known.clear()
        calm = known[plan.calm] = await World(plan.calm, inputs, loop).run()
    if not plan.overload:
        return faults_of(plan, found, calm, calm.events, calm.measures)
    events, measures = await _analysed(found)
    events += [event for event in calm.events if event.data.sensor]
    return faults_of(plan, found, calm, events, measures)


async def _analysed(found: Outcome) -> tuple[list[Event], list[Measure]]:
    """Return the events and measures of an undisturbed stage over the results of a simulation."""
    clock = ManualClock()
    log = MemoryLog(PARTITIONS, clock)
    for record in found.records:
        await log.produce(Outgoing(RESULTS, record.partition, record.value, record.key, record.headers))
    await MemoryRunner(AnalyseStage(found.config, PARTITIONS), log, clock).run()

    async def all_of(topic: str) -> list[bytes]:
        ends = await log.ends(topic)
        return [record.value for p in ends async for record in log.read(topic, p, 0, ends[p])]

    events = [decode_json(Event, value) for value in await all_of(EVENTS)]
    return events, [decode_json(Measure, value) for value in await all_of(MEASURES)]


async def shortest(plan: Plan, loop: asyncio.AbstractEventLoop) -> Plan:
    """Return the shortest plan that still fails: no part of it can be left out."""
    runs = 0
    while True:
        for candidate in shorter(plan):
            runs += 1
            if runs > MAX_RUNS:
                return plan
            if await simulate(candidate, loop, {}):
                plan = candidate
                break
        else:
            return plan
