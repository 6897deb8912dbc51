"""Tests of the live data: pictures with their boxes, states of cameras, configuration, and outages of the log."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from console.access.roles import Identity, Limits, Role
from console.live.deployment import Deployment
from console.live.feed import Feed
from console.live.pictures import MAX_BYTES, MAX_FRAMES, CameraStream
from console.live.statuses import LATE_FRAMES, SILENT_S
from console.live.view import TopicReader
from console.live.viewer import MAX_IN_FLIGHT, LiveViewer
from ingest.contract.topics import EVENTS
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, GateConfig, RuleEntry
from ingest.site.file import UNNAMED
from ingest.site.topic.view import Config
from tests.console.records import JPEG, alert, configure, event, frame, result, status, write


def header(stream: CameraStream) -> dict[str, Any]:
    assert stream.picture
    message = stream.picture.message
    end = 4 + struct.unpack(">I", message[:4])[0]
    assert message[end:] == stream.picture.frame.image
    found: dict[str, Any] = json.loads(message[4:end])
    return found


def test_a_picture_is_shown_with_its_own_boxes_when_its_results_are_complete() -> None:
    stream = CameraStream()
    stream.add_frame(frame("gate", 0))
    stream.add_result(result("gate", 0))
    for seq in range(1, 3):
        stream.add_frame(frame("gate", seq))
    stream.add_result(result("gate", 1, "car", "one", ("one", "two")))
    assert header(stream)["frame"] == "gate/1/0"
    stream.add_result(result("gate", 1, "person", "two", ("one", "two")))
    shown = header(stream)
    assert shown["frame"] == "gate/1/1"
    assert shown["boxes"] == [[1, 2, 30, 20, "car", 0.88], [1, 2, 30, 20, "person", 0.88]]
    assert shown["analysed"]


def test_pictures_are_shown_without_boxes_if_results_do_not_come() -> None:
    stream = CameraStream()
    stream.add_frame(frame("gate", 0))
    assert header(stream) == {**header(stream), "frame": "gate/1/0", "boxes": [], "analysed": False}
    stream.add_result(result("gate", 0))
    for seq in range(1, 11):
        stream.add_frame(frame("gate", seq))
        assert header(stream)["frame"] == "gate/1/0"
    stream.add_frame(frame("gate", 11))
    assert header(stream)["frame"] == "gate/1/11"
    stream.add_result(result("gate", 5))
    assert header(stream)["frame"] == "gate/1/11"  # never goes back


def test_the_frames_and_results_of_a_camera_in_memory_are_limited_in_number_and_bytes() -> None:
    stream = CameraStream()
    for seq in range(100):
        stream.add_result(result("gate", 1000 + seq))
        stream.add_frame(frame("gate", seq, image=JPEG * 20_000))
    assert len(stream._frames) <= MAX_FRAMES
    assert sum(len(one.image) for one in stream._frames) <= MAX_BYTES
    assert len(stream._results) <= 2 * MAX_FRAMES
    stream.add_frame(frame("gate", 50))
    assert stream._frames[-1].seq == 99


def test_a_slow_viewer_skips_pictures_and_gets_the_newest_after_its_acknowledgement() -> None:
    stream, viewer = CameraStream(), LiveViewer()
    viewer.watch(["gate"])

    def shown() -> str | None:
        picture = viewer.next(lambda _: stream.picture, lambda _: True)
        return str(picture.frame.id) if picture else None

    assert shown() is None
    stream.add_frame(frame("gate", 0))
    assert shown() == "gate/1/0"
    for seq in range(1, 30):
        stream.add_frame(frame("gate", seq))
        assert shown() is None
    viewer.acknowledge("gate")
    assert shown() == "gate/1/29"
    viewer.acknowledge("gate")
    assert shown() is None


def test_cameras_of_a_viewer_take_turns_and_the_pictures_in_flight_are_limited() -> None:
    streams = {f"camera-{number}": CameraStream() for number in range(MAX_IN_FLIGHT + 5)}
    for name, stream in streams.items():
        stream.add_frame(frame(name, 0))
    viewer = LiveViewer()
    viewer.watch(streams)

    def sent() -> list[str]:
        found = iter(lambda: viewer.next(lambda name: streams[name].picture, lambda name: name != "camera-2"), None)
        return [picture.frame.camera for picture in found if picture]

    first = sent()
    assert len(first) == MAX_IN_FLIGHT
    assert "camera-2" not in first
    for name in first:
        viewer.acknowledge(name)
        streams[name].add_frame(frame(name, 100))
    assert set(sent()[:4]) == streams.keys() - set(first) - {"camera-2"}


async def test_the_console_reads_no_frames_until_someone_watches_the_live_wall() -> None:
    log = MemoryLog()
    feed = Feed(lambda _: log)
    await write(log, frame("gate", 0))
    await feed.catch_up(log)
    assert feed.cameras.picture("gate") is None
    feed.cameras.viewers = 1
    await feed.catch_up(log)
    picture = feed.cameras.picture("gate")
    assert picture
    assert picture.frame.seq == 0
    await write(log, frame("gate", 1), result("gate", 1))
    await feed.catch_up(log)
    assert (feed.cameras.picture("gate") or picture).frame.seq == 1


async def state(feed: Feed, log: MemoryLog, name: str = "gate") -> str:
    await feed.catch_up(log)
    camera = feed.deployment.camera(name)
    assert camera
    return feed.statuses.state_of(camera).name


async def test_the_state_of_a_camera_follows_its_agent_s_heartbeats(clock: ManualClock) -> None:
    log = MemoryLog(clock=clock)
    feed = Feed(lambda _: log, clock)
    await configure(log)
    assert await state(feed, log) == "unknown"
    for one, expected in (
        (status("gate", captured=10, kept=5), "live"),
        (status("gate", captured=30, kept=5), "live"),
        (status("gate", captured=50, kept=5), "gate closed"),
        (status("gate", captured=70, kept=6), "live"),
        (status("gate", "frozen"), "frozen"),
        (status("gate", "tampered"), "masked"),
        (status("gate", "stalled"), "stalled"),
        (status("gate", "down", reason="no route"), "down"),
        (status("gate", captured=90, kept=7), "live"),
    ):
        await write(log, one)
        assert await state(feed, log) == expected, one
        clock.advance(2.0)
    clock.advance(SILENT_S)
    assert await state(feed, log) == "silent"
    for number in range(7):
        await write(log, status("gate", captured=100 + number, kept=100 + number, spooled=LATE_FRAMES))
        assert await state(feed, log) == ("late" if number > 4 else "live")
        clock.advance(2.0)


async def test_a_camera_outside_its_armed_hours_is_disarmed(clock: ManualClock) -> None:
    log = MemoryLog(clock=clock)
    feed = Feed(lambda _: log, clock)
    gate = GateConfig.model_validate({"armed": [{"start": "02:00", "end": "02:01"}], "time_zone": "UTC"})
    await configure(log, CameraConfig(name="night", source="device:2", site="north", gate=gate))
    await write(log, status("night", captured=1, kept=1))
    assert await state(feed, log, "night") == "disarmed"


async def test_an_agent_with_a_wrong_clock_is_not_shown_as_silent(clock: ManualClock) -> None:
    log = MemoryLog(clock=clock)
    feed = Feed(lambda _: log, clock)
    await configure(log)
    clock.advance(1_000_000.0)
    await write(log, status("gate", captured=1, kept=1))  # the heartbeat says another time
    assert await state(feed, log) == "live"


async def test_shapes_of_rules_and_masks_are_drawn_and_broken_rules_are_left_out() -> None:
    log = MemoryLog()
    feed = Feed(lambda _: log)
    odd = RuleEntry(name="odd", type="zone", camera="gate", polygon="everything", lines={"a": [[0, 0], [1, 1]]})
    await configure(log, odd)
    await feed.catch_up(log)
    camera = feed.deployment.camera("gate")
    assert camera
    shapes = [(shape.kind, shape.name) for shape in feed.deployment.shapes_of(camera)]
    assert shapes == [("mask", "mask"), ("zone", "inside"), ("line", "odd")]


@pytest.mark.parametrize("number", ["nan", "inf", 10**400], ids=["nan", "inf", "huge"])
async def test_a_shape_without_finite_numbers_is_left_out(number: Any) -> None:
    log = MemoryLog()
    feed = Feed(lambda _: log)
    await configure(log, RuleEntry(name="odd", type="line", camera="gate", start=[number, 0], end=[1, 1]))
    await feed.catch_up(log)
    camera = feed.deployment.camera("gate")
    assert camera
    assert [shape.name for shape in feed.deployment.shapes_of(camera)] == ["mask", "inside"]


def test_the_shapes_of_all_cameras_need_few_passes_over_the_configuration() -> None:
    cameras = [CameraConfig(name=f"camera-{number}", source="device:0") for number in range(50)]
    rules = [
        RuleEntry(name=f"rule-{number}", type="line", camera=f"camera-{number}", start=[0, 0], end=[1, 1])
        for number in range(50)
    ]
    entries = CountedEntries((entry.key, entry) for entry in (*cameras, *rules))
    deployment = Deployment(Config(entries))
    one = Identity(1, "x", Role.VIEWER, Limits(everywhere=True), "session")
    for _ in range(3):  # as a wall does every second
        shapes = [deployment.shapes_of(camera) for camera in deployment.visible_cameras(one)]
        assert [len(found) for found in shapes] == [1] * 50
    assert entries.passes <= 2


class CountedEntries(dict[str, Any]):
    """Entries of a configuration that count how often they are all read."""

    passes = 0

    def items(self) -> Any:
        """Return the items, and count the call."""
        self.passes += 1
        return super().items()


async def test_users_see_only_cameras_and_sensors_of_the_sites_and_cameras_that_they_may_see() -> None:
    log = MemoryLog()
    feed = Feed(lambda _: log)
    await configure(log)
    await feed.catch_up(log)

    def seen(deployment: Deployment, **limits: Any) -> tuple[list[str], list[str]]:
        one = Identity(1, "x", Role.VIEWER, Limits(**limits), "session")
        cameras, sensors = deployment.visible_cameras(one), deployment.visible_sensors(one)
        return [camera.name for camera in cameras], [sensor.name for sensor in sensors]

    assert seen(feed.deployment) == ([], [])
    assert seen(feed.deployment, everywhere=True) == (["gate", "yard"], ["boiler"])
    assert seen(feed.deployment, sites=frozenset({"south"})) == (["yard"], ["boiler"])
    assert seen(feed.deployment, cameras=frozenset({"gate", "boiler"})) == (["gate"], [])


async def test_unreadable_records_are_skipped_and_counted() -> None:
    log = MemoryLog()
    feed = Feed(lambda _: log)
    await log.produce(Outgoing(EVENTS, 0, b"{broken"))
    await write(log, event(1))
    await feed.catch_up(log)
    assert feed.happenings.event("event-1")
    assert sum(reader.unreadable for reader in feed.readers) == 1


class BrokenLog(MemoryLog):
    """A log whose broker is gone while ``broken`` is set."""

    broken = True

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return the ends of a topic, or raise LogUnavailable."""
        if self.broken:
            raise LogUnavailable("the broker is gone")
        return await super().ends(topic)


async def test_events_stay_visible_during_a_broker_outage_and_new_ones_are_read_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("console.live.view.delay_s", lambda *_: 0.0)
    log = BrokenLog()
    log.broken = False
    feed = Feed(lambda _: log)
    reader: TopicReader = feed._records
    reader._pause_s = 0.0
    await write(log, event(1), alert(event(1)))
    running = asyncio.create_task(reader.run(lambda: log))
    try:
        await _spin(lambda: feed.happenings.event("event-1") is not None)
        log.broken = True
        await _spin(lambda: bool(reader.outage))
        assert reader.outage == "the broker is gone"
        assert feed.outage == reader.outage
        assert feed.happenings.event("event-1")
        log.broken = False
        await write(log, event(2))
        await _spin(lambda: feed.happenings.event("event-2") is not None)
        await _spin(lambda: not reader.outage)
        assert feed.happenings.counted == 1  # neither the past nor records that are read again are news
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _spin(done: Any) -> None:
    async with asyncio.timeout(30.0):
        while not done():
            await asyncio.sleep(0)


async def test_a_camera_or_sensor_without_a_known_site_does_not_belong_to_the_site_without_a_name() -> None:
    log = MemoryLog()
    feed = Feed(lambda _: log)
    limited = Identity(1, "x", Role.VIEWER, Limits(sites=frozenset({UNNAMED}), cameras=frozenset({"own"})), "session")
    own = CameraConfig(name="plain", source="device:3")

    def seen() -> list[bool]:
        cameras = [feed.deployment.sees_camera(limited, name) for name in ("gate", "removed", "own", "plain")]
        return [*cameras, feed.deployment.sees_sensor(limited, "boiler"), feed.deployment.sees_sensor(limited, "x")]

    assert seen() == [False, False, True, False, False, False]  # nothing is known before the topic has been read
    await configure(log, own)
    await feed.catch_up(log)
    assert seen() == [False, False, True, True, False, False]
