"""Export of the selected events and incidents as an archive, with a manifest of the files' hashes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from console.access.forms import read_form
from console.access.guard import Context, Operator
from console.access.roles import Identity
from console.context import ConsoleContext
from console.exceptions import BadInput
from console.pages.events import visible_event
from console.pages.incidents import visible_incident
from console.review.export import MAX_EVENTS, export_review

_PART_BYTES = 256 * 1024
Ids = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=MAX_EVENTS)]
router = APIRouter()


class ExportOrder(BaseModel):
    """The ids of the events and incidents to export. An incident is exported with those of its events that the
    console has in memory."""

    events: Ids = []
    incidents: Ids = []


@router.post("/export", include_in_schema=False)
async def export_selected(request: Request, identity: Operator, context: Context) -> Response:
    """Return an archive of the events and incidents that the user has selected in a form."""
    form = await read_form(request)
    return await _export(request, context, identity, form.texts("event"), form.texts("incident"))


@router.post("/api/exports", response_class=StreamingResponse)
async def export(request: Request, order: ExportOrder, identity: Operator, context: Context) -> Response:
    """Return a zip archive of the selected events and incidents with pictures, clips, receipts and comments, and a
    manifest with the SHA-256 of each file. The header `X-Manifest-SHA256` and the audit trail have the hash of the
    manifest."""
    return await _export(request, context, identity, order.events, order.incidents)


async def _export(
    request: Request, context: ConsoleContext, identity: Identity, events: list[str], incidents: list[str]
) -> Response:
    states = [visible_incident(context, identity, one) for one in dict.fromkeys(incidents)]
    deployment, happenings = context.feed.deployment, context.feed.happenings
    own = [visible_event(context, identity, one) for one in dict.fromkeys(events)]
    joined = dict.fromkeys(one for state in states for one in happenings.of_incident(state.incident.id))
    found = (happenings.event(one) for one in joined if one not in events)
    own += [item for item in found if item and deployment.sees(identity, item.event)]
    if not 0 < len(own) + len(states) <= MAX_EVENTS:
        raise BadInput(f"{len(own)} events and {len(states)} incidents are selected: expected 1 to {MAX_EVENTS}")
    made_ns = context.clock.now_ns()
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (without a name, so that a kill leaves no file)
    try:
        async with context.exporting:
            sha256 = await export_review(file, context.evidence, own, states, by=identity.name, made_ns=made_ns)
        size = file.seek(0, os.SEEK_END)
    except BaseException:
        file.close()
        raise
    for item in own:
        context.audit(request, identity, "event_exported", item.event.id, f"manifest SHA-256 {sha256}")
    for state in states:
        context.audit(request, identity, "incident_exported", state.incident.id, f"manifest SHA-256 {sha256}")
    name = f"sightline-{datetime.fromtimestamp(made_ns / 1e9, UTC):%Y%m%dT%H%M%SZ}.zip"
    headers = {"X-Manifest-SHA256": sha256, "Cache-Control": "no-store", "Content-Length": str(size)}
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return StreamingResponse(_parts(file), media_type="application/zip", headers=headers)


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the parts of a file from its beginning, and close the file."""
    with file:
        file.seek(0)
        while part := file.read(_PART_BYTES):
            yield part
