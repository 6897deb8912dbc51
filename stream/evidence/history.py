"""The alerts whose evidence is complete, and the events whose evidence was deleted, from the topic ``evidence``."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import aclosing, suppress

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, EvidenceRecord
from ingest.contract.topics import EVIDENCE
from ingest.exceptions import CodecError
from ingest.kafka.log import Log
from stream.alerts.incidents import ID
from stream.evidence.retention import DELETED, STATE

KNOWN = 20_000
"""Number of the latest records that are read and remembered: of records of alerts, so that no alert gets a second
one, and of tombstones, so that an erased event gets no files."""


class EvidenceHistory:
    """The latest records of the topic ``evidence``: which alerts have a record, and the evidence of which events was
    deleted."""

    def __init__(self, log: Log) -> None:
        self._log, self._next = log, 0
        self._alerts: OrderedDict[str, None] = OrderedDict()
        self._deleted: OrderedDict[str, None] = OrderedDict()

    async def read(self) -> None:
        """Read the records that are new since the last call, at most ``KNOWN``. Raise LogUnavailable."""
        end = (await self._log.ends(EVIDENCE))[0]
        self._next = max(self._next, end - KNOWN)
        async with aclosing(self._log.read(EVIDENCE, 0, self._next, end)) as records:
            async for record in records:
                if record.headers.get(STATE) == DELETED:
                    with suppress(CodecError):
                        _remember(self._deleted, decode_json(EvidenceRecord, record.value).event)
                else:
                    self.remember(record.headers.get(ID, b"").decode(errors="replace"))
        self._next = max(self._next, end)

    def remember(self, alert: str) -> None:
        """Remember an alert that has its record on ``evidence``."""
        _remember(self._alerts, alert)

    def has_record(self, alert: str) -> bool:
        """Return whether an alert has its record on ``evidence``."""
        return alert in self._alerts

    def is_deleted(self, event: str) -> bool:
        """Return whether the evidence of an event was deleted."""
        return event in self._deleted


def _remember(known: OrderedDict[str, None], name: str) -> None:
    known[name] = None
    if len(known) > KNOWN:
        known.popitem(last=False)


def has_evidence(alert: Alert) -> bool:
    """Return whether an alert has evidence to complete. Alerts of sensors and of the ends of incidents have none."""
    data = alert.data
    return bool(data.evidence or data.evidence_missing or data.clip)
