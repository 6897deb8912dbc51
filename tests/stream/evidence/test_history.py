"""Tests of the history of the topic ``evidence``."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from ingest.contract.records import EvidenceRecord
from ingest.contract.topics import EVIDENCE
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from stream.alerts.incidents import ID
from stream.evidence import history
from stream.evidence.history import EvidenceHistory
from stream.evidence.retention import evidence_outgoing


class NotedReads(MemoryLog):
    """A log that notes the offsets from which and up to which it is read."""

    def __init__(self) -> None:
        super().__init__(partitions=1)
        self.reads: list[tuple[int, int]] = []

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        self.reads.append((start, stop))
        return super().read(topic, partition, start, stop)


def tombstone(event: str) -> Outgoing:
    return evidence_outgoing(EvidenceRecord(state="deleted", subject="road", event=event, captured_ns=1, at_ns=2))


async def test_the_history_of_evidence_reads_only_the_latest_records_at_the_start_and_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "KNOWN", 3)
    log = NotedReads()
    for number in range(5):
        await log.produce(tombstone(f"event-{number}"))
    past = EvidenceHistory(log)
    await past.read()
    assert [past.is_deleted(f"event-{number}") for number in range(5)] == [False, False, True, True, True]
    await log.produce(Outgoing(EVIDENCE, 0, b"{}", headers={ID: b"alert-1"}))
    await past.read()
    assert past.has_record("alert-1")
    for number in range(6, 16):
        await log.produce(tombstone(f"event-{number}"))
    await past.read()
    assert [past.is_deleted(f"event-{number}") for number in (2, 12, 13, 15)] == [False, False, True, True]
    assert log.reads == [(2, 5), (5, 6), (13, 16)]
