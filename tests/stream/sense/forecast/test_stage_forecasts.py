"""Tests of the forecasts that the stage ``sense`` writes: values, holes, skill, events, promotions and restarts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ingest.contract.codec import decode_json
from ingest.contract.records import Event, Forecast, ForecastPoint, Measure
from ingest.contract.records.measure import MinuteTally
from ingest.contract.topics import EVENTS, FORECASTS, MEASURES
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import ConfigEntry, ForecastConfig, MeasureConfig
from ingest.site.topic.view import Config
from stream.exceptions import ForecastModelUnusable
from stream.metrics import ForecastMetrics
from stream.runner.memory import MemoryRunner
from stream.sense.forecast import conformal, drift, forecaster
from stream.sense.forecast.model import ForecastModel
from stream.sense.rules.drift import DriftRule
from stream.sense.rules.forecast import EarlyWarningRule
from stream.sense.stage import Forecasting, SenseStage
from tests.stream.sense.forecast.series import (
    MINUTES_PER_STEP,
    MONDAY_NS,
    SLOTS,
    STEP_S,
    measure,
    minutes,
    model,
    record,
    spec,
)

BRIDGE = MeasureConfig(
    name="bridge", type="line", camera="road", pipeline="regions", start=(0.5, 1.0), end=(0.5, 0.0)
)
FLOW = ForecastConfig(name="flow", measure="bridge", value="car.forward", model="flow")
BUSY = EarlyWarningRule(name="busy", forecast="flow", above=100.0, steps=2)
DRIFT = DriftRule(name="drifted", forecast="flow")
ENTRIES = (BRIDGE, FLOW, BUSY, DRIFT)


@dataclass
class Worker:
    """A worker of the stage, which forgets its state when ``kill`` is called."""

    models: dict[str, ForecastModel]
    entries: Iterable[ConfigEntry] = ENTRIES
    log: MemoryLog = field(default_factory=lambda: MemoryLog(1))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.metrics = ForecastMetrics(self.registry)
        self.kill()

    def kill(self) -> None:
        config = Config({entry.key: entry for entry in self.entries})
        stage = SenseStage(config, 1, forecasting=Forecasting(self.source, self.metrics, 1))
        self.stage = stage
        self.runner = MemoryRunner(stage, self.log, ManualClock())

    def source(self, name: str) -> ForecastModel:
        if name not in self.models:
            raise ForecastModelUnusable(f"model {name} is missing")
        return self.models[name]

    async def feed(self, found: Iterable[Measure]) -> None:
        for one in found:
            await self.log.produce(record(one))
        await self.runner.run()

    async def forecasts(self) -> list[Forecast]:
        end = (await self.log.ends(FORECASTS))[0]
        return [decode_json(Forecast, one.value) async for one in self.log.read(FORECASTS, 0, 0, end)]

    async def events(self) -> list[Event]:
        end = (await self.log.ends(EVENTS))[0]
        return [decode_json(Event, one.value) async for one in self.log.read(EVENTS, 0, 0, end)]

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"sightline_forecast_{name}", {"forecast": "flow"})


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the windows of errors, so that a test needs few steps."""
    monkeypatch.setattr(conformal, "WINDOW", 24)
    monkeypatch.setattr(conformal, "CORRECTION", 12)
    monkeypatch.setattr(drift, "WINDOW", 24)
    monkeypatch.setattr(forecaster, "SKILL_STEPS", 24)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker({"flow": model(tmp_path)})


async def test_each_time_step_gives_a_forecast_with_prediction_intervals(worker: Worker) -> None:
    await worker.feed(minutes(range(20)))
    found = await worker.forecasts()
    assert [one.made_ns for one in found] == [MONDAY_NS + k * STEP_S * 10**9 for k in range(1, 21)]
    last = found[-1]
    assert (last.model, last.camera, last.measure, last.observed, last.reason) == (
        "flow@1",
        "road",
        "bridge",
        1.0,
        "",
    )
    assert [one.horizon for one in last.points] == [1, 2, 3]
    assert last.points[0].start_ns == last.made_ns
    for point in last.points:
        assert point.lower is not None
        assert point.upper is not None
        assert 0.0 <= point.lower < point.value < point.upper
        assert 40.0 < point.value < 100.0


async def test_after_unobserved_steps_a_forecast_has_a_reason_instead_of_values(worker: Worker) -> None:
    await worker.feed(minutes(range(10)))
    await worker.feed([measure(minute, 0.0, observed=0.0) for minute in range(150, 210)])
    await worker.feed(minutes(range(14, 18)))
    found = (await worker.forecasts())[9:]
    assert [one.observed for one in found] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
    empty = [one for one in found if not one.points]
    assert [one.observed for one in empty] == [0.25, 0.0, 0.25]
    assert empty[0].reason == "1 of the last 4 steps were observed: expected 50%"
    assert worker.metric("empty_total") == 4.0  # and the first forecast, after one step


async def test_after_an_outage_without_records_one_forecast_is_made(worker: Worker) -> None:
    await worker.feed(minutes(range(10)))
    await worker.feed(minutes(range(40, 42)))
    found = (await worker.forecasts())[10:]
    assert [one.made_ns for one in found] == [MONDAY_NS + k * STEP_S * 10**9 for k in (40, 41, 42)]
    assert [len(one.points) for one in found] == [0, 0, 3]


async def test_forecast_skill_compares_with_the_value_of_the_day_before(worker: Worker) -> None:
    await worker.feed(minutes(range(SLOTS + 30)))
    found = (await worker.forecasts())[-1]
    first = found.skill[0]
    assert (first.horizon, first.steps) == (1, 24)
    assert 0.7 < first.covered <= 1.0
    assert first.ratio == pytest.approx(first.mae / first.naive_mae)
    assert worker.metric("mae_ratio") == pytest.approx(first.ratio)
    assert worker.metric("covered_ratio") == first.covered


async def test_an_expected_congestion_is_reported_once_before_it_comes(worker: Worker) -> None:
    await worker.feed(minutes(range(10)))
    assert await worker.events() == []
    await worker.feed(minutes(range(10, 16), factor=2.6))
    busy = [one for one in await worker.events() if one.data.rule == "busy"]
    assert len(busy) == 1
    event = busy[0]
    assert event.type == "sightline.forecast.passed"
    assert (event.subject, event.data.camera, event.data.captured_ns) == ("road", "road", event.data.captured_ns)
    assert event.data.details["in_minutes"] == 0.0
    assert event.data.details["value"] > 100.0  # type: ignore[operator]
    assert event.data.summary.startswith("car.forward of bridge is forecast to be above 100 in 0 min: ")


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"above": 69.0}, True),
        ({"above": 71.0}, False),
        ({"above": 69.0, "compare": "interval"}, False),
        ({"above": 54.0, "compare": "interval"}, True),
        ({"below": 71.0}, True),
        ({"below": 84.0, "compare": "interval"}, False),
        ({"below": 86.0, "compare": "interval"}, True),
        ({"above": 69.0, "steps": 3}, False),
    ],
)
def test_an_early_warning_needs_forecast_values_or_intervals_beyond_its_bound(
    bounds: dict[str, Any], found: bool
) -> None:
    points = [ForecastPoint(horizon=h, start_ns=0, value=70.0, lower=55.0, upper=85.0) for h in (1, 2)]
    forecast = Forecast(
        id="f", name="flow", measure="bridge", value="car.forward", camera="road", model="flow@1", made_ns=0,
        step_s=900, level=0.9, observed=1.0, points=tuple(points),
    )  # fmt: skip
    rule = EarlyWarningRule(name="busy", forecast="flow", **{"steps": 2, **bounds})
    assert (rule.happening(forecast) is not None) == found


async def test_drift_of_a_forecast_is_reported_as_an_event_and_a_metric(worker: Worker) -> None:
    await worker.feed(minutes(range(30)))
    assert worker.metric("drifting") == 0.0
    chance = random.Random(3)
    noisy = [one.model_copy(update={"values": {"car.forward": chance.choice((0.0, 14.0))}})
             for one in minutes(range(30, 60))]  # fmt: skip
    await worker.feed(noisy)
    drifted = [one for one in await worker.events() if one.data.rule == "drifted"]
    assert [one.type for one in drifted] == ["sightline.forecast.drifted"]
    assert worker.metric("drifting") == 1.0
    assert (await worker.forecasts())[-1].drifting


async def test_a_restarted_worker_writes_the_same_forecasts_and_events(tmp_path: Path) -> None:
    """The log is longer than the history that a worker reads back."""
    steady, killed = (Worker({"flow": model(tmp_path)}) for _ in range(2))
    found = [*minutes(range(248)), *minutes(range(248, 252), factor=5.0), *minutes(range(252, 262))]
    await steady.feed(found)
    chance, at = random.Random(5), 0
    while at < len(found):
        count = chance.randrange(400, 1000)
        await killed.feed(found[at : at + count])
        killed.kill()
        at += count
    assert await killed.forecasts() == await steady.forecasts()
    assert await killed.events() == await steady.events()
    assert len(await steady.events()) >= 1


async def test_forecasts_that_another_worker_wrote_without_a_commit_are_not_written_again(worker: Worker) -> None:
    await worker.feed(minutes(range(20)))
    written = await worker.forecasts()
    copy = Worker(worker.models)  # no commit of the group is in this log
    for topic in (MEASURES, FORECASTS, EVENTS):
        end = (await worker.log.ends(topic))[0]
        async for one in worker.log.read(topic, 0, 0, end):
            await copy.log.produce(record(decode_json(Measure, one.value)) if topic == MEASURES else _again(one))
    await copy.runner.run()
    assert await copy.forecasts() == written


async def test_a_newly_promoted_forecast_model_continues_with_the_minutes_in_memory(tmp_path: Path) -> None:
    worker = Worker({"flow": model(tmp_path)})
    await worker.feed(minutes(range(60)))
    worker.models["flow"] = model(tmp_path, "flow@2", spec(lags=3))
    await worker.feed(minutes(range(60, 62)))
    found = (await worker.forecasts())[-1]
    assert found.model == "flow@2"
    assert found.skill[0].steps == 24


async def test_a_corrected_minute_changes_later_forecasts_and_makes_no_forecast_itself(worker: Worker) -> None:
    await worker.feed(minutes(range(10)))
    before = await worker.forecasts()
    late = [one.model_copy(update={"revision": 1, "values": {"car.forward": 90.0}}) for one in minutes(range(9, 10))]
    await worker.feed(late)
    assert await worker.forecasts() == before
    other = Worker(worker.models)
    await other.feed(minutes(range(11)))
    await worker.feed(minutes(range(10, 11)))
    assert (await worker.forecasts())[-1].points[0].value != (await other.forecasts())[-1].points[0].value


async def test_a_site_without_forecasts_writes_no_forecast_records(tmp_path: Path) -> None:
    worker = Worker({}, ())
    await worker.feed(minutes(range(20)))
    assert await worker.forecasts() == []
    assert await worker.events() == []


async def test_a_missing_forecast_model_gives_neither_forecasts_nor_dead_letters(tmp_path: Path) -> None:
    worker = Worker({})
    await worker.feed(minutes(range(10)))
    assert await worker.forecasts() == []
    assert (await worker.log.ends("deadletter"))[0] == 0
    worker.models["flow"] = model(tmp_path)
    await worker.feed(minutes(range(10, 20)))
    assert len(await worker.forecasts()) == 10


async def test_a_camera_clock_that_was_far_ahead_does_not_stop_its_forecasts(worker: Worker) -> None:
    await worker.feed(minutes(range(10)))
    await worker.feed([measure(60 * 24 * 365, 3.0)])
    await worker.feed(minutes(range(10, 16)))
    assert (await worker.forecasts())[-1].made_ns == MONDAY_NS + 16 * STEP_S * 10**9


async def test_minutes_of_a_camera_clock_that_was_ahead_are_not_used_when_their_time_comes(worker: Worker) -> None:
    await worker.feed(minutes(range(10)))
    await worker.feed(minutes(range(120, 121)))
    await worker.feed(minutes(range(10, 14)))
    await worker.feed(minutes(range(122, 123)))
    last = (await worker.forecasts())[-1]
    assert (last.made_ns, last.observed) == (MONDAY_NS + 123 * STEP_S * 10**9, 0.25)


async def test_late_minutes_of_earlier_days_do_not_change_the_forecasts(tmp_path: Path) -> None:
    """After an outage, the late lane delivers old minutes between the present ones."""
    steady, late = (Worker({"flow": model(tmp_path)}) for _ in range(2))
    found = list(minutes(range(140)))
    await steady.feed(found)
    size = len(MINUTES_PER_STEP)
    await late.feed(found[: 130 * size])
    for step in range(130, 140):
        old = measure((step - 130) * 15 + 1, 5.0)
        await late.feed([old.model_copy(update={"parts": {"late": MinuteTally()}})])
        await late.feed(found[step * size : (step + 1) * size])
    assert await late.forecasts() == await steady.forecasts()


async def test_a_restarted_worker_makes_the_same_forecasts_after_a_late_minute_older_than_the_history(
    tmp_path: Path,
) -> None:
    steady, killed = (Worker({"flow": model(tmp_path)}) for _ in range(2))
    found = list(minutes(range(262)))
    late = measure(1, 5.0).model_copy(update={"parts": {"late": MinuteTally()}})
    found.insert(250 * len(MINUTES_PER_STEP), late)
    await steady.feed(found)
    await killed.feed(found[:2020])
    killed.kill()
    await killed.feed(found[2020:])
    assert await killed.forecasts() == await steady.forecasts()


@pytest.mark.parametrize("change", [{"value": "bus.forward"}, {"measure": "tunnel"}])
async def test_a_forecast_that_is_changed_to_another_measure_discards_the_minutes_of_the_earlier_measure(
    change: dict[str, str], worker: Worker
) -> None:
    await worker.feed(minutes(range(20)))
    changed = FLOW.model_copy(update=change)
    worker.stage.configure(Config({entry.key: entry for entry in (BRIDGE, changed)}))
    name = change.get("measure", "bridge")
    await worker.feed(
        one.model_copy(update={"name": name, "values": {changed.value: 1.0}}) for one in minutes(range(20, 22))
    )
    found = (await worker.forecasts())[20:]
    assert [(one.measure, one.value, one.observed) for one in found] == [
        (name, changed.value, 0.25),
        (name, changed.value, 0.5),
    ]
    assert found[-1].skill == ()


async def test_minutes_of_a_mean_speed_are_averaged_even_for_a_model_trained_on_counts(
    tmp_path: Path,
) -> None:
    speeds = FLOW.model_copy(update={"value": "speed_km_h.forward.mean"})
    worker = Worker({"flow": model(tmp_path)}, (BRIDGE, speeds))
    await worker.feed(one.model_copy(update={"values": {speeds.value: 70.0}}) for one in minutes(range(10)))
    last = (await worker.forecasts())[-1]
    assert 40.0 < last.points[0].value < 80.0


def _again(one: object) -> object:
    from ingest.kafka.log import LogRecord, Outgoing

    assert isinstance(one, LogRecord)
    return Outgoing(one.topic, one.partition, one.value, key=one.key, headers=one.headers)
