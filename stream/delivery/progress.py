"""Stores the dispatcher's progress in one partition as an offset commit. A dispatcher that takes over the partition
reads the progress from the last commit.

The committed offset is the lowest offset of ``alerts`` that a receiver still needs. The commit's metadata holds the
position of each receiver, and the offset of the first receipt in ``deliveries`` that is still needed. A new
dispatcher reads only the unfinished alerts and their receipts, not the whole history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from ingest.contract.codec import decode_json
from ingest.contract.records import Delivery
from ingest.contract.topics import ALERTS, DELIVERIES, delivery_differences
from ingest.exceptions import CodecError, TopicMismatch
from ingest.kafka.log import GroupCommit, Log, TopicPartition
from ingest.kafka.position import report_expired
from ingest.runtime import logs
from ingest.site import ReceiverConfig
from stream.delivery.pending import PendingDeliveries, ReceiverPosition

_log = logs.get("stream.dispatch")

GROUP = "dispatch"
"""Consumer group of the dispatchers."""
MAX_METADATA_CHARS = 4000
"""Maximum length of a commit's metadata. A Kafka broker refuses metadata above its limit
``offset.metadata.max.bytes``, which is 4096 by default."""


@dataclass(frozen=True, slots=True)
class DispatchProgress:
    """The progress of all receivers in one partition.

    ``receivers`` maps a receiver's name to the offset of its first unfinished alert, and ``offset`` is the lowest of
    these offsets. If ``others`` is true, each receiver that is not in ``receivers`` has finished all alerts below
    ``offset``. If ``others`` is false, a receiver that is not in ``receivers`` was added to the configuration later.
    """

    offset: int
    receipts: int
    receivers: Mapping[str, int] = field(default_factory=dict)
    others: bool = False

    @classmethod
    def of(cls, positions: Mapping[str, ReceiverPosition], alerts_next: int, receipts_end: int) -> DispatchProgress:
        """Return the progress in a partition, computed from the positions of all receivers."""
        waiting = [position.receipts for position in positions.values() if position.receipts is not None]
        return cls(
            min((position.alerts for position in positions.values()), default=alerts_next),
            min(waiting, default=receipts_end),
            {name: position.alerts for name, position in positions.items()},
        )

    def metadata(self) -> str:
        """Return the progress as JSON, for the metadata of an offset commit.

        If the JSON with all receivers is too long, name only the receivers whose position is above ``offset``.
        """
        ahead = {name: position - self.offset for name, position in sorted(self.receivers.items())}
        text = _encoded(self.receipts, ahead, others=self.others)
        if len(text) > MAX_METADATA_CHARS:
            text = _encoded(self.receipts, {name: by for name, by in ahead.items() if by}, others=True)
        return text if len(text) <= MAX_METADATA_CHARS else _encoded(self.receipts, {}, others=True)

    @classmethod
    def read(cls, commit: GroupCommit) -> DispatchProgress:
        """Return the progress stored in a commit.

        If the metadata cannot be parsed because another program wrote the commit, return a progress with which all
        receipts are read.
        """
        try:
            found = json.loads(commit.metadata)
            receivers = {str(name): commit.offset + int(by) for name, by in found["receivers"].items()}
            return cls(commit.offset, int(found["receipts"]), receivers, bool(found.get("others")))
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(commit.offset, 0, {}, others=True)


def _encoded(receipts: int, receivers: Mapping[str, int], *, others: bool) -> str:
    content = {"receipts": receipts, "receivers": receivers} | ({"others": True} if others else {})
    return json.dumps(content, separators=(",", ":"))


@dataclass(slots=True)
class OwnedAlerts:
    """State of one partition that this dispatcher owns.

    The state has the offset of the next alert to add to the receivers' queues, and the end offset of the partition's
    receipts in ``deliveries``.

    ``expired`` counts the alerts that retention deleted before every receiver had finished them. ``recreated`` is
    true if the topic ``alerts`` was created again since the last commit. ``taken`` is true once an alert of this
    partition was added to the queues of the receivers.
    """

    alerts_next: int
    receipts_end: int
    expired: int = 0
    recreated: bool = False
    taken: bool = False


async def require_deliveries(log: Log) -> None:
    """Raise TopicMismatch if ``deliveries`` lacks a partition that ``alerts`` has, LogUnavailable if Kafka cannot be
    reached."""
    problems = delivery_differences(await log.partitions())
    if problems:
        raise TopicMismatch(problems)


async def take_over(
    log: Log,
    partition: int,
    commit: GroupCommit | None,
    receivers: Sequence[tuple[ReceiverConfig, PendingDeliveries]],
) -> OwnedAlerts:
    """Open a newly assigned partition for each receiver, and enter the receipts that are still needed. Raise
    LogUnavailable.

    If ``commit`` is None, every alert that has no final receipt is due. If ``others`` is false in the commit, a
    receiver that the commit does not name was added to the configuration later. A receiver added later gets only new
    alerts, or all stored alerts if its entry has ``history = true``. Alerts that retention deleted before a receiver
    had finished them are logged and reported on the topic ``status``.
    """
    await require_deliveries(log)  # again, because partitions may be added while this dispatcher runs
    first, end = (await log.beginnings(ALERTS))[partition], (await log.ends(ALERTS))[partition]
    recreated = commit is not None and commit.offset > end
    if commit is not None and recreated:
        fields = {"group": GROUP, "topic": ALERTS, "partition": partition}
        _log.warning("topic_created_again", **fields, committed=commit.offset, end=end, start=first)
        commit = None
    before = DispatchProgress.read(commit) if commit else DispatchProgress(first, 0, {}, others=True)
    pending = {config.name: of for config, of in receivers}
    needed = {config.name: _begin(config, before, first, end) for config, _ in receivers}
    lowest = min(needed.values(), default=first)
    if commit is not None and lowest < first:
        await report_expired(log, GROUP, TopicPartition(ALERTS, partition), lowest, first)
    begins = {name: max(first, begin) for name, begin in needed.items()}
    for name, begin in begins.items():
        pending[name].open(partition, begin)
    receipts_end = await _read_receipts(log, partition, before.receipts, pending)
    alerts_end = (await log.ends(ALERTS))[partition]  # after the receipts, so that all of their alerts are below it
    for of in pending.values():
        of.receipts_read(partition, alerts_end)
    expired = max(0, first - lowest) if commit is not None else 0
    return OwnedAlerts(min(begins.values(), default=end), receipts_end, expired, recreated)


def _begin(receiver: ReceiverConfig, before: DispatchProgress, first: int, end: int) -> int:
    """Return the offset of the first alert that a receiver still needs."""
    if receiver.name in before.receivers:
        return before.receivers[receiver.name]
    if before.others:
        return before.offset
    return first if receiver.history else end


async def _read_receipts(log: Log, partition: int, begin: int, pending: Mapping[str, PendingDeliveries]) -> int:
    first, end = (await log.beginnings(DELIVERIES))[partition], (await log.ends(DELIVERIES))[partition]
    begin = first if begin > end else max(first, begin)
    async with aclosing(log.read(DELIVERIES, partition, begin, end)) as records:
        async for record in records:
            try:
                receipt = decode_json(Delivery, record.value)
            except CodecError as error:
                _log.warning("receipt_unreadable", partition=partition, offset=record.offset, error=str(error))
                continue
            if receipt.receiver in pending:
                pending[receipt.receiver].receipt(partition, record.offset, receipt)
    return end
