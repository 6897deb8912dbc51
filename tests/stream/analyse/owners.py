"""Logs of results, and owners of a partition that begin at any offset, for tests of the stage ``analyse``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.analyse.stage import AnalyseStage

PARTITION = TopicPartition(RESULTS, 0)


async def log_of(found: Sequence[Result]) -> MemoryLog:
    """Write live results when the broker's clock reaches their capture time, and late results at once."""
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    begin_ns = min((one.captured_ns for one in found), default=0)
    for one in found:
        if one.lane == LIVE:
            clock.seconds = max(clock.seconds, (one.captured_ns - begin_ns) / 1e9)
        await log.produce(Outgoing(RESULTS, 0, encode(one), headers=h.frame_headers([one.id], one.lane)))
    return log


async def outputs(stage: AnalyseStage, log: MemoryLog, start: int, stop: int) -> AsyncIterator[tuple[int, Outgoing]]:
    """Process the results from the offset ``start`` to ``stop`` as a new owner of the partition. Yield each record to
    write, with the offset of the result that completed it."""
    processor = await stage.open(PARTITION, start, log)
    async for record in log.read(RESULTS, 0, start, stop):
        for work in processor.process(record):
            assert work.done == (record.offset,)
            for out in work.records:
                yield record.offset, out
