"""A group member without Kafka: a test assigns partitions, delivers records and acknowledges writes by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ingest.kafka.log import Outgoing, TopicPartition
from ingest.runtime.clock import Deadline
from stream.runner.acks import FetchNumber
from stream.runner.faust import FaustMember


class FakeMember(FaustMember):
    """Records every call. ``run`` waits for ``stop``."""

    rebalancing = False
    crash_reason: BaseException | None = None

    def __init__(self, *_: Any, **__: Any) -> None:
        self.sent: list[tuple[Outgoing, asyncio.Future[None]]] = []
        self.fetching: list[str] = []
        self.begun: list[tuple[TopicPartition, int, int]] = []
        self.commits = 0
        self.owned = True
        self.waiting = 0
        """Number of records that ``undelivered`` returns."""
        self.asked = 0
        self.begin_error: Exception | None = None
        self.send_error: Exception | None = None
        self.acknowledge_at_once = False
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        await self.stopped.wait()

    async def stop(self) -> None:
        self.stopped.set()

    async def commit(self) -> None:
        self.commits += 1

    async def begin(self, tp: TopicPartition, position: int, assignment: int) -> bool:
        self.begun.append((tp, position, assignment))
        if self.begin_error:
            raise self.begin_error
        return self.owned

    def pause(self, tp: TopicPartition) -> None:
        self.fetching.append("pause")

    def resume(self, tp: TopicPartition) -> None:
        self.fetching.append("resume")

    def undelivered(self, tp: TopicPartition, due: FetchNumber) -> int:
        self.asked += 1
        return self.waiting

    async def send(self, record: Outgoing) -> Awaitable[None]:
        if self.send_error:
            raise self.send_error
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append((record, acknowledged))
        if self.acknowledge_at_once:
            acknowledged.set_result(None)
        return acknowledged

    def acknowledge(self, number: int, error: Exception | None = None) -> None:
        """Acknowledge the sent record with this number, counted from 0."""
        acknowledged = self.sent[number][1]
        if error:
            acknowledged.set_exception(error)
        else:
            acknowledged.set_result(None)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most 10 s."""
    deadline = Deadline.after(10.0)
    while not condition():
        assert not deadline.passed
        await asyncio.sleep(0.001)
