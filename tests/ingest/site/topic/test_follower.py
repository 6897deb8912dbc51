"""Following the config topic: what holds, what is refused, and what an outage does."""

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
from ingest.site.topic import follower as configfollow
from ingest.site.topic.follower import follow
from ingest.site.topic.store import publish
from ingest.site.topic.view import ConfigView

GATE = CameraConfig(name="gate", source="device:0")
YARD = CameraConfig(name="yard", source="device:1")


def json_of(camera: CameraConfig) -> bytes:
    return camera.model_dump_json().encode()


class TestView:
    def test_the_last_word_holds_and_a_tombstone_takes_it_out(self) -> None:
        view = ConfigView()
        for _ in range(2):
            view.take(GATE.key, json_of(GATE))
            assert view.config.cameras == (GATE,)
        for _ in range(2):
            view.take(GATE.key, b"")
            assert view.config.cameras == ()

    def test_a_bad_entry_is_refused_and_the_last_good_one_holds(self) -> None:
        view = ConfigView({GATE.key: GATE})
        view.take(GATE.key, b'{"name": "gate", "source": "device:0", "fps": -1}')
        assert view.config.cameras == (GATE,)
        assert "fps" in view.refused[GATE.key]
        assert "greater than 0" in view.refused[GATE.key]
        view.take(GATE.key, json_of(GATE))
        assert view.refused == {}

    def test_an_entry_under_another_ones_key_is_refused(self) -> None:
        view = ConfigView()
        view.take(YARD.key, json_of(GATE))
        assert view.config.entries == {}
        assert view.refused["camera/yard"].startswith("config topic: camera/yard = 'camera/gate': expected")

    @pytest.mark.parametrize("key", ["", "nonsense", "camera/", "camera/Ünïcode"])
    def test_any_key_and_value_can_be_taken(self, key: str) -> None:
        view = ConfigView()
        view.take(key, b"\xff\x00")
        assert view.config.entries == {}

    def test_what_a_whole_reading_does_not_find_is_gone_but_a_last_good_one_holds(self) -> None:
        """Compaction takes an entry that was removed, and after a day its tombstone too."""
        view = ConfigView({GATE.key: GATE, YARD.key: YARD})
        view.begin()
        view.take(GATE.key, b"{}")
        view.caught_up()
        assert view.config.cameras == (GATE,)

    def test_what_is_said_to_be_removed_can_be_told_from_what_is_only_not_there(self) -> None:
        view = ConfigView({GATE.key: GATE, YARD.key: YARD})
        view.begin()
        view.take(YARD.key, b"")
        view.caught_up()
        assert (view.config.entries, view.removed) == ({}, {YARD.key})
        view.take(YARD.key, json_of(YARD))
        assert view.removed == frozenset()

    def test_a_refusal_is_told_once_however_often_it_is_said_and_is_short(self) -> None:
        view, bad = ConfigView(), b'{"name": "gate", "source": "x", "fps": "' + b"1" * 10**6 + b'x"}'
        with capture_logs() as said:
            for _ in range(3):
                view.take("camera/" + "g" * 10**6, bad)
                view.take(GATE.key, bad)
                view.caught_up()
        assert [line["event"] for line in said] == ["entry refused"] * 2
        assert len(str(said)) < 4000
        assert all(len(why) < 1000 for why in view.refused.values())


async def seen(log: MemoryLog, view: ConfigView, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[ConfigView]:
    monkeypatch.setattr(configfollow, "FOLLOW_S", 0.0)
    changes: asyncio.Queue[ConfigView] = asyncio.Queue()
    log.following = asyncio.create_task(follow(lambda: log, view, changes.put))  # type: ignore[attr-defined]
    return changes


async def test_changes_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log, view = MemoryLog(), ConfigView()
    await publish(log, [GATE, YARD])
    changes = await seen(log, view, monkeypatch)
    async with asyncio.timeout(5):
        assert (await changes.get()).config.cameras == (GATE, YARD)
        await publish(log, [], removed=[YARD.key])
        assert (await changes.get()).config.cameras == (GATE,)
        await log.produce(Outgoing(CONFIG, 0, b"{}", key=YARD.key.encode()))
        assert list((await changes.get()).refused) == [YARD.key]
        await publish(log, [YARD])
        assert (await changes.get()).refused == {}
    log.following.cancel()  # type: ignore[attr-defined]


async def test_an_empty_topic_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    changes = await seen(log, ConfigView({GATE.key: GATE}), monkeypatch)
    async with asyncio.timeout(5):
        assert (await changes.get()).config.cameras == ()
    for _ in range(10):
        await asyncio.sleep(0)
    assert changes.empty()
    log.following.cancel()  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [LogUnavailable("gone"), ConfigError("environment", "FILE", "x", "a password")])
async def test_a_log_that_does_not_answer_is_asked_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    log, tries, plain = MemoryLog(), 0, MemoryLog.ends

    async def ends(topic: str) -> object:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise error
        return await plain(log, topic)

    log.ends = ends  # type: ignore[method-assign, assignment]
    await publish(log, [GATE])
    changes = await seen(log, ConfigView(), monkeypatch)
    async with asyncio.timeout(5):
        assert (await changes.get()).config.cameras == (GATE,)
    log.following.cancel()  # type: ignore[attr-defined]


async def test_a_change_that_was_read_before_an_outage_is_told_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log, plain, broken = MemoryLog(), MemoryLog.read, asyncio.Event()

    async def read(topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        async for record in plain(log, topic, partition, start, stop):
            yield record
        if start and not broken.is_set():
            broken.set()
            raise LogUnavailable("it went in the middle")

    log.read = read  # type: ignore[method-assign, assignment]
    await publish(log, [GATE])
    changes = await seen(log, ConfigView(), monkeypatch)
    async with asyncio.timeout(5):
        await changes.get()
        await publish(log, [YARD])
        assert (await changes.get()).config.cameras == (GATE, YARD)
    assert broken.is_set()
    log.following.cancel()  # type: ignore[attr-defined]


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    await publish(log, [GATE, GATE, YARD])
    changes = await seen(log, ConfigView(), monkeypatch)
    async with asyncio.timeout(5):
        assert (await changes.get()).config.cameras == (GATE, YARD)
        del log._records[TopicPartition(CONFIG, 0)][:]
        await publish(log, [YARD])
        assert (await changes.get()).config.cameras == (YARD,)
    log.following.cancel()  # type: ignore[attr-defined]


async def test_an_outage_is_told_once_at_its_beginning_and_once_at_its_end_and_each_try_has_a_log_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client keeps the password that it was made with: only a new one takes up what was rotated."""
    monkeypatch.setattr(configfollow, "FOLLOW_S", 0.0)
    made: list[MemoryLog] = []
    view, changes = ConfigView(), asyncio.Queue[ConfigView]()

    async def unauthorised(topic: str) -> dict[int, int]:
        raise LogUnavailable("TopicAuthorizationFailedError")

    def make() -> MemoryLog:
        made.append(MemoryLog())
        if len(made) < 4:
            made[-1].ends = unauthorised  # type: ignore[method-assign]
        return made[-1]

    with capture_logs() as said:
        following = asyncio.create_task(follow(make, view, changes.put))
        async with asyncio.timeout(5):
            while not view.trouble:
                await asyncio.sleep(0)
            assert "Authorization" in view.trouble
            await changes.get()
    assert (len(made), view.trouble) == (4, "")
    assert [line["event"] for line in said] == ["config topic not read", "config topic read again"]
    following.cancel()
