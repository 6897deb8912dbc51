"""Tests of the fleet: cameras are added, changed and removed while others run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from edge_agent.camera.camera import Camera
from edge_agent.exceptions import SourceUnusable, SpoolError
from edge_agent.fleet import Fleet
from edge_agent.sensors.feed import SensorFeed
from ingest.site import CameraConfig, SensorConfig

GATE = CameraConfig(name="gate", source="device:0")
YARD = CameraConfig(name="yard", source="device:1")
HEAT = SensorConfig(name="heat", source="simulated:temperature", quantity="t", unit="Cel")


class FakeFleetMember:
    """Fake member whose ``run`` returns after ``stop``, or raises the error given to ``fail``."""

    def __init__(self, log: list[str], config: Any) -> None:
        self.config, self._log = config, log
        self.result = asyncio.get_running_loop().create_future()
        self._log.append(f"+{config.name}")

    def stop(self) -> None:
        if not self.result.done():
            self.result.set_result(None)

    def fail(self, error: Exception) -> None:
        self.result.set_exception(error)

    async def run(self) -> None:
        await self.result
        self._log.append(f"-{self.config.name}")


class FakeCamera(FakeFleetMember, Camera):  # type: ignore[misc]
    """Fake member with the interface of a ``Camera``."""


class FakeFeed(FakeFleetMember, SensorFeed):  # type: ignore[misc]
    """Fake member with the interface of a ``SensorFeed`` of one sensor."""

    def __init__(self, log: list[str], sensor: SensorConfig) -> None:
        super().__init__(log, sensor)
        self.sensors = [type("Fed", (), {"config": sensor})()]


class FleetRig:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.made: dict[str, FakeFleetMember] = {}
        self.refuse = False
        self.fleet = Fleet(self._camera, self._feeds)

    def _camera(self, config: CameraConfig) -> Camera:
        self.made[config.name] = camera = FakeCamera(self.log, config)
        return camera

    def _feeds(self, sensors: Sequence[SensorConfig]) -> list[SensorFeed]:
        if self.refuse:
            raise SourceUnusable("the sensors of one port differ in port settings")
        return [FakeFeed([], sensor) for sensor in sensors]


async def test_only_changed_cameras_restart_and_the_old_camera_ends_before_the_new_one_starts() -> None:
    rig = FleetRig()
    await rig.fleet.apply([GATE, YARD], [HEAT])
    assert [c.config.name for c in rig.fleet.cameras] == ["gate", "yard"]
    faster = YARD.model_copy(update={"fps": 3.0})
    await rig.fleet.apply([GATE, faster], [HEAT])
    assert rig.log == ["+gate", "+yard", "-yard", "+yard"]
    assert rig.fleet.cameras[1].config == faster
    await rig.fleet.apply([GATE], [HEAT])
    assert rig.log[4:] == ["-yard"]
    assert len(rig.fleet.sensors) == 1
    await rig.fleet.stop()
    assert rig.log[5:] == ["-gate"]
    assert rig.fleet.cameras == rig.fleet.sensors == []


async def test_an_equal_configuration_restarts_no_camera_of_the_agent() -> None:
    rig = FleetRig()
    await rig.fleet.apply([GATE], [HEAT])
    await rig.fleet.apply([CameraConfig(name="gate", source="device:0")], [HEAT])
    assert rig.log == ["+gate"]
    await rig.fleet.stop()


async def test_an_unusable_configuration_changes_no_camera_of_the_agent() -> None:
    rig = FleetRig()
    await rig.fleet.apply([GATE], [])
    rig.refuse = True
    with pytest.raises(SourceUnusable):
        await rig.fleet.apply([YARD], [HEAT])
    assert [c.config.name for c in rig.fleet.cameras] == ["gate"]
    await rig.fleet.stop()


async def test_the_failure_of_a_camera_added_later_is_raised() -> None:
    rig = FleetRig()
    await rig.fleet.apply([GATE], [])
    failed = asyncio.create_task(rig.fleet.failed())
    await rig.fleet.apply([GATE, YARD], [])
    rig.made["yard"].fail(SpoolError("the disk is gone"))
    with pytest.raises(SpoolError, match="the disk is gone"):
        await asyncio.wait_for(failed, 60)
    await rig.fleet.cancel()


async def test_the_fleet_ends_when_all_its_cameras_have_ended() -> None:
    rig = FleetRig()
    over = asyncio.create_task(rig.fleet.over.wait())
    await rig.fleet.apply([GATE, YARD], [HEAT])
    rig.made["gate"].stop()
    await asyncio.sleep(0)
    assert not over.done()
    rig.made["yard"].stop()
    await asyncio.wait_for(over, 60)
    await rig.fleet.stop()


async def test_cameras_end_cleanly_when_a_change_of_the_configuration_is_cancelled() -> None:
    """The agent stops while a camera that was removed still finishes its last frame."""
    rig, asked = FleetRig(), asyncio.Event()
    await rig.fleet.apply([GATE, YARD], [])
    gate = rig.made["gate"]
    finish, gate.stop = gate.stop, asked.set  # type: ignore[method-assign]
    changing = asyncio.create_task(rig.fleet.apply([YARD], []))
    await asked.wait()
    changing.cancel()
    await asyncio.gather(changing, return_exceptions=True)
    gate.stop = finish  # type: ignore[method-assign]
    await asyncio.wait_for(rig.fleet.stop(), 60)
    assert sorted(rig.log[2:]) == ["-gate", "-yard"]


async def test_the_restart_of_a_changed_camera_does_not_end_the_agent() -> None:
    rig = FleetRig()
    over = asyncio.create_task(rig.fleet.over.wait())
    await rig.fleet.apply([GATE], [])
    await rig.fleet.apply([GATE.model_copy(update={"fps": 3.0})], [])
    await asyncio.sleep(0)
    assert not over.done()
    rig.made["gate"].stop()
    await asyncio.wait_for(over, 60)
    await rig.fleet.stop()


async def test_the_failure_of_a_stopping_camera_is_raised_after_all_cameras_have_ended() -> None:
    rig = FleetRig()
    await rig.fleet.apply([GATE, YARD], [])
    rig.made["gate"].fail(SpoolError("the disk is gone"))
    with pytest.raises(SpoolError, match="the disk is gone"):
        await rig.fleet.stop()
    assert rig.log[2:] == ["-yard"]
    assert rig.fleet.cameras == []
