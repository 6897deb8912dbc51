"""Tests of reading and writing the config topic."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ingest.contract.topics import CONFIG
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.metrics import ConfigMetrics
from ingest.site import CameraConfig, PinConfig, PipelineConfig, ReceiverConfig, SensorConfig
from ingest.site.topic.store import publish, read
from ingest.site.topic.view import Config
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.rules import validated
from stream.sense.rule import SensorRule
from stream.sense.rules.threshold import ThresholdRule

GATE = CameraConfig(name="gate", source="device:0")
YARD = CameraConfig(name="yard", source="device:1")
CARS = PipelineConfig(name="cars", model="m", width=4, height=4)
LINE = LineRule(name="in", camera="gate", pipeline="cars", start=(0, 0), end=(1, 1))
ZONE = ZoneRule(name="zone", camera="gate", pipeline="cars", polygon=((0, 0), (1, 0), (1, 1)))
SENSOR = SensorConfig(name="t", source="simulated:x", quantity="q", unit="u")
HOT = ThresholdRule(name="hot", sensor="t", above=3.0)
PAGER = ReceiverConfig(name="pager", url="http://x", secret_file=Path("s"))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


async def test_an_empty_config_topic_gives_an_empty_configuration(log: MemoryLog) -> None:
    assert await read(log) == Config({})


async def test_config_entries_of_one_kind_are_sorted_by_name(log: MemoryLog) -> None:
    await publish(log, [YARD, GATE, CARS, ZONE, LINE, SENSOR, HOT, PAGER, PinConfig(name="gate", partition=3)])
    config = await read(log, validate=validated)
    assert config.of(CameraConfig) == (GATE, YARD)
    assert config.of(PipelineConfig) == (CARS,)
    assert config.of(SensorConfig) == (SENSOR,)
    assert config.of(ReceiverConfig) == (PAGER,)
    assert config.of(CameraRule) == (LINE, ZONE)
    assert config.of(SensorRule) == (HOT,)
    assert config.pins == {"gate": 3}


async def test_the_newest_record_of_a_config_key_is_used(log: MemoryLog) -> None:
    await publish(log, [GATE, YARD])
    changed = GATE.model_copy(update={"fps": 3.0})
    await publish(log, [changed], removed=[YARD.key])
    assert (await read(log)).entries == {GATE.key: changed}
    await publish(log, [YARD])
    assert (await read(log)).of(CameraConfig) == (changed, YARD)


async def test_a_compacted_config_topic_is_read_completely(log: MemoryLog) -> None:
    await publish(log, [GATE, GATE, YARD])
    log.forget(TopicPartition(CONFIG, 0), 1)
    assert (await read(log)).of(CameraConfig) == (GATE, YARD)


async def test_an_invalid_config_entry_is_logged_and_counted_and_other_entries_are_read(log: MemoryLog) -> None:
    await publish(log, [GATE, CARS])
    await log.produce(Outgoing(CONFIG, 0, b'{"name": "gate"}', key=b"camera/gate"))
    await log.produce(Outgoing(CONFIG, 0, b'{"name": "yard"}', key=b"camera/yard"))
    registry = CollectorRegistry()
    with capture_logs() as logged:
        config = await read(log, ConfigMetrics(registry))
    assert config.of(CameraConfig) == (GATE,)  # the last valid one
    assert config.of(PipelineConfig) == (CARS,)
    assert "config topic, camera/gate: source" in config.refused["camera/gate"]
    assert [(line["key"], line["kept"]) for line in logged] == [("camera/gate", True), ("camera/yard", False)]
    assert "sightline config apply" in logged[0]["remedy"]
    assert registry.get_sample_value("sightline_config_refused_entries") == 2


async def test_an_invalid_config_entry_that_was_replaced_is_not_logged(log: MemoryLog) -> None:
    await log.produce(Outgoing(CONFIG, 0, b"{}", key=b"camera/gate"))
    await publish(log, [GATE])
    with capture_logs() as logged:
        assert (await read(log)).refused == {}
    assert logged == []


async def test_a_valid_config_entry_or_tombstone_replaces_an_invalid_entry(log: MemoryLog) -> None:
    await log.produce(Outgoing(CONFIG, 0, b"{}", key=b"camera/gate"))
    await log.produce(Outgoing(CONFIG, 0, b"{}", key=b"camera/yard"))
    await publish(log, [GATE], removed=[YARD.key])
    assert (await read(log)).of(CameraConfig) == (GATE,)
