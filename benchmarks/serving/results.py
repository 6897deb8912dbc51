"""The number of results on the topic ``results``, counted while a benchmark runs."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from benchmarks.pipeline import until
from ingest.contract.topics import RESULTS
from ingest.kafka import settings as kafka
from ingest.kafka.settings import KafkaSettings


class ResultCount:
    """Counts the results that are written within an ``async with`` block.

    ``total`` is the number of results so far. The end of the block raises an error of the reader, unless the block
    raises one itself.
    """

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings, self._name = settings, name
        self._reading: asyncio.Task[None] | None = None
        self.total = 0

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reading is not None
        failed = self._reading.done()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        if failed and error is None:
            self._reading.result()

    async def reach(self, count: int) -> None:
        """Wait until there are ``count`` results, or the reader has failed."""
        reading = self._reading
        assert reading is not None
        await until(lambda: reading.done() or self.total >= count)

    async def _read(self) -> None:
        consumer = kafka.consumer(self._settings, f"{self._name}-results")
        consumer.subscribe([self._settings.topic(RESULTS)])
        await consumer.start()
        try:
            async for _ in consumer:
                self.total += 1
        finally:
            await consumer.stop()
