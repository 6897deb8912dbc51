"""Tests of the view of the config topic and of its follower."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from structlog.testing import capture_logs

from ingest.contract.topics import CONFIG
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig
from ingest.site.topic.store import follow, publish
from ingest.site.topic.view import ConfigView

GATE = CameraConfig(name="gate", source="device:0")
YARD = CameraConfig(name="yard", source="device:1")


def json_of(camera: CameraConfig) -> bytes:
    return camera.model_dump_json().encode()


class TestView:
    def test_the_newest_entry_of_a_config_key_is_used_until_its_tombstone(self) -> None:
        view = ConfigView()
        for _ in range(2):
            view.apply(GATE.key, json_of(GATE))
            assert view.config.of(CameraConfig) == (GATE,)
        for _ in range(2):
            view.apply(GATE.key, b"")
            assert view.config.of(CameraConfig) == ()

    def test_an_invalid_config_entry_is_refused_and_the_last_valid_entry_is_used(self) -> None:
        view = ConfigView({GATE.key: GATE})
        view.apply(GATE.key, b'{"name": "gate", "source": "device:0", "fps": -1}')
        assert view.config.of(CameraConfig) == (GATE,)
        assert "fps" in view.config.refused[GATE.key]
        assert "greater than 0" in view.config.refused[GATE.key]
        view.apply(GATE.key, json_of(GATE))
        assert view.config.refused == {}

    def test_a_config_entry_under_the_key_of_another_entry_is_refused(self) -> None:
        view = ConfigView()
        view.apply(YARD.key, json_of(GATE))
        assert view.config.entries == {}
        assert view.config.refused["camera/yard"].startswith("config topic: camera/yard = 'camera/gate': expected")

    @pytest.mark.parametrize("key", ["", "nonsense", "camera/", "camera/Ünïcode"])
    def test_the_config_view_accepts_any_key_and_value_without_an_error(self, key: str) -> None:
        view = ConfigView()
        view.apply(key, b"\xff\x00")
        assert view.config.entries == {}

    def test_config_entries_missing_from_a_reread_topic_are_removed_unless_their_key_has_an_invalid_record(
        self,
    ) -> None:
        """Compaction deletes a removed entry, and after a day its tombstone too."""
        view = ConfigView({GATE.key: GATE, YARD.key: YARD})
        view.begin_reading()
        view.apply(GATE.key, b"{}")
        view.finish_reading()
        assert view.config.of(CameraConfig) == (GATE,)

    def test_only_config_keys_with_a_tombstone_are_listed_as_removed(self) -> None:
        view = ConfigView({GATE.key: GATE, YARD.key: YARD})
        view.begin_reading()
        view.apply(YARD.key, b"")
        view.finish_reading()
        assert (view.config.entries, view.removed) == ({}, {YARD.key})
        view.apply(YARD.key, json_of(YARD))
        assert view.removed == frozenset()

    def test_a_config_entry_that_is_refused_repeatedly_is_logged_once_with_a_shortened_value(self) -> None:
        view, bad = ConfigView(), b'{"name": "gate", "source": "x", "fps": "' + b"1" * 10**6 + b'x"}'
        with capture_logs() as logged:
            for _ in range(3):
                view.apply("camera/" + "g" * 10**6, bad)
                view.apply(GATE.key, bad)
                view.finish_reading()
        assert [line["event"] for line in logged] == ["config_entry_refused"] * 2
        assert len(str(logged)) < 4000
        assert all(len(why) < 1000 for why in view.config.refused.values())


async def changes_of(log: MemoryLog, view: ConfigView) -> asyncio.Queue[ConfigView]:
    changes: asyncio.Queue[ConfigView] = asyncio.Queue()
    log.following = asyncio.create_task(follow(lambda: log, view, changes.put, pause_s=0.0))  # type: ignore[attr-defined]
    return changes


async def test_the_config_follower_reports_each_change() -> None:
    log, view = MemoryLog(), ConfigView()
    await publish(log, [GATE, YARD])
    changes = await changes_of(log, view)
    async with asyncio.timeout(60):
        assert (await changes.get()).config.of(CameraConfig) == (GATE, YARD)
        await publish(log, [], removed=[YARD.key])
        assert (await changes.get()).config.of(CameraConfig) == (GATE,)
        await log.produce(Outgoing(CONFIG, 0, b"{}", key=YARD.key.encode()))
        assert list((await changes.get()).config.refused) == [YARD.key]
        await publish(log, [YARD])
        assert (await changes.get()).config.refused == {}
    log.following.cancel()  # type: ignore[attr-defined]


async def test_the_config_follower_reports_an_empty_topic_once() -> None:
    log = MemoryLog()
    changes = await changes_of(log, ConfigView({GATE.key: GATE}))
    async with asyncio.timeout(60):
        assert (await changes.get()).config.of(CameraConfig) == ()
    for _ in range(10):
        await asyncio.sleep(0)
    assert changes.empty()
    log.following.cancel()  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [LogUnavailable("gone"), ConfigError("environment", "FILE", "x", "a password")])
async def test_the_config_follower_retries_a_log_that_does_not_answer(error: Exception) -> None:
    log, tries, plain = MemoryLog(), 0, MemoryLog.ends

    async def ends(topic: str) -> object:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise error
        return await plain(log, topic)

    log.ends = ends  # type: ignore[method-assign, assignment]
    await publish(log, [GATE])
    changes = await changes_of(log, ConfigView())
    async with asyncio.timeout(60):
        assert (await changes.get()).config.of(CameraConfig) == (GATE,)
    log.following.cancel()  # type: ignore[attr-defined]


async def test_a_config_change_read_before_an_outage_is_reported_after_the_outage() -> None:
    log, plain, broken = MemoryLog(), MemoryLog.read, asyncio.Event()

    async def read(topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        async for record in plain(log, topic, partition, start, stop):
            yield record
        if start and not broken.is_set():
            broken.set()
            raise LogUnavailable("it went in the middle")

    log.read = read  # type: ignore[method-assign, assignment]
    await publish(log, [GATE])
    changes = await changes_of(log, ConfigView())
    async with asyncio.timeout(60):
        await changes.get()
        await publish(log, [YARD])
        assert (await changes.get()).config.of(CameraConfig) == (GATE, YARD)
    assert broken.is_set()
    log.following.cancel()  # type: ignore[attr-defined]


async def test_a_config_topic_that_was_created_again_is_read_from_its_beginning() -> None:
    log = MemoryLog()
    await publish(log, [GATE, GATE, YARD])
    changes = await changes_of(log, ConfigView())
    async with asyncio.timeout(60):
        assert (await changes.get()).config.of(CameraConfig) == (GATE, YARD)
        del log._records[TopicPartition(CONFIG, 0)][:]
        await publish(log, [YARD])
        assert (await changes.get()).config.of(CameraConfig) == (YARD,)
    log.following.cancel()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("outage_logged", "level"), [(False, ["warning", "info"]), (True, ["debug", "debug"])])
async def test_an_outage_of_the_config_topic_logs_its_start_and_end_and_each_retry_opens_a_new_client(
    outage_logged: bool, level: list[str]
) -> None:
    """A client keeps its first password, so only a new client uses a rotated one."""
    made: list[MemoryLog] = []
    view, changes = ConfigView(), asyncio.Queue[ConfigView]()

    async def unauthorised(topic: str) -> dict[int, int]:
        raise LogUnavailable("TopicAuthorizationFailedError")

    def make() -> MemoryLog:
        made.append(MemoryLog())
        if len(made) < 4:
            made[-1].ends = unauthorised  # type: ignore[method-assign]
        return made[-1]

    with capture_logs() as logged:
        following = asyncio.create_task(
            follow(make, view, changes.put, pause_s=0.0, outage_logged=lambda: outage_logged)
        )
        async with asyncio.timeout(60):
            while not view.outage:
                await asyncio.sleep(0)
            assert "Authorization" in view.outage
            await changes.get()
    assert (len(made), view.outage) == (4, "")
    assert [line["event"] for line in logged] == ["config_topic_unavailable", "config_topic_available_again"]
    assert [line["log_level"] for line in logged] == level
    following.cancel()
