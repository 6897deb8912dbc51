"""Tests of the search for a frame's records by binary search."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract import headers as h
from ingest.contract.identity import LIVE, FrameId, replay_lane
from ingest.contract.topics import FRAMES
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from stream.explain import search
from stream.explain.search import first_from, names, place_in

TP = TopicPartition(FRAMES, 0)


async def log_of(cameras: list[str]) -> MemoryLog:
    """Return a log with one frame per entry; a camera's frames are numbered from 0, and every third is missing."""
    log, seqs = MemoryLog(partitions=1), dict.fromkeys(cameras, 0)
    for camera in cameras:
        seqs[camera] += 2 if seqs[camera] % 3 == 1 else 1
        frame = FrameId(camera, 7, seqs[camera])
        await log.produce(Outgoing(FRAMES, 0, b"", headers=h.frame_headers([frame], LIVE)))
    return log


@settings(max_examples=15)
@given(cameras=st.lists(st.sampled_from("abc"), min_size=1, max_size=900), seq=st.integers(0, 450))
def test_the_search_finds_the_first_record_at_or_after_a_frame(cameras: list[str], seq: int) -> None:
    async def found() -> tuple[int | None, int | None]:
        log = await log_of(cameras)
        record = await first_from(log, TP, (7, seq), place_in("a"))
        expected = None
        async for one in log.read(FRAMES, 0, 0, len(cameras)):
            frame = h.frames_of(one.headers)[0]
            if frame.camera == "a" and frame.seq >= seq:
                expected = one.offset
                break
        return (record.offset if record else None), expected

    assert len({*asyncio.run(found())}) == 1


async def test_the_search_finds_a_frame_that_was_sent_twice_after_a_crash() -> None:
    log = MemoryLog(partitions=1)
    for seq in [*range(500), *range(480, 700)]:
        await log.produce(Outgoing(FRAMES, 0, b"", headers=h.frame_headers([FrameId("a", 7, seq)], LIVE)))
    for seq in (479, 480, 499, 500, 699):
        record = await first_from(log, TP, (7, seq), place_in("a"))
        assert record is not None
        assert names(record, FrameId("a", 7, seq)), seq


async def test_replayed_frames_do_not_mislead_the_search() -> None:
    log = MemoryLog(partitions=1)
    for seq in range(2 * search._LINEAR):
        await log.produce(Outgoing(FRAMES, 0, b"", headers=h.frame_headers([FrameId("a", 7, seq)], LIVE)))
        await log.produce(Outgoing(FRAMES, 0, b"", headers=h.frame_headers([FrameId("a", 7, 0)], replay_lane("r"))))
    record = await first_from(log, TP, (7, 150), place_in("a"))
    assert record is not None
    assert record.offset == 300
