"""Following the config topic: what holds, what is refused, and what an outage does."""

from __future__ import annotations

import asyncio

import pytest

from ingest import configfollow
from ingest.configfollow import View, follow
from ingest.configstore import publish
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.log import Outgoing
from ingest.memorylog import MemoryLog
from ingest.site import CameraConfig
from ingest.topics import CONFIG

GATE = CameraConfig(name="gate", source="device:0")
YARD = CameraConfig(name="yard", source="device:1")


def json_of(camera: CameraConfig) -> bytes:
    return camera.model_dump_json().encode()


class TestView:
    def test_the_last_word_holds_and_a_tombstone_takes_it_out(self) -> None:
        view = View()
        assert view.take(GATE.key, json_of(GATE))
        assert not view.take(GATE.key, json_of(GATE))
        assert view.config.cameras == (GATE,)
        assert view.take(GATE.key, b"")
        assert not view.take(GATE.key, b"")
        assert view.config.cameras == ()

    def test_a_bad_entry_is_refused_and_the_last_good_one_holds(self) -> None:
        view = View({GATE.key: GATE})
        assert not view.take(GATE.key, b'{"name": "gate", "source": "device:0", "fps": -1}')
        assert view.config.cameras == (GATE,)
        assert "fps" in view.refused[GATE.key]
        assert "greater than 0" in view.refused[GATE.key]
        assert not view.take(GATE.key, json_of(GATE))
        assert view.refused == {}

    def test_an_entry_under_another_ones_key_is_refused(self) -> None:
        view = View()
        assert not view.take(YARD.key, json_of(GATE))
        assert view.refused == {"camera/yard": "config topic, camera/yard: it names itself camera/gate"}

    @pytest.mark.parametrize("key", ["", "nonsense", "camera/", "camera/Ünïcode"])
    def test_any_key_and_value_can_be_taken(self, key: str) -> None:
        view = View()
        assert not view.take(key, b"\xff\x00")
        assert view.config.entries == {}


async def seen(log: MemoryLog, view: View, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[View]:
    monkeypatch.setattr(configfollow, "FOLLOW_S", 0.0)
    changes: asyncio.Queue[View] = asyncio.Queue()
    log.following = asyncio.create_task(follow(log, view, changes.put))  # type: ignore[attr-defined]
    return changes


async def test_changes_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log, view = MemoryLog(), View()
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
    changes = await seen(log, View({GATE.key: GATE}), monkeypatch)
    async with asyncio.timeout(5):
        assert (await changes.get()).config.cameras == (GATE,)
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
    changes = await seen(log, View(), monkeypatch)
    async with asyncio.timeout(5):
        assert (await changes.get()).config.cameras == (GATE,)
    log.following.cancel()  # type: ignore[attr-defined]
