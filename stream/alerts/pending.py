"""What is still to be delivered: a function of the alerts and the receipts. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from ingest.contract.records import Alert, Delivery


@dataclass(order=True)
class DeliveryTask:
    """One alert for one receiver: when its next attempt is due, in Unix s, and which attempt that is."""

    due_s: float
    order: int
    alert: Alert = field(compare=False)
    receiver: str = field(compare=False)
    partition: int = field(compare=False)
    attempt: int = field(compare=False, default=1)
    entry: int = field(compare=False, default=0)
    """Which entry of the alert this is: a partition that goes and comes back enters its alerts anew."""


class PendingDeliveries:
    """The tasks of one receiver, and what is finished. Alerts and receipts may be entered in any order and twice."""

    def __init__(self, receiver: str) -> None:
        self._receiver = receiver
        self._heap: list[DeliveryTask] = []
        self._known: dict[str, tuple[int, int]] = {}
        """Partition and entry of every alert that is waiting, under way or finished."""
        self._receipts: dict[str, Delivery] = {}
        self._order = 0

    def receipt(self, receipt: Delivery) -> None:
        """Enter a receipt of this receiver; a later attempt's counts more, but nothing undoes a final one.

        Two dispatchers may try the same alert around a rebalance: delivered is delivered, whatever the other met.
        """
        before = self._receipts.get(receipt.alert)
        if before is None or _rank(receipt) >= _rank(before):
            self._receipts[receipt.alert] = receipt

    def alert(self, alert: Alert, partition: int, first_pause_s: float, now_s: float) -> None:
        """Enter an alert, unless it is known: after all receipts of its partition have been entered."""
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
        """Put a task back for its next attempt, unless its partition has gone meanwhile, and perhaps come back."""
        if self._known.get(task.alert.id) == (task.partition, task.entry):
            self._push(task.alert, task.partition, due_s, task.attempt + 1, task.entry)

    def due(self, now_s: float) -> DeliveryTask | None:
        """Return a task that is due, None when there is none."""
        if self._heap and self._heap[0].due_s <= now_s:
            return heapq.heappop(self._heap)
        return None

    @property
    def next_s(self) -> float | None:
        """When the next task is due, in Unix s; None without tasks."""
        return self._heap[0].due_s if self._heap else None

    def drop(self, partition: int) -> None:
        """Forget a partition that belongs to another dispatcher now."""
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
