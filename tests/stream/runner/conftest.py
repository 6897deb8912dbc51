"""Fixtures of the tests of the stream runner."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.outage import KafkaWatch
from stream.runner.echo import EchoStage
from tests.stream.runner.looprig import LoopRig, Make


@pytest.fixture
async def rigs() -> AsyncIterator[Make]:
    made: list[LoopRig] = []

    def make(stage: EchoStage, log: MemoryLog | None = None, watch: KafkaWatch | None = None) -> LoopRig:
        made.append(LoopRig(stage, log, watch))
        return made[-1]

    yield make
    for rig in made:
        for _, acknowledged in rig.sent:
            acknowledged.cancel()
        await rig.loop.drop()
        rig.pool.shutdown()
