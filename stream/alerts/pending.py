"""The deliveries to one receiver that are still due, computed from alerts and receipts. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ingest.contract.records import Alert, Delivery

FINISHED_KEPT = 10_000
"""Number of finished alerts whose ids are remembered. An alert that occurs twice on the topic, with fewer finished
alerts in between, is delivered once."""


HELD_ALERTS = 1_000
"""Maximum number of waiting alerts whose contents are in memory, for each receiver: about 20 MB. More alerts wait
only if the receiver is down."""


class AlertPosition(NamedTuple):
    """The partition and offset of an alert on the topic ``alerts``."""

    partition: int
    offset: int


class ReceiverPosition(NamedTuple):
    """The progress of one receiver in one partition.

    Every alert below the offset ``alerts`` is finished. All receipts of unfinished alerts are at or after the offset
    ``receipts`` of the topic ``deliveries``. ``receipts`` is None if no unfinished alert has a receipt yet.
    """

    alerts: int
    receipts: int | None


@dataclass(order=True, slots=True)
class DeliveryTask:
    """One alert for one receiver: the Unix time of its next attempt in seconds, and the number of that attempt.

    ``alert`` is None if ``HELD_ALERTS`` other alerts are already in memory: each attempt then reads the alert from
    the log.
    """

    due_s: float
    order: int
    id: str = field(compare=False)
    alert: Alert | None = field(compare=False)
    position: AlertPosition = field(compare=False)
    attempt: int = field(compare=False, default=1)
    entry: int = field(compare=False, default=0)
    """Number that tells two entries of one alert apart. An alert is entered again when its partition is reassigned
    after a revocation."""


class _Receipt(NamedTuple):
    """The strongest receipt of an alert (delivered, then dead, then retrying), and the offset of the alert's first
    receipt."""

    rank: int
    attempt: int
    next_s: float
    first: int


@dataclass
class _Partition:
    """One partition: the offset of the next alert to enter, and the unfinished alerts by offset, with the offsets of
    their first receipts."""

    next: int
    alerts_end: int = 0
    """End offset of ``alerts`` when all receipts had been read. No receipt that was read belongs to an alert at or
    after this offset."""
    open: dict[int, int] = field(default_factory=dict)
    receipts: dict[str, _Receipt] = field(default_factory=dict)
    held: bool = False

    @property
    def receipts_needed(self) -> int | None:
        """Lowest offset of a receipt that the next owner of the partition needs; None if the next owner needs no
        receipt written so far.

        The next owner needs the receipts of unfinished alerts, and of alerts that are not entered yet. The first
        entry of ``receipts`` has the lowest offset.
        """
        first = next(iter(self.receipts.values()), None)
        return min([*self.open.values(), *([first.first] if first else [])], default=None)

    def forget_receipts(self) -> None:
        """Drop the receipts if every alert before ``alerts_end`` is entered, because a receipt can only belong to
        such an alert."""
        if self.next >= self.alerts_end:
            self.receipts.clear()


class PendingDeliveries:
    """The delivery tasks of one receiver.

    Open a partition first, then enter its receipts and call ``receipts_read``, then enter its alerts in order of
    offset. An alert that is entered again is ignored.
    """

    def __init__(self) -> None:
        self._heap: list[DeliveryTask] = []
        self._known: dict[str, tuple[AlertPosition, int]] = {}
        """Position and entry number by alert id, for every alert that is waiting or being delivered."""
        self._held: set[str] = set()
        """Ids of the alerts whose contents are in memory."""
        self._finished: OrderedDict[str, int] = OrderedDict()
        self._partitions: dict[int, _Partition] = {}
        self._order = 0

    def open(self, partition: int, begin: int) -> None:
        """Accept the alerts of a partition from the offset ``begin`` on."""
        self._partitions[partition] = _Partition(begin)

    def receipts_read(self, partition: int, alerts_end: int) -> None:
        """Note that all receipts of a partition are entered.

        These receipts belong to alerts before the offset ``alerts_end``.
        """
        found = self._partitions[partition]
        found.alerts_end = alerts_end
        found.forget_receipts()

    def receipt(self, partition: int, offset: int, receipt: Delivery) -> None:
        """Enter a receipt of this receiver.

        A receipt of a later attempt replaces an earlier one, unless the earlier one is final. Two dispatchers may try
        the same alert around a rebalance, so a successful delivery replaces any failure.
        """
        found = self._partitions[partition].receipts
        rank = {"retrying": 0, "dead": 1, "delivered": 2}[receipt.state]
        before = found.get(receipt.alert)
        first = before.first if before else offset
        if before is None or (rank, receipt.attempt) >= (before.rank, before.attempt):
            found[receipt.alert] = _Receipt(rank, receipt.attempt, (receipt.next_attempt_ns or 0) / 1e9, first)
        else:
            found[receipt.alert] = before._replace(first=first)

    def alert(
        self, alert: Alert, position: AlertPosition, receipts_end: int, first_pause_s: float, now_s: float
    ) -> None:
        """Enter an alert, unless the alert was entered before or its partition is not open.

        ``receipts_end`` is the present end offset of ``deliveries``: receipts of a new alert have this offset or a
        higher one.
        """
        partition = self._partitions.get(position.partition)
        if partition is None or position.offset < partition.next:
            return
        partition.next = position.offset + 1
        receipt = partition.receipts.pop(alert.id, None) if position.offset < partition.alerts_end else None
        partition.forget_receipts()
        if alert.id in self._known or alert.id in self._finished:
            return
        if receipt and receipt.rank:
            self._finish(alert.id, position.partition)
            return
        self._order += 1
        self._known[alert.id] = (position, self._order)
        partition.open[position.offset] = receipt.first if receipt else receipts_end
        due_s, attempt = (receipt.next_s, receipt.attempt + 1) if receipt else (now_s + first_pause_s, 1)
        held = alert if len(self._held) < HELD_ALERTS else None
        if held:
            self._held.add(alert.id)
        self._push(DeliveryTask(due_s, 0, alert.id, held, position, attempt, self._order))

    def skip(self, position: AlertPosition) -> None:
        """Count an alert that cannot be decoded as finished, so that a restart does not read the alert again."""
        partition = self._partitions.get(position.partition)
        if partition is not None and position.offset >= partition.next:
            partition.next = position.offset + 1
            partition.forget_receipts()

    def again(self, task: DeliveryTask, due_s: float) -> None:
        """Schedule the next attempt of a task, unless its partition was revoked meanwhile."""
        if self._is_current(task) and not self._partitions[task.position.partition].held:
            self._push(replace(task, due_s=due_s, attempt=task.attempt + 1))

    def finish(self, task: DeliveryTask) -> None:
        """Note that an alert needs no more attempts."""
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

    @property
    def next_s(self) -> float | None:
        """Unix time in seconds at which the next task is due, None without tasks."""
        return self._heap[0].due_s if self._heap else None

    def position(self, partition: int) -> ReceiverPosition | None:
        """Return the receiver's progress in a partition; None if the partition is not open."""
        found = self._partitions.get(partition)
        if found is None:
            return None
        return ReceiverPosition(next(iter(found.open), found.next), found.receipts_needed)

    def hold(self, partition: int) -> None:
        """Begin no more attempts in a partition, because it is about to be revoked."""
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
