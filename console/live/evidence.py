"""The records of the topic ``evidence``: files that were stored after the alert, and tombstones of deleted files."""

from __future__ import annotations

from typing import ClassVar

from console.live.happenings import MAX_EVENTS, Happenings
from console.live.view import TopicView
from ingest.contract.codec import decode_json
from ingest.contract.records import EvidenceRecord
from ingest.contract.topics import EVIDENCE
from ingest.kafka.log import LogRecord


class EvidenceView(TopicView):
    """Stored and deleted evidence. The topic ``evidence`` has one partition, and an event has at most one record of
    stored and one of deleted files."""

    topic: ClassVar[str] = EVIDENCE
    backlog: ClassVar[int] = 2 * MAX_EVENTS

    def __init__(self, happenings: Happenings) -> None:
        self._happenings = happenings

    def apply(self, record: LogRecord) -> None:
        """Add a record of stored or deleted files."""
        self._happenings.add_evidence(decode_json(EvidenceRecord, record.value), record.offset)
