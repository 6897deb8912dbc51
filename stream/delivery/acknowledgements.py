"""Acknowledgements of incidents, from the topic ``incidents.actions``."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import aclosing

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, IncidentAction
from ingest.contract.topics import INCIDENT_ACTIONS
from ingest.exceptions import CodecError
from ingest.kafka.follow import Follower
from ingest.kafka.log import Log, LogRecord
from ingest.runtime.clock import Clock

MAX_AGE_S = 1.0
"""Maximum age in seconds of the acknowledgements in memory; if they are older, the topic is read again."""
KEPT = 100_000
"""Number of the latest acknowledgements that are kept in memory, about 30 MB."""


class Acknowledgements:
    """The latest acknowledgement of each incident. The topic is read when an alert is about to be escalated."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._actions, self._clock = Follower(log, INCIDENT_ACTIONS, from_start=True), clock
        self._latest: OrderedDict[str, IncidentAction] = OrderedDict()
        self._read_s = float("-inf")
        self._reading = asyncio.Lock()

    async def by(self, alert: Alert) -> str:
        """Return the person who has acknowledged an alert's incident since the alert was captured; empty if nobody
        has.

        An acknowledgement before the capture of the alert counts, too, unless the alert reports a higher severity.
        Raise LogUnavailable.
        """
        async with self._reading:
            if self._clock.monotonic() - self._read_s >= MAX_AGE_S:
                async with aclosing(self._actions.new()) as records:
                    async for record in records:
                        self._take(record)
                self._read_s = self._clock.monotonic()
        found = self._latest.get(alert.data.incident)
        if found is None or ("severity" in alert.data.reasons and found.at_ns < alert.data.captured_ns):
            return ""
        return found.by

    def _take(self, record: LogRecord) -> None:
        try:
            action = decode_json(IncidentAction, record.value)
        except CodecError:
            return  # the incident view logs and counts unreadable records
        known = self._latest.get(action.incident)
        if action.action == "acknowledge" and (known is None or action.at_ns >= known.at_ns):
            self._latest[action.incident] = action
            self._latest.move_to_end(action.incident)
            if len(self._latest) > KEPT:
                self._latest.popitem(last=False)
