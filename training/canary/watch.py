"""Roll back a model's canary version: end the canary, and report the rollback as an event."""

from __future__ import annotations

from engines.repository.canary import Canary, end_canary, read_canary
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Event, EventData
from ingest.contract.topics import EVENTS, partition_for
from ingest.kafka.log import Log, Outgoing
from ingest.runtime import logs
from stream.events import event_id, rfc3339

_log = logs.get("training.canary")

EVENT_TYPE = "sightline.model.rolled_back"
RULE = "canary"
"""Name of the rule in the event of a rolled-back canary."""


async def roll_back(
    log: Log, repository: Repository, canary: Canary, reasons: list[str], now_ns: int
) -> Event | None:
    """End a canary, and report the rollback as an event, as a log line, and in the audit trail.

    Do nothing and return None if the canary has ended or was replaced since it was measured.

    If this process is killed before the canary has ended, the next process writes the same event again and ends the
    canary. Raise LogUnavailable, AdoptFailed or ManifestError.
    """
    if read_canary(repository, canary.model) != canary:
        return None
    reason = "; ".join(reasons)
    event = event_of(canary, reason, now_ns)
    partition = partition_for(event.place, len(await log.ends(EVENTS)))
    headers = {**h.CLOUD_EVENT, h.LANE: LIVE.encode()}
    await log.produce(Outgoing(EVENTS, partition, encode_json(event), key=event.subject.encode(), headers=headers))
    end_canary(repository, canary, "rolled back", now_ns, reason)
    _log.error("canary_rolled_back", model=canary.id, share=canary.share, reason=reason)
    return event


def event_of(canary: Canary, reason: str, now_ns: int) -> Event:
    """Return the event of a rolled-back canary. All events of one canary's rollback have the same id."""
    identity = event_id(EVENT_TYPE, canary.id, canary.since_ns)
    return Event(
        id=identity,
        source=f"/models/{canary.model}",
        type=EVENT_TYPE,
        subject=canary.model,
        time=rfc3339(now_ns),
        data=EventData(
            incident=identity,
            rule=RULE,
            severity="critical",
            summary=f"canary {canary.id} was rolled back: {reason}"[:2000],
            details={"model": canary.id, "share": canary.share},
            captured_ns=now_ns,
        ),
    )
