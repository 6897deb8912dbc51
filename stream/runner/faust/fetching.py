"""The thread in which aiokafka lives. It fetches a partition from where its loop has said, and numbers the records.

Left to Faust and aiokafka, records are lost when the group rebalances. A fetch that is under way waits for the new
assignment and returns its first records; Faust drops them, since the flow is stopped, and seeks to what is committed;
aiokafka leaves a partition where it is when nothing is, and so nobody reads those records. Here nothing is fetched in
an assignment before the partition's own loop has begun it, and a fetch that lived on gives back what it took.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from ingest.kafka import settings as kafka
from stream.runner.faust.arrivals import Stamp

POLL_RECORDS = 64
"""Records handed over at once: small enough that a pause of one partition takes effect soon."""
FETCH_PARTITION_BYTES = 2 * 1024 * 1024
"""Asked of a partition at once: a hundred frames. A larger record still comes, alone (KIP-74)."""
FETCH_BYTES = 8 * 1024 * 1024
"""Asked of a broker at once. It is held twice while it is unpacked, and there is no need to read far ahead."""

Stamped = tuple[Stamp, "ConsumerRecord[bytes, bytes]"]
"""A record as it was fetched."""


@dataclass(slots=True)
class _Run:
    """One partition in one assignment, since its loop has begun it. aiokafka makes an assignment per rebalance."""

    assignment: Any
    run: int
    fetched: int = 0


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Methods belong to Faust's thread, except those with a leading underscore, which run in this one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runs: dict[TP, _Run] = {}

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        self._assignor = None  # only tables ask for it
        conf = self.app.conf
        settings = transport.settings
        group = str(conf.id).removeprefix(settings.prefix)
        return kafka.consumer(
            settings,
            conf.broker_client_id,
            group=group,
            group_instance_id=transport.instance or None,
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
            fetch_max_bytes=FETCH_BYTES,
        )

    async def begin(self, tp: TP, position: int, run: int) -> bool:
        """Fetch a partition from a position, numbered as a new run. Return False if it has gone to another member."""
        return bool(await self.call_thread(self._begin, driver.ensure_aiokafka_TP(tp), position, run))

    def fetched(self, tp: TP, run: int) -> int:
        """Return how many records of a run were handed over."""
        found = self._runs.get(tp)
        return found.fetched if found and found.run == run else 0

    def unfetched(self, tp: TP) -> int:
        """Return how many offsets the broker has for us beyond those that were handed over. Safe in any thread."""
        assignment = self._assignment()
        state = assignment.state_value(driver.ensure_aiokafka_TP(tp)) if assignment else None
        if state is None:
            return 0
        lso, position = state.lso, state._position  # the property asserts, and the thread goes on meanwhile
        return 0 if lso is None or position is None else max(0, int(lso) - int(position))

    def _assignment(self) -> Any:
        """Return aiokafka's assignment, None before the first."""
        subscription = self._consumer and self._consumer._subscription.subscription
        return subscription and subscription.assignment

    async def _begin(self, tp: TP, position: int, run: int) -> bool:
        assignment = self._assignment()
        if assignment is None or tp not in assignment.tps:
            return False
        self._ensure_consumer().seek(tp, position)
        self._runs[tp] = _Run(assignment, run)
        return True

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        """Commit what is still ours: aiokafka fails, and Faust with it, when it is given nothing to commit."""
        ours = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        return bool(ours) and bool(await super()._commit(ours))

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, list[Stamped]]:
        assignment = self._assignment()
        # Not by going over the active ones, which Faust's thread may change meanwhile.
        begun = {tp for tp, run in self._runs.items() if run.assignment is assignment and tp in active_partitions}
        if not begun:
            return await self._fetch_nothing(consumer, timeout or 0.0)
        records = await super()._fetch_records(consumer, begun, timeout=timeout, max_records=max_records)
        if self._assignment() is not assignment:
            for tp, found in records.items():
                consumer.seek(tp, found[0].offset)
            return {}
        return {tp: self._stamped(self._runs[tp], found) for tp, found in records.items()}

    async def _fetch_nothing(self, consumer: AIOKafkaConsumer, seconds: float) -> dict[TP, list[Stamped]]:
        """Wait, in a way that aiokafka takes for a fetch: a member that does not fetch is put out of the group."""
        with consumer._subscription.fetch_context():
            await asyncio.sleep(seconds)
        return {}

    def _stamped(self, run: _Run, records: list[ConsumerRecord[bytes, bytes]]) -> list[Stamped]:
        first, run.fetched = run.fetched, run.fetched + len(records)
        return [(Stamp(run.run, number), record) for number, record in enumerate(records, first)]
