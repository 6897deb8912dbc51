"""Review of events: a list with filters, and a page for each event."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from console.access.guard import Context, Viewer
from console.access.roles import Identity
from console.context import ConsoleContext
from console.evidence import CLIP_TYPE, ServedFile, evidence_of
from console.exceptions import BadInput, NotFound
from console.live.happenings import EventFilter, ReviewItem
from console.pages.render import page
from console.review.clip import clip_of
from console.review.path import MAX_POINTS
from console.review.ranges import byte_range
from ingest.contract.records.event import COLOURS, SEVERITIES
from ingest.runtime.clock import unix_ns
from ingest.site.file import UNNAMED

PAGE = 48
"""Number of events on one page."""
HOURS = {"1": "last hour", "6": "last 6 hours", "24": "last day", "168": "last week"}
MAX_PIXEL = 100_000.0
HOUR_NS = 3_600_000_000_000
Text = Annotated[str, Query(max_length=200)]
Number = Annotated[int, Path(ge=0, le=1000)]
EventId = Annotated[str, Path(max_length=128)]
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class EventSelection:
    """The query parameters that select events, for the page and for the API."""

    camera: Text = ""
    sensor: Text = ""
    site: Text = ""
    place: Text = ""
    rule: Text = ""
    label: Text = ""
    severity: Text = ""
    colour: Text = ""
    path: Annotated[str, Query(max_length=2000)] = ""
    near: Annotated[float, Query(ge=0.0, le=10_000.0)] = 50.0
    since: Text = ""
    until: Text = ""
    before: Text = ""

    def filter(self, default_since_ns: int = 0) -> EventFilter:
        """Return the filter for the query parameters of the request. Without ``since``, events begin at
        ``default_since_ns``.

        Raise BadInput.
        """
        return EventFilter(
            camera=self.camera,
            sensor=self.sensor,
            site=self.site,
            place=self.place,
            rule=self.rule,
            label=self.label,
            severity=self.severity,
            colour=self.colour,
            path=path_points(self.path),
            near=self.near,
            since_ns=time_ns(self.since) or default_since_ns,
            until_ns=time_ns(self.until),
            before=position(self.before),
        )


Selection = Annotated[EventSelection, Depends()]


@router.get("/events")
async def events(
    request: Request,
    identity: Viewer,
    context: Context,
    selection: Selection,
    hours: Text = "",
) -> Response:
    """Show the selected events, the newest first."""
    chosen = {**asdict(selection), "hours": hours if hours in HOURS else ""}
    del chosen["before"], chosen["near"]
    if selection.path:
        chosen["near"] = f"{selection.near:g}"
    problem, items = "", []
    try:
        now_ns = context.clock.now_ns()
        since_ns = now_ns - int(chosen["hours"]) * HOUR_NS if chosen["hours"] else 0
        items = await visible(context, identity, selection.filter(since_ns), PAGE)
    except BadInput as error:
        problem = f"{error}."
    context.audit_view(request, identity, "events_viewed", urlencode({k: v for k, v in chosen.items() if v}))
    older = {**chosen, "before": f"{items[-1].at_ns}-{items[-1].event.id}"} if len(items) == PAGE else {}
    return page(
        request,
        identity,
        "events.html",
        422 if problem else 200,
        problem=problem,
        items=items,
        chosen=chosen,
        older=older,
        options=_options(context, identity),
        hours=HOURS,
        sketched=await _sketched(context, identity, selection.camera),
    )


@router.get("/events/{number}")
async def event(request: Request, number: EventId, identity: Viewer, context: Context) -> Response:
    """Show one event with its pictures, its clip, its alerts and their receipts."""
    item = visible_event(context, identity, number)
    context.audit_view(request, identity, "event_viewed", number)
    found = evidence_of(item)
    pictures = [one for one in found if one.media_type != CLIP_TYPE and one.name not in item.evidence.deleted]
    reasons = [alert.data.evidence_missing for alert in item.alerts if alert.data.evidence_missing]
    runs = context.feed.statuses.runs("evidence")
    return page(
        request,
        identity,
        "event.html",
        item=item,
        evidence=found,
        missing=[] if pictures else reasons,
        overlay=_overlay(item) if item.event.data.frame and not pictures else "",
        clip=clip_of(item, context.clock.now_ns(), worker_runs=runs),
    )


@router.get("/events/{number}/picture")
async def picture(
    request: Request, number: EventId, identity: Viewer, context: Context, plain: bool = False
) -> Response:
    """Return the picture of an event: annotated evidence, or the frame in the log.

    With ``plain``, the original picture is preferred.
    """
    item = visible_event(context, identity, number)
    found = await context.evidence.picture(context.feed, item, plain=plain)
    context.audit_view(request, identity, "picture_viewed", number)
    return file_response(request, found)


@router.get("/events/{number}/evidence/{index}")
async def evidence(request: Request, number: EventId, index: Number, identity: Viewer, context: Context) -> Response:
    """Return one file of an event's evidence."""
    found = await evidence_file(context, identity, number, index)
    context.audit_view(request, identity, "evidence_viewed", f"{number}/{index}")
    return file_response(request, found)


async def visible(context: ConsoleContext, identity: Identity, wanted: EventFilter, limit: int) -> list[ReviewItem]:
    """Return the selected events that the user may see, the newest first."""
    deployment = context.feed.deployment
    return await context.feed.happenings.newest(wanted, lambda event: deployment.sees(identity, event), limit)


def visible_event(context: ConsoleContext, identity: Identity, number: str) -> ReviewItem:
    """Return an event by id. Raise NotFound if there is no such event, or if the user may not see the event."""
    item = context.feed.happenings.event(number)
    if item is None or not context.feed.deployment.sees(identity, item.event):
        raise NotFound("there is no such event in the console's memory, or you may not see it")
    return item


async def evidence_file(context: ConsoleContext, identity: Identity, number: str, index: int) -> ServedFile:
    """Return a file of an event's evidence by its index. Raise NotFound."""
    item = visible_event(context, identity, number)
    found = evidence_of(item)
    if index >= len(found):
        raise NotFound(f"this event has {len(found)} files of evidence")
    return await context.evidence.read(item, found[index])


def file_response(request: Request, found: ServedFile) -> Response:
    """Return a response with a picture or clip, or with the part of the file that the request selects. A browser may
    keep the file for this user, because the file never changes."""
    tag, size = f'"{found.sha256}"', len(found.data)
    headers = {"Cache-Control": "private, max-age=3600", "ETag": tag, "Content-Disposition": "inline"}
    headers["Accept-Ranges"] = "bytes"
    part = byte_range(request.headers.get("range", ""), size)
    if part is None or request.headers.get("if-range", tag) != tag:
        return Response(found.data, media_type=found.media_type, headers=headers)
    if not part.satisfiable:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Response(found.data[part.start : part.stop], 206, media_type=found.media_type, headers=headers)


def time_ns(text: str) -> int:
    """Return a time as Unix ns, 0 for an empty text. A time without a zone is in UTC. Raise BadInput."""
    if not text:
        return 0
    try:
        return max(0, unix_ns(datetime.fromisoformat(text)))
    except (ValueError, OverflowError):
        raise BadInput(f"time {text[:40]!r}: expected a time such as 2026-01-31T13:45:00Z") from None


def path_points(text: str) -> tuple[tuple[float, float], ...]:
    """Return the points of a sketched path in pixels, from ``X,Y;X,Y``. Raise BadInput."""
    try:
        points = tuple((float(x), float(y)) for x, y in (one.split(",") for one in text.split(";") if one))
    except ValueError:
        points = ((math.nan, math.nan),)
    usable = all(abs(part) <= MAX_PIXEL for point in points for part in point)  # false for NaN
    if (text and not 2 <= len(points) <= MAX_POINTS) or not usable:
        raise BadInput(f"path = {text[:40]!r}: expected 2 to {MAX_POINTS} points X,Y;X,Y in pixels of the frame")
    return points


def position(text: str) -> tuple[int, str] | None:
    """Return time and id of the last event of a page, from ``TIME_NS-ID``. Raise BadInput."""
    at, _, number = text.partition("-")
    if text and not (at.isascii() and at.isdigit() and len(at) < 25):
        raise BadInput(f"before = {text[:40]!r}: expected TIME_NS-ID, as in the link to older events")
    return (int(at), number) if text else None


async def _sketched(context: ConsoleContext, identity: Identity, camera: str) -> str:
    """Return the id of the newest event of a camera, for the picture on which the user sketches a path; "" without an
    event."""
    found = await visible(context, identity, EventFilter(camera=camera), 1) if camera else []
    return found[0].event.id if found else ""


def _overlay(item: ReviewItem) -> str:
    """Return the shapes of an event as JSON, for the script that draws them on the frame."""
    overlay = item.event.data.overlay
    box: Any = list(overlay.box) if overlay.box else None
    return json.dumps({"shape": overlay.shape, "box": box, "trail": overlay.trail})


def _options(context: ConsoleContext, identity: Identity) -> dict[str, list[str]]:
    """Return the values to choose from for each filter."""
    deployment = context.feed.deployment
    cameras, sensors = deployment.visible_cameras(identity), deployment.visible_sensors(identity)
    rules = {rule.name for camera in cameras for rule in deployment.rules_of(camera.name)}
    return {
        "camera": [camera.name for camera in cameras],
        "site": sorted({*(one.site or UNNAMED for one in cameras), *(one.site or UNNAMED for one in sensors)}),
        "place": sorted({camera.full_place for camera in cameras if camera.place}),
        "rule": sorted(rules),
        "label": context.feed.happenings.labels(lambda event: deployment.sees(identity, event)),
        "severity": list(SEVERITIES),
        "colour": list(COLOURS),
    }
