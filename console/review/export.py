"""Export of events and incidents as an archive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import IO, Any

from console.evidence import EvidenceFiles, evidence_of
from console.exceptions import NotFound, Unavailable
from console.live.happenings import ReviewItem
from stream.events import rfc3339
from stream.evidence.export import ExportWriter
from stream.incidents.view import IncidentState

MAX_EVENTS = 500
"""Maximum number of events in one archive. With two clips of 3 MB for each event, the archive takes 3 GB."""


async def export_review(
    file: IO[bytes],
    files: EvidenceFiles,
    items: Iterable[ReviewItem],
    incidents: Iterable[IncidentState],
    *,
    by: str,
    made_ns: int,
) -> str:
    """Write an archive of events with their pictures and clips, and of incidents with the operators' actions. Return
    the SHA-256 of the archive's manifest.

    If a picture or clip cannot be read, the manifest names the file and the reason.
    """
    writer = ExportWriter(file, made_ns)
    missing: list[dict[str, str]] = []
    events, states = list(items), list(incidents)
    for item in events:
        writer.add(f"events/{item.event.id}.json", _json(_record_of(item)))
        for evidence in evidence_of(item):
            try:
                found = await files.read(item, evidence)
            except (NotFound, Unavailable) as error:
                missing.append({"event": item.event.id, "name": evidence.name, "reason": str(error)})
                continue
            await asyncio.to_thread(writer.add, f"evidence/{evidence.name}", found.data)
    for state in states:
        writer.add(f"incidents/{state.incident.id}.json", _json(state.details()))
    writer.add("review.txt", "\n".join(_lines(events, states)).encode(errors="replace"))
    return writer.finish(
        by=by,
        events=[item.event.id for item in events],
        incidents=[state.incident.id for state in states],
        missing=missing,
    )


def _record_of(item: ReviewItem) -> dict[str, Any]:
    stored = item.evidence.stored
    return {
        "event": item.event.model_dump(mode="json"),
        "alerts": [alert.model_dump(mode="json") for alert in item.alerts],
        "receipts": [receipt.model_dump(mode="json") for receipt in item.receipts],
        "evidence": stored.model_dump(mode="json") if stored else None,
        "deleted": item.evidence.deleted,
    }


def _lines(items: list[ReviewItem], incidents: list[IncidentState]) -> list[str]:
    """Return the lines of the archive's summary as text for people."""
    found = ["Sightline: exported review. manifest.json has the SHA-256 of each file.", ""]
    for state in incidents:
        one = state.summary()
        found.append(f"Incident {one['id']}: {one['summary']} ({one['severity']}, {one['state']}) at {one['place']}")
        assigned = f"assigned to {one['assignee'] or 'nobody'}"
        found.append(f"  from {one['began']} to {one['last']}, {one['events']} events, {assigned}")
        for action in state.actions:
            detail = action.assignee or action.comment
            found.append(f"  {rfc3339(action.at_ns)} {action.by}: {action.action}{': ' if detail else ''}{detail}")
        found.append("")
    for item in items:
        data = item.event.data
        found.append(f"Event {item.event.id}: {data.summary} ({data.severity})")
        found.append(f"  {item.event.time}, {item.event.subject}, rule {data.rule}")
        found += [f"  evidence/{one.name}" for one in evidence_of(item)]
        found += [f"  {one.receiver}: {one.state} {one.reason}".rstrip() for one in item.receipts]
        found.append("")
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode(errors="replace")
