"""Tests of the minutes of measured sensors, and of forecasts of these minutes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cli.training.forecast import SeriesSource, series_from_log
from ingest.contract.codec import decode_json, encode
from ingest.contract.records import GOOD, SUSPECT, Measure, Readings
from ingest.contract.topics import MEASURES, READINGS
from ingest.kafka.log import Outgoing
from ingest.site import ForecastConfig, SensorConfig
from stream.sense.minutes import MEAN
from stream.sense.rules.forecast import EarlyWarningRule
from tests.stream.sense.forecast.series import MONDAY_NS, SLOTS, STEP_S, model, usual
from tests.stream.sense.forecast.test_stage_forecasts import Worker

OVEN = SensorConfig(
    name="oven", source="simulated:t", quantity="temperature", unit="Cel", place="bakery", site="north", measure=True
)
FLOW = ForecastConfig(name="flow", measure="oven", value=MEAN, model="flow")
HOT = EarlyWarningRule(name="hot", forecast="flow", above=100.0, steps=2)
ENTRIES = (OVEN, FLOW, HOT)
EVERY_S = 20
PER_RECORD = 7


def readings(first: int, values: list[float], quality: list[int] | None = None) -> Outgoing:
    """Return a record of readings, one every ``EVERY_S`` seconds; ``first`` is the number of the first one."""
    found = Readings(
        sensor="oven",
        epoch=1,
        seq=first,
        quantity="temperature",
        unit="Cel",
        times_ns=tuple(MONDAY_NS + (first + k) * EVERY_S * 10**9 for k in range(len(values))),
        values=tuple(values),
        quality=tuple(quality or [GOOD] * len(values)),
    )
    return Outgoing(READINGS, 0, encode(found), key=b"oven")


def day(steps: int, factor: float = 1.0) -> Iterator[Outgoing]:
    """Yield the readings of some steps of ``STEP_S``: the usual temperature with noise, in the last two steps times
    ``factor``."""
    chance, per_step = random.Random(3), STEP_S // EVERY_S
    values = [
        (factor if number // per_step >= steps - 2 else 1.0) * usual(number // per_step % SLOTS) + chance.gauss(0, 1)
        for number in range(steps * per_step)
    ]
    for first in range(0, len(values), PER_RECORD):
        yield readings(first, values[first : first + PER_RECORD])


async def fed(worker: Worker, records: Iterator[Outgoing], kill_every: int = 0) -> Worker:
    """Process records, and kill the worker after each ``kill_every`` records."""
    for number, one in enumerate(records, 1):
        await worker.log.produce(one)
        if kill_every and number % kill_every == 0:
            await worker.runner.run()
            worker.kill()
    await worker.runner.run()
    return worker


async def measures(worker: Worker) -> list[Measure]:
    end = (await worker.log.ends(MEASURES))[0]
    return [decode_json(Measure, one.value) async for one in worker.log.read(MEASURES, 0, 0, end)]


async def test_the_minute_value_of_a_sensor_is_the_mean_of_its_good_readings() -> None:
    records = [readings(0, [1.0, 2.0, 6.0, 10.0], [GOOD, GOOD, GOOD, SUSPECT]), readings(4, [20.0, 24.0])]
    worker = await fed(Worker({}, (OVEN,)), iter(records))
    (first,) = await measures(worker)  # the second minute ends with the first reading of the third one
    assert (first.name, first.type, first.site, first.start_ns) == ("oven", "sensor", "north", MONDAY_NS)
    assert first.values == {"value.mean": 3.0, "readings": 3.0}
    await fed(worker, iter([readings(60, [9.0])]))  # after a gap of many minutes
    assert [one.values["value.mean"] for one in await measures(worker)] == [3.0, 22.0]


async def test_a_sensor_without_the_setting_measure_writes_no_minute_records() -> None:
    worker = await fed(Worker({}, (OVEN.model_copy(update={"measure": False}),)), day(2))
    assert await measures(worker) == []


@pytest.mark.parametrize("kill_every", [1, 2, 5])
async def test_a_restarted_worker_writes_the_same_minutes_of_a_sensor(kill_every: int) -> None:
    steady = await measures(await fed(Worker({}, (OVEN,)), day(2)))
    killed = await measures(await fed(Worker({}, (OVEN,)), day(2), kill_every))
    assert len(steady) == 29
    assert killed == steady


async def test_the_early_warning_of_a_sensor_forecast_names_the_sensor_and_its_place(tmp_path: Path) -> None:
    worker = await fed(Worker({"flow": model(tmp_path)}, ENTRIES), day(24, factor=4.0))
    found = await worker.forecasts()
    assert [one.camera for one in found] == ["oven"] * 23
    assert len(found[-1].points) == 3
    (event,) = await worker.events()
    assert (event.data.rule, event.data.sensor, event.data.camera, event.place) == (
        "hot",
        "oven",
        None,
        "north/bakery",
    )


async def test_restarted_workers_write_the_same_forecasts_of_a_sensor(tmp_path: Path) -> None:
    models = {"flow": model(tmp_path)}
    steady = await fed(Worker(models, ENTRIES), day(24, factor=4.0))
    killed = await fed(Worker(models, ENTRIES), day(24, factor=4.0), 70)
    assert await killed.forecasts() == await steady.forecasts()
    assert await killed.events() == await steady.events()


async def test_a_training_reads_the_minutes_of_a_sensor_from_the_log() -> None:
    worker = await fed(Worker({}, (OVEN,)), day(4))
    series = await series_from_log(worker.log, "oven", 0, SeriesSource("", MEAN, "", "", "iso", "UTC", STEP_S))
    assert [round(value) for value in series.values] == [round(usual(slot)) for slot in range(4)]
