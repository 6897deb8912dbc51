"""The deliveries to one receiver that are still due, computed from alerts and receipts. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ingest.contract.records import Alert, Delivery
from ingest.contract.records.event import delivery_key

FINISHED_KEPT = 10_000
"""Number of finished alerts whose ids are remembered. An alert that occurs twice on the topic is delivered once,
unless more than this number of alerts finished in between."""


HELD_ALERTS = 1_000
"""Maximum number of waiting alerts of one receiver whose contents are in memory, about 20 MB in all. More alerts wait
only while the receiver is unreachable."""


SEARCH_S = 60.0
"""Pause in seconds between two searches for expired tasks, which take 20 ms for 100,000 tasks."""


class AlertPosition(NamedTuple):
    """The partition and offset of an alert on the topic ``alerts``."""

    partition: int
    offset: int


class ReceiverPosition(NamedTuple):
    """The progress of one receiver in one partition.

    Every alert of the partition below the offset ``alerts`` is finished. All receipts of unfinished alerts are at or
    after the offset ``receipts`` of the topic ``deliveries``. ``receipts`` is None if no unfinished alert has a
    receipt yet.
    """

    alerts: int
    receipts: int | None


@dataclass(order=True, slots=True)
class DeliveryTask:
    """The delivery of one alert to one receiver: ``due_s`` is the Unix time of the next attempt in seconds, and
    ``attempt`` is the number of the next attempt. ``id`` is the alert's id, with the id of the ``replay`` if the
    alert is sent again on request.

    While the receiver fails, a task whose time ``expires_s`` has passed ends without a further attempt. ``alert`` is
    None if ``HELD_ALERTS`` other alerts were already in memory when the task was created. Each attempt
    of a task without ``alert`` reads the alert from Kafka.
    """

    due_s: float
    order: int
    id: str = field(compare=False)
    alert: Alert | None = field(compare=False)
    position: AlertPosition = field(compare=False)
    replay: str = field(compare=False, default="")
    attempt: int = field(compare=False, default=1)
    expires_s: float = field(compare=False, default=float("inf"))
    entry: int = field(compare=False, default=0)
    """Number that distinguishes two tasks for the same alert. A second task is created when the alert's partition is
    assigned again after a revocation."""


class _Receipt(NamedTuple):
    """The receipt that decides the state of an alert, and the offset of the alert's first receipt. ``rank`` is 2 for
    a delivered alert, 1 for a dead or skipped alert, and 0 for an alert that is retried; the highest rank decides."""

    rank: int
    attempt: int
    next_s: float
    first: int


@dataclass
class _Partition:
    """State of one partition of ``alerts``. ``next`` is the offset of the first alert that was not read yet. ``open``
    maps the offset of each unfinished alert to the lowest offset that a receipt of the alert can have. ``receipts``
    maps an alert's id to its receipt."""

    next: int
    alerts_end: int = 0
    """End offset of the partition of ``alerts``, determined after all receipts had been read. Every receipt read so
    far belongs to an alert with a lower offset."""
    open: dict[int, int] = field(default_factory=dict)
    receipts: dict[str, _Receipt] = field(default_factory=dict)
    floor: int | None = None
    """Lowest offset of a receipt whose alert had its final state before this dispatcher read the alert."""
    held: bool = False

    @property
    def receipts_needed(self) -> int | None:
        """Lowest offset of a receipt that the next owner of the partition needs; None if the next owner needs no
        receipt written so far.

        The next owner needs the receipts of unfinished alerts, and of alerts that this dispatcher has not entered
        yet. The first value of ``receipts`` has the lowest offset, because receipts are entered in order of offset.
        """
        first = next(iter(self.receipts.values()), None)
        needed = [*self.open.values(), *([first.first] if first else [])]
        if self.floor is not None and next(iter(self.open), self.alerts_end) < self.alerts_end:
            needed.append(
                self.floor
            )  # the next owner enters the finished alerts after the first unfinished one again
        return min(needed, default=None)

    def forget_receipts(self) -> None:
        """Drop all receipts if every alert below ``alerts_end`` has been entered, because no receipt belongs to a
        later alert."""
        if self.next >= self.alerts_end:
            self.receipts.clear()


class PendingDeliveries:
    """The delivery tasks of one receiver.

    For each partition, call the methods in this order: ``open``, ``receipt`` for each receipt, ``receipts_read``, and
    ``alert`` for each alert in order of offset. If ``alert`` is called twice for the same alert, the second call does
    nothing.
    """

    def __init__(self) -> None:
        self._heap: list[DeliveryTask] = []
        self._known: dict[str, tuple[AlertPosition, int]] = {}
        """Position and ``entry`` number of the task of every alert that waits or is being delivered, by the alert's
        id."""
        self._held: set[str] = set()
        """Ids of the alerts whose contents are in memory."""
        self._finished: OrderedDict[str, int] = OrderedDict()
        self._partitions: dict[int, _Partition] = {}
        self._order = 0
        self._search_s = 0.0

    def open(self, partition: int, begin: int) -> None:
        """Accept the alerts of a partition from the offset ``begin`` on."""
        self._partitions[partition] = _Partition(begin)

    def receipts_read(self, partition: int, alerts_end: int) -> None:
        """Note that ``receipt`` has been called for all receipts of a partition.

        Each receipt of the partition belongs to an alert below the offset ``alerts_end``.
        """
        found = self._partitions[partition]
        found.alerts_end = alerts_end
        found.forget_receipts()

    def receipt(self, partition: int, offset: int, receipt: Delivery) -> None:
        """Note the receipt of one attempt to deliver an alert to this receiver.

        The receipt of a later attempt replaces the receipt of an earlier attempt, unless the earlier receipt is
        final. During a rebalance, two dispatchers may attempt to deliver the same alert, so a receipt of success
        replaces any receipt of failure.
        """
        found = self._partitions[partition].receipts
        rank = {"retrying": 0, "skipped": 1, "dead": 1, "delivered": 2}[receipt.state]
        before = found.get(receipt.task)
        first = before.first if before else offset
        if before is None or (rank, receipt.attempt) >= (before.rank, before.attempt):
            found[receipt.task] = _Receipt(rank, receipt.attempt, (receipt.next_attempt_ns or 0) / 1e9, first)
        else:
            found[receipt.task] = before._replace(first=first)

    def alert(
        self,
        alert: Alert,
        position: AlertPosition,
        receipts_end: int,
        first_pause_s: float,
        now_s: float,
        replay: str = "",
        expires_s: float = float("inf"),
    ) -> None:
        """Create the task of an alert, unless the alert was entered before or its partition is not open.

        ``receipts_end`` is the present end offset of the topic ``deliveries``. The receipts of a new alert will be
        written at or after the offset ``receipts_end``.
        """
        key = delivery_key(alert.id, replay)
        partition = self._partitions.get(position.partition)
        if partition is None or position.offset < partition.next:
            return
        partition.next = position.offset + 1
        receipt = partition.receipts.pop(key, None) if position.offset < partition.alerts_end else None
        if receipt and receipt.rank:
            partition.floor = receipt.first if partition.floor is None else min(partition.floor, receipt.first)
        partition.forget_receipts()
        if key in self._known or key in self._finished:
            return
        if receipt and receipt.rank:
            self._finish(key, position.partition)
            return
        self._order += 1
        self._known[key] = (position, self._order)
        partition.open[position.offset] = receipt.first if receipt else receipts_end
        due_s, attempt = (receipt.next_s, receipt.attempt + 1) if receipt else (now_s + first_pause_s, 1)
        held = alert if len(self._held) < HELD_ALERTS else None
        if held:
            self._held.add(key)
        self._push(DeliveryTask(due_s, 0, key, held, position, replay, attempt, expires_s, self._order))

    def skip(self, position: AlertPosition) -> None:
        """Mark an alert that cannot be decoded as finished, so that the alert is not read again after a restart."""
        partition = self._partitions.get(position.partition)
        if partition is not None and position.offset >= partition.next:
            partition.next = position.offset + 1
            partition.forget_receipts()

    def again(self, task: DeliveryTask, due_s: float) -> None:
        """Schedule the next attempt of a task, unless the partition of its alert was revoked meanwhile."""
        if self._is_current(task) and not self._partitions[task.position.partition].held:
            self._push(replace(task, due_s=due_s, attempt=task.attempt + 1))

    def postpone(self, task: DeliveryTask, due_s: float, expires_s: float) -> None:
        """Schedule the same attempt of a task for a later time, and set a later time at which the task expires."""
        self.again(replace(task, attempt=task.attempt - 1, expires_s=max(task.expires_s, expires_s)), due_s)

    def finish(self, task: DeliveryTask) -> None:
        """Note that a task's alert needs no more delivery attempts."""
        if self._is_current(task):
            del self._known[task.id]
            self._held.discard(task.id)
            self._partitions[task.position.partition].open.pop(task.position.offset, None)
            self._finish(task.id, task.position.partition)

    def due(self, now_s: float) -> DeliveryTask | None:
        """Remove and return the next task that is due; None if no task is due."""
        if self._heap and self._heap[0].due_s <= now_s:
            return heapq.heappop(self._heap)
        return None

    def expired(self, now_s: float) -> DeliveryTask | None:
        """Remove and return a task whose time limit for retries has passed; None if there is none.

        All tasks are searched for expired ones every ``SEARCH_S`` seconds.
        """
        if now_s >= self._search_s:
            self._search_s = now_s + SEARCH_S
            for task in self._heap:
                if task.expires_s <= now_s:
                    task.due_s = 0.0
            heapq.heapify(self._heap)
        return self.due(now_s) if self._heap and self._heap[0].expires_s <= now_s else None

    @property
    def next_s(self) -> float | None:
        """Unix time in seconds at which the next task is due; None if there are no tasks."""
        return self._heap[0].due_s if self._heap else None

    def position(self, partition: int) -> ReceiverPosition | None:
        """Return the receiver's progress in a partition; None if the partition is not open."""
        found = self._partitions.get(partition)
        if found is None:
            return None
        return ReceiverPosition(next(iter(found.open), found.next), found.receipts_needed)

    def hold(self, partition: int) -> None:
        """Begin no more delivery attempts for the alerts of a partition, because the partition is about to be
        revoked."""
        if partition in self._partitions:
            self._partitions[partition].held = True
        self._heap = [task for task in self._heap if task.position.partition != partition]
        heapq.heapify(self._heap)

    def drop(self, partition: int) -> None:
        """Drop all state of a partition that was revoked."""
        self.hold(partition)
        self._partitions.pop(partition, None)
        self._known = {alert: known for alert, known in self._known.items() if known[0].partition != partition}
        self._held &= self._known.keys()
        for alert in [alert for alert, of in self._finished.items() if of == partition]:
            del self._finished[alert]

    def __len__(self) -> int:
        return len(self._heap)

    def _is_current(self, task: DeliveryTask) -> bool:
        return self._known.get(task.id) == (task.position, task.entry)

    def _finish(self, alert: str, partition: int) -> None:
        self._finished[alert] = partition
        if len(self._finished) > FINISHED_KEPT:
            self._finished.popitem(last=False)

    def _push(self, task: DeliveryTask) -> None:
        self._order += 1
        task.order = self._order
        heapq.heappush(self._heap, task)
