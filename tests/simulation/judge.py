"""Compares a simulation with faults with the undisturbed one of the same plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar

from ingest.contract import headers as h
from ingest.contract.identity import LIVE
from ingest.contract.records import Event, Measure
from tests.simulation.plan import Plan
from tests.simulation.world import Outcome

T = TypeVar("T")
EXAMPLES = 3
PLANNED_STAGES = ("prepare-live", "prepare-late", "engine")
"""Stages that park damaged frames, and frames that make the model fail. The later stages park nothing."""


def faults_of(
    plan: Plan, found: Outcome, calm: Outcome, events: Iterable[Event], measures: Iterable[Measure]
) -> list[str]:
    """Return the violated invariants of a simulation.

    ``calm`` is the outcome of the undisturbed simulation. ``events`` and ``measures`` are those of an undisturbed
    stage: over the results of ``calm``, or under overload over the results of ``found``.
    """
    faults = [] if found.drained else ["the processes do not come to an end"]
    faults += _ledger(found)
    faults += (
        _same("results", _results(found, plan), _results(calm, plan)) if not plan.overload else _shed(plan, found)
    )
    faults += _repeated("results", (str(one.id) + one.pipeline for one in found.results))
    faults += _repeated("events", (one.id for one in found.events))
    faults += _same("events", map(_event, found.events), map(_event, events))
    faults += _repeated("measures", (one.id for one in found.measures))
    faults += _measures(plan, found.measures, list(measures))
    faults += _letters(found, calm, plan)
    faults += _alerts(found) if plan.alerts else []
    return faults


def _ledger(found: Outcome) -> Iterator[str]:
    balance = found.balance
    assert balance
    for name, counts in (
        ("frames", balance.totals),
        ("readings", balance.sensors.totals if balance.sensors else None),
    ):
        if counts and (counts.unaccounted or counts.duplicates):
            yield f"{name}: {counts.unaccounted} unaccounted, {counts.duplicates} duplicates: {counts.examples}"
    if not balance.settled:
        yield f"the ledger does not balance: {balance.to_dict()}"
    if balance.totals.delivered != len(found.inputs.objects):
        yield f"{balance.totals.delivered} frames delivered, {len(found.inputs.objects)} sent"


def _results(outcome: Outcome, plan: Plan) -> Iterator[Hashable]:
    for one in outcome.results:
        yield str(one.id), one.lane, one.pipeline, one.outcome, one.reason, one.captured_ns, one.detections


def _shed(plan: Plan, found: Outcome) -> Iterator[str]:
    """Yield the shed frames that no overload policy explains."""
    assert plan.overload
    reasons = {"stale"} | ({"every_nth"} if plan.overload.policy == "every-nth" else set())
    for one in found.results:
        if one.outcome == "shed" and (one.reason not in reasons or one.lane != LIVE):
            yield f"frame {one.id} on the lane {one.lane} was shed for {one.reason}: expected {sorted(reasons)}"


def _event(event: Event) -> str:
    """Return an event as text, without the offset of its frame, which repeated frames move."""
    frame = event.data.frame
    data = event.data.model_copy(update={"frame": frame and frame._replace(offset=0)})
    return event.model_copy(update={"data": data}).model_dump_json()


def _measures(plan: Plan, found: Iterable[Measure], expected: Iterable[Measure]) -> Iterator[str]:
    """Compare measures.

    With late frames, the order of the lanes is not determined, so that only the last record of each minute is
    compared in full, and of the others the ids.
    """
    found, expected = list(found), list(expected)
    yield from _same("measures", (one.id for one in found), (one.id for one in expected))
    yield from _same("last measures", map(_measure, _last(found)), map(_measure, _last(expected)))
    if not any(visit.late_s for camera in plan.cameras for visit in camera.visits):
        yield from _same("all measures", map(_measure, found), map(_measure, expected))


def _measure(measure: Measure) -> str:
    parts = dict(sorted(measure.parts.items()))
    return repr((measure.id, measure.observed, sorted(measure.values.items()), measure.histograms, parts))


def _last(measures: Iterable[Measure]) -> list[Measure]:
    return list({(one.name, one.start_ns): one for one in sorted(measures, key=lambda one: one.revision)}.values())


def _letters(found: Outcome, calm: Outcome, plan: Plan) -> Iterator[str]:
    for letter in found.letters:
        failure = h.read_failure(letter.headers)
        if failure is None or not failure.error or not failure.message:
            yield f"a dead letter has no reason: {dict(letter.headers)}"
        elif failure.stage not in PLANNED_STAGES:
            yield f"the stage {failure.stage} parks a record: {failure.error}: {failure.message}"
    causes = [
        Counter(
            (failure.stage, failure.error, h.frames_of(one.headers))
            for one in outcome.letters
            if (failure := h.read_failure(one.headers))
        )
        for outcome in (found, calm)
    ]
    lost = causes[1].keys() - causes[0].keys() if not plan.overload else set()
    if (more := causes[0].keys() - causes[1].keys()) or lost:
        yield f"unexpected dead letters: {sorted(more, key=str)}, missing dead letters: {sorted(lost, key=str)}"


def _alerts(found: Outcome) -> Iterator[str]:
    yield from _repeated("alerts", (one.id for one in found.alerts))
    yield from _same("alerts", (one.data.event for one in found.alerts), (one.id for one in found.events))
    for alert in found.alerts:
        if alert.data.camera and len(alert.data.evidence) != 2:
            yield f"alert {alert.id} has {len(alert.data.evidence)} pictures: expected 2"


def _repeated(name: str, ids: Iterable[str]) -> Iterator[str]:
    if twice := [one for one, count in Counter(ids).items() if count > 1]:
        yield f"repeated {name}: {twice[:EXAMPLES]}"


def _same(name: str, found: Iterable[Any], expected: Iterable[Any]) -> Iterator[str]:
    found, expected = Counter(found), Counter(expected)
    if lost := expected - found:
        yield f"{lost.total()} {name} lost: {list(lost)[:EXAMPLES]}"
    if more := found - expected:
        yield f"{more.total()} {name} too many: {list(more)[:EXAMPLES]}"
