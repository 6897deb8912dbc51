"""A sender with its spool and a scripted link, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry

from edge_agent.clockoffset import ClockOffset
from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.metrics import AgentMetrics
from edge_agent.send.link import OutboundRecord
from edge_agent.send.sender import Sender
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SpoolStore
from ingest.runtime.clock import Deadline, ManualClock
from ingest.site import DiskConfig, LinkConfig

S = 1_000_000_000
T = TypeVar("T")


class FakeLink:
    """A link that acknowledges at once or later, refuses chosen records, or is lost."""

    address = "fake"

    def __init__(self) -> None:
        self.sent: list[OutboundRecord] = []
        self.refuses: set[bytes] = set()
        self.holds = False
        self.gone = False
        self.retry_after_s = 0.0
        self.opened = 0
        self._held: list[asyncio.Future[None]] = []

    async def open(self) -> None:
        self.opened += 1
        if self.gone:
            raise LinkLost("gone", self.retry_after_s)

    async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.gone:
            raise LinkLost("gone")
        self.sent.append(record)
        if record.value in self.refuses:
            done.set_exception(RecordRefused("not this one"))
        elif self.holds:
            self._held.append(done)
        else:
            done.set_result(None)
        return done

    def lose(self) -> None:
        """Lose the link, so that the result of every record in flight is unknown."""
        self.gone = True
        for done in self._held:
            done.set_exception(LinkLost("gone"))
        self._held.clear()

    @property
    def clock(self) -> ClockOffset:
        return ClockOffset()

    async def publish(self, record: OutboundRecord) -> None:
        self.sent.append(record)

    async def close(self) -> None:
        pass


class SenderRig:
    """A sender with its spool."""

    def __init__(self, folder: Path, **config: float) -> None:
        self.clock = ManualClock(started_ns=1000 * S)
        self.link = FakeLink()
        metrics = AgentMetrics(CollectorRegistry())
        self.store = SpoolStore(folder / "spool.db", "agent", clock=self.clock)
        self.store.late_after({"a": 5.0, "b": 5.0})
        self.spool = Spool(self.store, DiskConfig(min_free_bytes=0), clock=self.clock, metrics=metrics)
        self.sender = Sender(self.link, self.spool, LinkConfig(**config), clock=self.clock, metrics=metrics)

    def keep(self, *names: str, age_s: float = 0.0, size: int = 10) -> None:
        rows = [self.row(name, age_s, size) for name in names]
        self.on_store(lambda: self.store.keep(rows))
        self.sender.wake()

    def row(self, name: str, age_s: float = 0.0, size: int = 10) -> Row:
        captured_ns = self.clock.now_ns() - round(age_s * S)
        return Row("frame", name[0], 5, int(name[1:]), captured_ns, name.encode().ljust(size))

    def on_store(self, call: Callable[[], T]) -> T:
        """Return the result of a call in the spool's thread: a store may be used from one thread only."""
        return self.spool._thread.submit(call).result()

    @property
    def empty(self) -> bool:
        return self.on_store(lambda: self.store.empty)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[FakeLink]:
        task = asyncio.create_task(self.sender.run(lambda: 0.0))
        try:
            yield self.link
        finally:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            await self.spool.close()
            if isinstance(outcome, Exception):  # also after a failed wait, whose cause it is
                raise outcome

    def names(self) -> list[str]:
        return [p.value.decode().strip() for p in self.link.sent if p.topic.startswith("frames")]


async def until(done: object, seconds: float = 60.0) -> None:
    deadline = Deadline.after(seconds)
    while not done():  # type: ignore[operator]
        assert not deadline.passed, "the condition did not become true in time"
        await asyncio.sleep(0.005)
