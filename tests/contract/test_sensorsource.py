"""Contract of every source of readings."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.exceptions import SourceError
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.source import SensorSource
from ingest.runtime.clock import SystemClock
from ingest.site import SensorConfig
from tests.edge_agent.sensors.listener import Listener, ended, running, sensor
from tests.peers import modbus, mosquitto
from tests.peers.network.wires import Line, wired

PRINTS_READINGS = """
import itertools, sys, time
for value in itertools.count():
    print("a", value, flush=True)
    print('{"b": %d}' % -value, flush=True)
    time.sleep(0.005)
"""


def source_of(*sensors: SensorConfig) -> SensorSource:
    ((source, fed),) = make_sources(sensors, SystemClock())
    assert fed == list(sensors)
    return source


class SensorSourceContract:
    """Tests that every source of readings passes.

    Each source has a subclass. The source reads ``sensors``, whose device sends readings without a request.
    """

    @pytest.fixture
    def sensors(self) -> list[SensorConfig]:
        pytest.fail("each source overrides this fixture")

    @pytest.fixture
    def gone(self) -> SensorConfig | None:
        """Return a sensor whose device is missing; None if a device cannot be missing."""
        return None

    async def test_every_sensor_of_a_source_has_finite_readings(self, sensors: list[SensorConfig]) -> None:
        sink = Listener()
        async with running(source_of(*sensors), sink):
            for each in sensors:
                await sink.has(each.name, 3)
        assert sink.opens
        for each in sensors:
            found = [value for value in sink.values(each.name) if value is not None]
            assert len(found) >= 3
            assert all(math.isfinite(value) for value in found)

    async def test_a_cancelled_sensor_source_stops_and_may_run_again(self, sensors: list[SensorConfig]) -> None:
        """The checks of the suite find leaked tasks and processes."""
        source = source_of(*sensors)
        for _ in range(2):
            sink = Listener()
            async with running(source, sink) as task:
                await sink.has(sensors[0].name)
            assert task.cancelled()

    async def test_a_sensor_source_may_be_cancelled_before_it_has_started(self, sensors: list[SensorConfig]) -> None:
        async with running(source_of(*sensors), Listener()):
            await asyncio.sleep(0)

    async def test_each_run_of_a_sensor_source_without_its_device_raises_an_error(
        self, gone: SensorConfig | None
    ) -> None:
        if gone is None:
            return
        source = source_of(gone)
        for _ in range(2):
            async with running(source, Listener()) as task:
                assert isinstance(await ended(task), SourceError)


@contextlib.asynccontextmanager
async def spoken(say: Callable[[int], Awaitable[object]]) -> AsyncIterator[None]:
    """Send readings repeatedly, as a device does."""
    stop = asyncio.Event()

    async def speak() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            await say(number)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        stop.set()
        await task


class TestSimulatedSensor(SensorSourceContract):
    @pytest.fixture
    def sensors(self) -> list[SensorConfig]:
        return [sensor("a", "simulated:temperature")]


class TestHost(SensorSourceContract):
    @pytest.fixture(params=["cpu", "memory", "load", "disk"])
    def sensors(self, request: pytest.FixtureRequest) -> list[SensorConfig]:
        return [sensor("a", f"host:{request.param}")]


class TestCommand(SensorSourceContract):
    @pytest.fixture
    def sensors(self) -> list[SensorConfig]:
        options = {"argv": [sys.executable, "-c", PRINTS_READINGS]}
        return [sensor(name, "command:speaks", options=options) for name in ("a", "b")]

    @pytest.fixture
    def gone(self, tmp_path: Path) -> SensorConfig:
        return sensor("a", "command:gone", options={"argv": [str(tmp_path / "no-such-program")]})


class TestMqtt(SensorSourceContract):
    @pytest.fixture
    async def sensors(self, tmp_path: Path) -> AsyncIterator[list[SensorConfig]]:
        async with mosquitto.serving(tmp_path) as broker, aiomqtt.Client("127.0.0.1", broker.port) as device:

            async def say(number: int) -> None:
                await device.publish("plant/a", str(number), qos=1)
                await device.publish("plant/deep/b", json.dumps({"value": number}), qos=1)

            async with spoken(say):
                options = {"port": broker.port}
                topics = {"a": "plant/a", "b": "plant/+/b"}
                yield [sensor(name, f"mqtt:{topic}", options=options) for name, topic in topics.items()]

    @pytest.fixture
    def gone(self) -> SensorConfig:
        return sensor("a", "mqtt:plant/a", options={"port": 9})


class TestSerial(SensorSourceContract):
    @pytest.fixture
    async def sensors(self) -> AsyncIterator[list[SensorConfig]]:
        line = Line()

        async def say(number: int) -> None:
            line.say(f"a {number}\nb {-number}\n".encode())

        async with spoken(say):
            yield [sensor(name, f"serial:{line.path}") for name in ("a", "b")]
        line.hang_up()

    @pytest.fixture
    def gone(self, tmp_path: Path) -> SensorConfig:
        return sensor("a", f"serial:{tmp_path / 'no-such-device'}")


class TestModbusTcp(SensorSourceContract):
    @pytest.fixture
    async def sensors(self) -> AsyncIterator[list[SensorConfig]]:
        port = mosquitto.free_port()
        async with modbus.serving("tcp", str(port)):
            source = f"modbus:127.0.0.1:{port}"
            yield [sensor("a", source, options={"address": 0}), sensor("b", source, options={"address": 1})]

    @pytest.fixture
    def gone(self) -> SensorConfig:
        return sensor("a", "modbus:127.0.0.1:9", options={"address": 0})


class TestModbusRtu(SensorSourceContract):
    @pytest.fixture
    async def sensors(self) -> AsyncIterator[list[SensorConfig]]:
        with wired() as (ours, theirs):
            async with modbus.serving("rtu", theirs):
                options = {"address": 0, "baud": 115200}
                yield [sensor(name, f"modbus:{ours}", options=options, rate_hz=50.0) for name in ("a", "b")]

    @pytest.fixture
    def gone(self, tmp_path: Path) -> SensorConfig:
        return sensor("a", f"modbus:{tmp_path / 'no-such-device'}", options={"address": 0})


def test_one_connection_to_a_device_delivers_the_readings_of_all_its_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    command = {"argv": ["read-sensors", "--all"]}
    sensors = [
        sensor("a", "command:all", options=command | {"field": "one"}),
        sensor("b", "command:all", options=command | {"field": "two"}),
        sensor("c", "command:all", options={"argv": ["read-sensors", "--else"]}),
        sensor("d", "simulated:temperature"),
        sensor("e", "simulated:temperature"),
    ]
    groups = [[each.name for each in fed] for _, fed in make_sources(sensors, SystemClock())]
    assert groups == [["a", "b"], ["c"], ["d"], ["e"]]
