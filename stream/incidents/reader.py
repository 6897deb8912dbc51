"""Follow the topics of incidents into a view, and write the actions of people."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Incident, IncidentAction, Record
from ingest.contract.topics import INCIDENT_ACTIONS, INCIDENTS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.follow import Follower
from ingest.kafka.log import Log, Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from stream.events import event_id
from stream.incidents.view import IncidentView

_log = logs.get("stream.incidents")
R = TypeVar("R", bound=Record)

KEPT_S = 30 * 86_400.0
"""Age in seconds of the oldest records that a reader reads: the retention of the topics."""


class IncidentReader:
    """Reads the topics ``incidents`` and ``incidents.actions`` into a view.

    The first call of ``catch_up`` reads the records of the last ``kept_s`` seconds. Each further call reads the
    records since the previous call. An unreadable record is logged, counted in ``view.unreadable`` and skipped.
    """

    def __init__(self, log: Log, view: IncidentView, kept_s: float = KEPT_S, clock: Clock | None = None) -> None:
        self._view = view
        since_ms = max(0, (clock or SystemClock()).now_ns() // 1_000_000 - round(kept_s * 1000))
        self._incidents = Follower(log, INCIDENTS, since_ms=since_ms)
        self._actions = Follower(log, INCIDENT_ACTIONS, since_ms=since_ms)

    async def catch_up(self) -> None:
        """Read both topics to their ends. Raise LogUnavailable."""
        await self._read(self._incidents, Incident, self._view.incident)
        await self._read(self._actions, IncidentAction, self._view.action)

    async def _read(self, follower: Follower, cls: type[R], take: Callable[[R], None]) -> None:
        async with aclosing(follower.new()) as records:
            async for record in records:
                try:
                    take(decode_json(cls, record.value))
                except CodecError as error:
                    self._view.unreadable += 1
                    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
                    _log.warning("incident_record_unreadable", **place, error=str(error))


def make_action(
    incident: str, action: str, by: str, at_ns: int, *, assignee: str = "", comment: str = ""
) -> IncidentAction:
    """Return an action on an incident: ``acknowledge``, ``assign`` or ``comment``.

    ``by`` is the person who acts, ``at_ns`` the present Unix time in ns. Raise ValueError for an incomplete action.
    """
    return IncidentAction.model_validate(
        {
            "id": event_id("incident-action", incident, action, by, at_ns, assignee, comment),
            "incident": incident,
            "action": action,
            "by": by,
            "at_ns": at_ns,
            "assignee": assignee,
            "comment": comment,
        }
    )


async def write_action(log: Log, action: IncidentAction) -> None:
    """Write an action to the topic ``incidents.actions``.

    An action that is written again, because its acknowledgement was lost, counts once. Raise LogUnavailable.
    """
    partition = partition_for(action.incident, len(await log.ends(INCIDENT_ACTIONS)))
    await log.produce(Outgoing(INCIDENT_ACTIONS, partition, encode_json(action), key=action.incident.encode()))
