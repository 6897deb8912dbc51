"""Past alerts with their receipts, read from the topics ``alerts`` and ``deliveries``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Delivery
from ingest.contract.topics import ALERTS, DELIVERIES
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from stream.alerts.incidents import ID
from stream.delivery.replay import REPLAY
from stream.events import rfc3339
from stream.exceptions import AlertNotFound

WAITING = "waiting"
"""State of an alert that has no receipt yet."""


@dataclass(slots=True)
class PastAlert:
    """An alert, its record, and its receipts in order."""

    alert: Alert
    record: LogRecord
    receipts: list[Delivery] = field(default_factory=list)

    def states(self) -> dict[str, Delivery]:
        """Return the receipt that decides the alert's state at each receiver.

        An alert that was delivered once stays delivered. For an alert that was never delivered, the latest receipt
        decides.
        """
        found: dict[str, Delivery] = {}
        for receipt in self.receipts:
            before = found.get(receipt.receiver)
            if before is None or before.state != "delivered":
                found[receipt.receiver] = receipt
        return found

    def summary(self) -> dict[str, Any]:
        """Return the alert as JSON values, with its state at each receiver."""
        alert, data = self.alert, self.alert.data
        return {
            "id": alert.id,
            "time": alert.time,
            "severity": data.severity,
            "change": data.change,
            "rule": data.rule,
            "subject": alert.subject,
            "place": data.place or "",
            "summary": data.summary,
            "incident": data.incident,
            "receivers": {name: one.state for name, one in self.states().items()},
        }

    def details(self) -> dict[str, Any]:
        """Return the whole alert as JSON values, with all receipts."""
        receipts = [
            {
                "receiver": one.receiver,
                "attempt": one.attempt,
                "state": one.state,
                "status": one.status,
                "reason": one.reason,
                "at": rfc3339(one.attempted_ns),
                "next_attempt": rfc3339(one.next_attempt_ns) if one.next_attempt_ns else None,
                "replay": one.replay,
            }
            for one in self.receipts
        ]
        return {**self.summary(), "alert": self.alert.model_dump(mode="json"), "receipts": receipts}

    def is_in(self, state: str, receiver: str) -> bool:
        """Return whether the alert has the given state at the given receiver. An empty ``receiver`` stands for any
        receiver, and an empty ``state`` for any state.
        """
        states = {name: one.state for name, one in self.states().items() if receiver in ("", name)}
        if state == WAITING:
            return not states
        return not (receiver or state) or (bool(states) and state in ("", *states.values()))


async def alerts_since(log: Log, since_ms: int) -> list[PastAlert]:
    """Return the alerts that were written since a time in Unix ms, the oldest first. Raise LogUnavailable.

    Repeated alerts and replays are listed once.
    """
    found: dict[str, PastAlert] = {}
    async with aclosing(_records(log, ALERTS, since_ms)) as records:
        async for record in records:
            if REPLAY not in record.headers and (alert := _decoded(record)):
                found.setdefault(alert.id, PastAlert(alert, record))
    await _add_receipts(log, found, since_ms)
    return sorted(found.values(), key=lambda each: each.record.timestamp_ms)


async def find_alert(log: Log, wanted: str) -> PastAlert:
    """Return the alert whose id is ``wanted`` or begins with it. Raise AlertNotFound or LogUnavailable.

    Records are compared by their headers and keys, without decoding them.
    """
    matches: dict[str, LogRecord] = {}
    async with aclosing(_records(log, ALERTS, 0)) as records:
        async for record in records:
            name = record.headers.get(ID, b"").decode(errors="replace")
            if name.startswith(wanted) and REPLAY not in record.headers:
                matches.setdefault(name, record)
    if wanted in matches:
        matches = {wanted: matches[wanted]}
    if len(matches) != 1:
        raise AlertNotFound(wanted, len(matches))
    (record,) = matches.values()
    past = PastAlert(decode_json(Alert, record.value), record)
    await _add_receipts(log, {past.alert.id: past}, record.timestamp_ms, partitions=[record.partition])
    return past


async def _add_receipts(
    log: Log, alerts: dict[str, PastAlert], since_ms: int, partitions: Sequence[int] | None = None
) -> None:
    async with aclosing(_records(log, DELIVERIES, since_ms, partitions)) as records:
        async for record in records:
            past = alerts.get((record.key or b"").decode(errors="replace"))
            if past is None:
                continue
            try:
                past.receipts.append(decode_json(Delivery, record.value))
            except CodecError:
                continue  # the dispatcher logs unreadable receipts


async def _records(
    log: Log, topic: str, since_ms: int, partitions: Iterable[int] | None = None
) -> AsyncGenerator[LogRecord, None]:
    ends = await log.ends(topic)
    for partition in partitions if partitions is not None else ends:
        start = await log.offset_at(TopicPartition(topic, partition), since_ms)
        async with aclosing(log.read(topic, partition, start, ends[partition])) as records:
            async for record in records:
                yield record


def _decoded(record: LogRecord) -> Alert | None:
    try:
        return decode_json(Alert, record.value)
    except CodecError:
        return None  # the dispatcher has made it a dead letter
