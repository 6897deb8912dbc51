"""Tests of incidents in the stage ``alerts``, on an in-memory log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.identity import place_key
from ingest.contract.records import Alert, Event, EventData, Incident
from ingest.contract.topics import ALERTS, DEADLETTER, EVENTS, INCIDENTS, partition_for
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing, Position, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.alerts import stage
from stream.alerts.alert import alert_id
from stream.alerts.incidents import ID
from stream.alerts.stage import AlertStage
from stream.evidence.store import MemoryStore
from stream.incidents.grouping import IncidentGrouper
from stream.runner.memory import MemoryRunner

GAP_S = 60.0
PARTITIONS = 3
PLACES = ("gate", "yard", None)


def event(number: int, at_s: float, place: str | None = "gate", **data: object) -> Event:
    subject = f"oven-{number % 2}"
    return Event(
        id=f"event-{number}",
        source=f"/north/{subject}",
        type="sightline.threshold",
        subject=subject,
        time="2026-01-02T03:04:05.678Z",
        data=EventData.model_validate(
            {
                "incident": f"window-{number}",
                "rule": "hot",
                "sensor": subject,
                "site": "north",
                "place": place,
                "summary": "too hot",
                "captured_ns": round(at_s * 1e9),
                "incident_gap_s": GAP_S,
            }
            | data
        ),
    )


class DyingLog(MemoryLog):
    """An in-memory log whose writer dies after ``budget`` records."""

    budget = 10**9

    async def produce(self, record: Outgoing) -> Position:
        if self.budget == 0:
            raise LogUnavailable("the worker was killed")
        self.budget -= 1
        return await super().produce(record)


async def put(log: MemoryLog, one: Event) -> None:
    place = place_key(one.subject, one.data.site, one.data.place)
    value = encode_json(one)
    await log.produce(Outgoing(EVENTS, partition_for(place, PARTITIONS), value, headers=h.CLOUD_EVENT))


def runner_on(log: MemoryLog, clock: ManualClock) -> MemoryRunner:
    return MemoryRunner(AlertStage(MemoryStore(), PARTITIONS, clock), log, clock)


async def written(log: MemoryLog, topic: str) -> list[bytes]:
    return [
        record.value
        for partition, end in (await log.ends(topic)).items()
        async for record in log.read(topic, partition, 0, end)
    ]


async def incidents(log: MemoryLog) -> set[tuple[str, str, int]]:
    """Return id, change and number of events of each written record, without repeats."""
    found = [decode_json(Incident, value) for value in await written(log, INCIDENTS)]
    return {(one.id, one.change, one.events) for one in found}


async def alerts(log: MemoryLog) -> list[Alert]:
    return [decode_json(Alert, value) for value in await written(log, ALERTS)]


async def alert_states(log: MemoryLog) -> dict[str, tuple[str, str, str]]:
    return {one.id: (one.data.incident, one.data.change, one.data.event) for one in await alerts(log)}


async def run(log: DyingLog, clock: ManualClock, events: Sequence[Event], budgets: Sequence[int] = ()) -> None:
    """Feed events to a worker, which is killed and replaced after each number of written records in ``budgets``."""
    runner, left = runner_on(log, clock), list(budgets)
    log.budget = 10**9
    for one in events:
        await put(log, one)
        if left and log.budget > 10**6:
            log.budget = left.pop(0)
        while True:
            try:
                await runner.run()
                break
            except LogUnavailable:
                log.budget, runner = 10**9, runner_on(log, clock)
        if log.budget < 10**6:
            budget, log.budget = log.budget, 10**9
            left.insert(0, budget)
        await runner.advance(1.0)
    log.budget = 10**9
    await runner.run()
    await runner.advance(2 * GAP_S)


EVENTS_OF_A_RUN = [event(n, n + (100 if n > 5 else 0), PLACES[n % 3]) for n in range(12)]


async def test_an_alert_names_its_incident_and_its_role_in_it() -> None:
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    await run(log, clock, [event(0, 0), event(1, 1), event(2, 2, severity="critical"), event(3, 3, "yard")])
    found = {one.data.event: one for one in await alerts(log) if one.data.change != "end"}
    first, second, third, other = (found[f"event-{n}"].data for n in range(4))
    assert first.incident == second.incident == third.incident != other.incident
    assert [one.change for one in (first, second, third, other)] == ["begin", "update", "update", "begin"]
    assert [one.reasons for one in (first, second, third)] == [(), ("camera",), ("severity",)]
    assert {one for one, _, _ in await incidents(log)} == {first.incident, other.incident}


async def test_the_end_of_an_incident_is_written_once_and_makes_one_alert() -> None:
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    await run(log, clock, [event(0, 0), event(1, 1)])
    (ended,) = [one for one in await alerts(log) if one.data.change == "end"]
    assert ended.type == "sightline.incident.ended"
    assert ended.data.summary == "ended after 2 events of 2 cameras and sensors: too hot"
    assert (ended.data.place, ended.data.sensor, ended.data.evidence) == ("gate", "oven-0", ())
    records = [decode_json(Incident, value) for value in await written(log, INCIDENTS)]
    assert [one.change for one in records] == ["begin", "update", "end"]


async def test_a_restart_after_any_written_record_makes_the_same_incidents_and_alerts() -> None:
    clock = ManualClock()
    undisturbed = DyingLog(PARTITIONS, clock)
    await run(undisturbed, clock, EVENTS_OF_A_RUN)
    expected, expected_alerts = await incidents(undisturbed), await alert_states(undisturbed)
    assert len(expected_alerts) > len(EVENTS_OF_A_RUN)
    for budget in range(len(EVENTS_OF_A_RUN) * 3):
        clock = ManualClock()
        log = DyingLog(PARTITIONS, clock)
        await run(log, clock, EVENTS_OF_A_RUN, [budget, budget // 2 + 1])
        assert await incidents(log) == expected
        assert await alert_states(log) == expected_alerts


async def test_the_alert_of_an_end_that_a_killed_worker_did_not_write_is_written_after_the_restart() -> None:
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    runner = runner_on(log, clock)
    await put(log, event(0, 0))
    await runner.run()
    log.budget = 1
    with pytest.raises(LogUnavailable):
        await runner.advance(GAP_S)
    assert {change for _, change, _ in await incidents(log)} == {"begin", "end"}
    log.budget = 10**9
    again = runner_on(log, clock)
    await again.run()
    assert [one.data.change for one in await alerts(log)] == ["begin", "end"]


async def test_ends_of_incidents_are_not_written_again_after_a_restart_even_if_many_alerts_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "KNOWN_ALERTS", 2)
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    await run(log, clock, [event(0, 0), *(event(n, 200 + n) for n in range(1, 6))])
    assert [one.data.change for one in await alerts(log)].count("end") == 2
    await run(log, clock, [event(10, 1000)])
    found = [one.id for one in await alerts(log)]
    assert len(set(found)) == len(found) == 10


async def test_alerts_of_other_partitions_do_not_make_a_worker_forget_an_alert_that_is_already_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "KNOWN_ALERTS", 4)
    clock = ManualClock()
    log = MemoryLog(PARTITIONS, clock)
    for place in ("gate", "yard", "dock"):
        own = event(0, 0, place)
        tp = TopicPartition(EVENTS, partition_for(own.place, PARTITIONS))
        await log.produce(Outgoing(ALERTS, tp.partition, b"{}", headers={ID: alert_id(own).encode()}))
        for n in range(4 * PARTITIONS):
            if n % PARTITIONS != tp.partition:
                await log.produce(Outgoing(ALERTS, n % PARTITIONS, b"{}", headers={ID: f"{n}".encode()}))
        processor = await AlertStage(MemoryStore(), PARTITIONS, clock).open(tp, 0, log)
        record = LogRecord(EVENTS, tp.partition, 0, None, encode_json(own))
        (work,) = await asyncio.to_thread(processor.process, record)
        assert ALERTS not in [out.topic for out in work.records]


async def test_an_incident_that_was_open_when_its_worker_stopped_ends_after_the_restart() -> None:
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    await put(log, event(0, 0))
    await runner_on(log, clock).run()
    clock.seconds += 86_400
    again = runner_on(log, clock)
    await again.run()
    await again.advance(GAP_S)
    assert {change for _, change, _ in await incidents(log)} == {"begin", "end"}


async def test_unreadable_and_impossible_incident_records_do_not_stop_a_new_owner_of_the_partition() -> None:
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    grouper = IncidentGrouper()
    (good,) = grouper.add(event(7, 0, "gate"), 0, 0.0)
    for changed in ({}, {"place": "north/!"}, {"sensors": ()}, {"rules": ()}):
        value = encode_json(good.model_copy(update=changed)) if changed else b"{"
        for partition in range(PARTITIONS):
            await log.produce(Outgoing(INCIDENTS, partition, value))
    await run(log, clock, [event(0, 0)])
    assert [one.data.change for one in await alerts(log)] == ["begin", "end"]
    assert await written(log, DEADLETTER) == []


async def test_an_event_with_a_very_long_site_name_begins_an_incident_that_ends_normally() -> None:
    clock = ManualClock()
    log = DyingLog(PARTITIONS, clock)
    await run(log, clock, [event(0, 0, site="s" * 10_000), event(1, 1, site="s" * 10_000)])
    assert [one.data.change for one in await alerts(log)] == ["begin", "update", "end"]
    assert await written(log, DEADLETTER) == []
