"""Tests of the numbers of the console: minutes of measures, latencies by stage, and their pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from console.context import ConsoleContext
from console.live.statuses import SILENT_S
from console.live.view import YIELD_RECORDS
from console.numbers import measures
from console.numbers.latency import stage_latencies
from console.numbers.measures import MeasureView
from ingest.contract.codec import encode, encode_json
from ingest.contract.records import Forecast, ForecastPoint, ForecastSkill, Heartbeat, Measure, SensorStatus
from ingest.contract.topics import FORECASTS, MEASURES, STATUS
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from tests.console.conftest import Browser
from tests.console.records import (
    CAPTURED_NS,
    MINUTE_NS,
    alert,
    configure,
    event,
    frame,
    minute,
    result,
    status,
    write,
)

Open = Callable[..., Browser]


def view_of(*records: Measure) -> MeasureView:
    view = MeasureView()
    for offset, record in enumerate(records):
        view.apply(LogRecord(MEASURES, 0, offset, None, encode_json(record), {}, 0))
    return view


def columns(view: MeasureView, name: str = "bridge") -> dict[str, list[float | None]]:
    series = view.series(name)
    assert series is not None
    return series.columns(0)[2]


def test_the_highest_revision_of_a_minute_is_shown_in_whichever_order_revisions_arrive() -> None:
    first = minute(0, {"car.forward": 3})
    corrected = minute(0, {"car.forward": 5}, revision=2, corrected=True)
    older = minute(0, {"car.forward": 4}, revision=1)
    for records in ((first, older, corrected), (corrected, first, older)):
        assert columns(view_of(*records)) == {"car.forward": [5]}


def test_a_missing_count_is_zero_in_an_observed_minute_and_unknown_in_an_unobserved_minute() -> None:
    found = columns(
        view_of(
            minute(0, {"car.forward": 3, "headway_s.forward.mean": 2.5}),
            minute(1),
            minute(2, observed=0.0),
        )
    )
    assert found == {"car.forward": [3, 0, None], "headway_s.forward.mean": [2.5, None, None]}


def test_minutes_and_measures_in_memory_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MAX_MINUTES", 2)
    monkeypatch.setattr(measures, "MAX_MEASURES", 2)
    view = view_of(*(minute(n, {"a": n}) for n in (2, 0, 1)), minute(0, name="b"), minute(0, name="c"))
    assert [series.name for series in view] == ["b", "c"]
    assert columns(view_of(*(minute(n, {"a": n}) for n in (2, 0, 1)))) == {"a": [1, 2]}


def test_a_record_that_is_no_measure_is_refused_by_the_view() -> None:
    with pytest.raises(CodecError):
        MeasureView().apply(LogRecord(MEASURES, 0, 0, None, b"{}", {}, 0))


def test_a_measure_that_moves_to_another_site_loses_the_minutes_of_its_old_site() -> None:
    series = view_of(minute(0, {"a": 1}), minute(1, {"a": 2}, site="south")).series("bridge")
    assert series is not None
    assert (series.site, len(series.minutes)) == ("south", 1)


async def test_other_tasks_run_while_latencies_are_computed() -> None:
    log = MemoryLog()
    await write(log, *(frame("gate", number) for number in range(2 * YIELD_RECORDS)))
    computing = asyncio.create_task(stage_latencies(log, lambda _: True))
    await asyncio.sleep(0)
    assert not computing.done()
    assert (await computing)[0].records == 2 * YIELD_RECORDS


async def test_a_partition_that_has_just_been_added_is_read_for_the_latencies() -> None:
    class GrownLog(MemoryLog):
        """A log of which the beginnings were asked for before it got its partitions."""

        async def beginnings(self, topic: str) -> dict[int, int]:
            """Return no partitions."""
            return {}

    log = GrownLog()
    await write(log, frame("gate", 0))
    assert [one.records for one in await stage_latencies(log, lambda _: True)] == [1]


async def test_a_stage_latency_is_the_time_from_capture_until_the_stage_writes_its_record() -> None:
    clock = ManualClock(started_ns=CAPTURED_NS)
    log = MemoryLog(clock=clock)
    clock.seconds = 0.02
    await write(log, frame("gate", 0).model_copy(update={"captured_error_ms": 12.0}), frame("yard", 0))
    clock.seconds = 0.05
    await write(log, result("gate", 0))
    clock.seconds = 1.25
    await write(log, event(1))
    clock.seconds = 1.5
    await write(log, alert(event(1)))
    found = {one.stage: one for one in await stage_latencies(log, lambda camera: camera == "gate")}
    assert {stage: (one.records, one.p50_ms, one.error_ms) for stage, one in found.items()} == {
        "frame": (1, 20.0, 13.0),
        "result": (1, 50.0, 13.0),
        "event": (1, 250.0, 13.0),
        "alert": (1, 500.0, 13.0),
    }


async def test_stages_without_live_records_of_visible_cameras_are_left_out() -> None:
    log = MemoryLog()
    await write(log, frame("yard", 0))
    await log.produce(Outgoing("results", 0, b"garbage"))
    assert await stage_latencies(log, lambda camera: camera == "gate") == []


async def test_the_numbers_and_system_pages_show_only_cameras_that_the_user_may_see(
    browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    await configure(log)
    await write(log, status("gate", captured=7, kept=5), frame("gate", 0), frame("yard", 0))
    for record in (minute(0, {"car.forward": 3}), minute(0, {"x": 1}, name="dock", camera="yard")):
        await log.produce(Outgoing(MEASURES, 0, encode_json(record)))
    await context.feed.catch_up(log)
    viewer, admin = browser(), browser()
    await viewer.sign_in("vera")
    await admin.sign_in("ada")
    html = await viewer.load("/numbers")
    assert ('data-measure="bridge"' in html, 'data-measure="dock"' in html) == (True, False)
    assert [one["name"] for one in (await viewer.get("/api/measures")).json()] == ["bridge"]
    assert (await viewer.get("/api/measures/dock")).status_code == 404
    assert (await viewer.get("/api/measures/bridge?hours=99")).status_code == 422
    html = await viewer.load("/system")
    assert ("yard" in html, "Agents and services" in html) == (False, False)
    assert [one["records"] for one in (await viewer.get("/api/latencies")).json()] == [1]
    html = await admin.load("/system")
    assert ("yard" in html, "Agents and services" in html, "agent-1" in html) == (True, True, True)
    assert len((await admin.get("/api/measures")).json()) == 2


async def test_the_system_page_has_the_states_of_the_visible_sensors(
    browser: Open, context: ConsoleContext, log: MemoryLog, clock: ManualClock
) -> None:
    await configure(log)
    await context.feed.catch_up(log)
    admin, limited = browser(), browser()
    await admin.sign_in("ada")
    await limited.sign_in("otto")
    assert "no agent has reported this sensor" in await admin.load("/system")
    readings = SensorStatus(sensor="boiler", epoch=1, state="running", captured=71, kept=42)
    beat = Heartbeat(service="agent", instance="agent-1", at_ns=CAPTURED_NS, sensors=(readings,))
    await log.produce(Outgoing(STATUS, 0, encode(beat)))
    await context.feed.catch_up(log)
    html = await admin.load("/system")
    assert ('>running</span></td><td class="cut"></td>' in html, ">71<" in html, ">42<" in html) == (True,) * 3
    assert "boiler" not in await limited.load("/system")
    clock.advance(SILENT_S + 1.0)
    assert ">silent<" in await admin.load("/system")


async def test_the_values_of_a_measure_cover_only_the_requested_number_of_hours(
    browser: Open, context: ConsoleContext, log: MemoryLog, clock: ManualClock
) -> None:
    await configure(log)
    for number in (0, 119, 179):
        await log.produce(Outgoing(MEASURES, 0, encode_json(minute(number, {"car.forward": number}))))
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("vera")
    clock.seconds += (minute(180).start_ns - clock.now_ns()) / 1e9
    await one.sign_in("vera")
    for hours, wanted in ((1, [179]), (2, [119, 179]), (6, [0, 119, 179])):
        found = (await one.get(f"/api/measures/bridge?hours={hours}")).json()
        assert found["values"] == {"car.forward": wanted}


def made(step: int, value: float, **fields: Any) -> Forecast:
    """Return the forecast after a step of five minutes: ``value`` for the next step, and one more for each later."""
    made_ns = (CAPTURED_NS // (5 * MINUTE_NS) + step) * 5 * MINUTE_NS
    points = tuple(
        ForecastPoint(
            horizon=h, start_ns=made_ns + (h - 1) * 5 * MINUTE_NS, value=value + h - 1, lower=1.0, upper=90.0
        )
        for h in (1, 2)
    )
    skill = (ForecastSkill(horizon=1, steps=20, mae=3.0, naive_mae=4.0, covered=0.9),)
    base = {"id": f"f{step}", "name": "flow", "measure": "bridge", "value": "car.forward", "site": "north"}
    given = {"camera": "gate", "model": "flow@1", "made_ns": made_ns, "step_s": 300, "level": 0.9, "observed": 1.0}
    return Forecast(**{**base, **given, "points": points, "skill": skill, **fields})


async def test_forecasts_are_shown_beside_the_measured_values(
    browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    await configure(log)
    begin = CAPTURED_NS // (5 * MINUTE_NS) * 5 - CAPTURED_NS // MINUTE_NS
    for number in range(begin, begin + 5):
        await log.produce(Outgoing(MEASURES, 0, encode_json(minute(number, {"car.forward": 4.0}))))
    dock = made(0, 5.0, name="dock", camera="yard", site="south")
    for one in (made(0, 18.0), made(1, 25.0), dock):
        await log.produce(Outgoing(FORECASTS, 0, encode_json(one)))
    await context.feed.catch_up(log)
    viewer = browser()
    await viewer.sign_in("vera")
    html = await viewer.load("/numbers")
    assert ("forecast of car.forward of bridge" in html, 'data-forecast="dock"' in html) == (True, False)
    found = (await viewer.get("/api/forecasts/flow")).json()
    assert found["measured"] == [20.0, None, None]
    assert found["forecast"] == [18.0, 25.0, 26.0]
    assert (found["lower"][0], found["upper"][0], found["mae_ratio"], found["covered"]) == (1.0, 90.0, 0.75, 0.9)
    (item,) = (await viewer.get("/api/forecasts")).json()
    assert (item["name"], item["model"], item["drifting"]) == ("flow", "flow@1", False)
    assert (await viewer.get("/api/forecasts/dock")).status_code == 404
