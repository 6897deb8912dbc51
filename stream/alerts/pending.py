"""The deliveries that are still due, computed from alerts and receipts. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from ingest.contract.records import Alert, Delivery


@dataclass(order=True)
class DeliveryTask:
    """One alert for one receiver: the Unix time of its next attempt in seconds, and the number of that attempt."""

    due_s: float
    order: int
    alert: Alert = field(compare=False)
    receiver: str = field(compare=False)
    partition: int = field(compare=False)
    attempt: int = field(compare=False, default=1)
    entry: int = field(compare=False, default=0)
    """Number of this entry of the alert: a partition that is revoked and assigned again enters its alerts again."""


class PendingDeliveries:
    """The delivery tasks of one receiver. Alerts and receipts may be entered in any order and repeatedly."""

    def __init__(self, receiver: str) -> None:
        self._receiver = receiver
        self._heap: list[DeliveryTask] = []
        self._known: dict[str, tuple[int, int]] = {}
        """Alert id → partition and entry, for every alert that waits, is being delivered or is finished."""
        self._receipts: dict[str, Delivery] = {}
        self._order = 0

    def receipt(self, receipt: Delivery) -> None:
        """Enter a receipt of this receiver. Later attempts win, but no receipt replaces a final one.

        Two dispatchers may try the same alert around a rebalance. A successful delivery wins over any failure.
        """
        before = self._receipts.get(receipt.alert)
        if before is None or _rank(receipt) >= _rank(before):
            self._receipts[receipt.alert] = receipt

    def alert(self, alert: Alert, partition: int, first_pause_s: float, now_s: float) -> None:
        """Enter an alert unless it is known. Call it after all receipts of the partition have been entered."""
        if alert.id in self._known:
            return
        self._order += 1
        entry = self._order
        self._known[alert.id] = (partition, entry)
        receipt = self._receipts.get(alert.id)
        if receipt is None:
            self._push(alert, partition, now_s + first_pause_s, 1, entry)
        elif receipt.state == "retrying":
            self._push(alert, partition, (receipt.next_attempt_ns or 0) / 1e9, receipt.attempt + 1, entry)

    def again(self, task: DeliveryTask, due_s: float) -> None:
        """Schedule the next attempt of a task, unless its partition was revoked meanwhile."""
        if self._known.get(task.alert.id) == (task.partition, task.entry):
            self._push(task.alert, task.partition, due_s, task.attempt + 1, task.entry)

    def due(self, now_s: float) -> DeliveryTask | None:
        """Remove and return a task that is due, None without one."""
        if self._heap and self._heap[0].due_s <= now_s:
            return heapq.heappop(self._heap)
        return None

    @property
    def next_s(self) -> float | None:
        """Unix time of the next task in seconds, None without tasks."""
        return self._heap[0].due_s if self._heap else None

    def drop(self, partition: int) -> None:
        """Drop the tasks and receipts of a partition that was revoked."""
        self._heap = [task for task in self._heap if task.partition != partition]
        heapq.heapify(self._heap)
        for alert in [a for a, (p, _) in self._known.items() if p == partition]:
            del self._known[alert]
            self._receipts.pop(alert, None)

    def __len__(self) -> int:
        return len(self._heap)

    def _push(self, alert: Alert, partition: int, due_s: float, attempt: int, entry: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, DeliveryTask(due_s, self._order, alert, self._receiver, partition, attempt, entry))


def _rank(receipt: Delivery) -> tuple[int, int]:
    return ({"retrying": 0, "dead": 1, "delivered": 2}[receipt.state], receipt.attempt)
