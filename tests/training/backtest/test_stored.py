"""Tests of the stored results that a backtest reads in step with its frames."""

from __future__ import annotations

import pytest

from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.topics import FRAMES, RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from tests.paths import MODELS
from tests.training.backtest.livesite import BEGIN_NS, LiveSite, site
from tests.training.backtest.test_run import result
from training.backtest import stored
from training.backtest.core import ResultKey
from training.backtest.stored import StoredResults

COUNT = 20


def key(camera: str, seq: int) -> ResultKey:
    return ResultKey(FrameId(camera, 1, seq), LIVE, "p")


async def opened() -> StoredResults:
    """Return the reader of a log with live and late results of ``yard``, and without results of ``north``."""
    log, config = MemoryLog(1, ManualClock(started_ns=BEGIN_NS)), site()
    for seq in range(COUNT):
        for lane in (LIVE, LATE):
            headers = h.frame_headers([FrameId("yard", 1, seq)], lane, pipeline="p")
            value = encode(result(seq, lane=lane))
            await log.produce(Outgoing(RESULTS, 0, value, b"yard", headers))
    plan = LiveSite(log, config, []).plan(MODELS, end_s=100.0)
    reader = StoredResults(log, TopicPartition(FRAMES, 0), plan)
    await reader.open()
    return reader


async def test_a_reader_of_stored_results_keeps_no_results_of_the_other_lane_in_memory() -> None:
    reader = await opened()
    found = await reader.take([key("yard", seq) for seq in range(COUNT)])
    assert [one.seq for one in found.values()] == list(range(COUNT))
    assert len(reader._waiting) == 0
    await reader.close()


async def test_a_camera_without_results_does_not_make_the_reader_keep_all_results_of_other_cameras_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "MAX_WAITING", 4)
    reader, found = await opened(), []
    for seq in range(COUNT):
        found += (await reader.take([key("north", seq), key("yard", seq)])).values()
        assert len(reader._waiting) <= 4
    assert [one.seq for one in found] == list(range(COUNT))
    await reader.close()


async def test_results_that_arrive_after_the_test_of_their_frame_are_not_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "MAX_WAITING", 4)
    reader = await opened()
    assert await reader.take([key("yard", COUNT - 5)]) == {}
    found = await reader.take([key("yard", seq) for seq in range(COUNT - 4, COUNT)])
    assert [one.seq for one in found.values()] == list(range(COUNT - 4, COUNT))
    await reader.close()
