"""Routes of the API."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from console.access.guard import Context, Viewer, signed_in, viewer
from console.access.roles import Identity
from console.api.models import AlertItem, CameraItem, EventItem, EventPage, Problem
from console.context import ConsoleContext
from console.exceptions import BadInput, ConsoleError, NotFound
from console.live.happenings import News
from console.pages import events as review
from ingest.contract.codec import encode_json
from ingest.contract.records import Alert, Delivery, Event
from ingest.site.file import UNNAMED

MAX_ITEMS = 500
KEEP_ALIVE_S = 15.0
"""Interval at which a stream of server-sent events sends a comment, and checks the user's session or token, in
seconds."""
KINDS = ("event", "alert", "delivery")
Text = Annotated[str, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=MAX_ITEMS)]
RecordId = Annotated[str, Path(max_length=128)]
_POSITION = re.compile(r"[0-9a-f]{8}-[0-9]{1,18}")
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid session or token"},
    403: {"model": Problem, "description": "The role or a one-time password forbids the request"},
    404: {"model": Problem, "description": "Not there, or not visible to this user"},
    422: {"model": Problem, "description": "A parameter has an invalid value"},
}
router = APIRouter(prefix="/api", responses=_ERRORS)


@router.get("/cameras")
async def cameras(identity: Viewer, context: Context) -> list[CameraItem]:
    """Return the cameras that the user may see, with their states."""
    found = []
    for camera in context.feed.deployment.visible_cameras(identity):
        state, site = context.feed.statuses.state_of(camera), camera.site or UNNAMED
        item = CameraItem(
            name=camera.name, site=site, place=camera.place or "", state=state.name, reason=state.reason
        )
        found.append(item)
    return found


@router.get("/events")
async def events(
    request: Request,
    identity: Viewer,
    context: Context,
    selection: review.Selection,
    limit: Limit = 100,
) -> EventPage:
    """Return the newest events that the parameters select.

    `since` and `until` are times such as `2026-01-31T13:45:00Z`. `place` is the full name `SITE/PLACE`. The console
    has the newest 10,000 events in memory; older events are in the topic `events`.
    """
    items = await review.visible(context, identity, selection.filter(), limit)
    context.audit_view(request, identity, "events_viewed", request.url.query)
    following = f"{items[-1].at_ns}-{items[-1].event.id}" if len(items) == limit else ""
    return EventPage(items=[EventItem.of(item) for item in items], before=following)


@router.get("/events/{number}")
async def event(request: Request, number: RecordId, identity: Viewer, context: Context) -> EventItem:
    """Return an event by id."""
    item = review.visible_event(context, identity, number)
    context.audit_view(request, identity, "event_viewed", number)
    return EventItem.of(item)


@router.get("/events/{number}/evidence/{index}", response_class=Response)
async def evidence(
    request: Request, number: RecordId, index: review.Number, identity: Viewer, context: Context
) -> Response:
    """Return a picture or clip of an event's evidence; the list of evidence has the file's hash. The header `Range`
    selects a part of the file."""
    found = await review.evidence_file(context, identity, number, index)
    context.audit_view(request, identity, "evidence_viewed", f"{number}/{index}")
    return review.file_response(request, found)


@router.get("/alerts")
async def alerts(request: Request, identity: Viewer, context: Context, limit: Limit = 100) -> list[AlertItem]:
    """Return the newest alerts with their receipts."""
    context.audit_view(request, identity, "alerts_viewed", "")
    visible = (one for one in context.feed.happenings.alerts() if context.feed.deployment.sees(identity, one))
    return [_alert_item(context, one) for one in islice(visible, limit)]


@router.get("/alerts/{number}")
async def alert(request: Request, number: RecordId, identity: Viewer, context: Context) -> AlertItem:
    """Return an alert by id, with its receipts."""
    found = context.feed.happenings.alert(number)
    if found is None or not context.feed.deployment.sees(identity, found):
        raise NotFound("there is no such alert in the console's memory, or you may not see it")
    context.audit_view(request, identity, "alert_viewed", number)
    return _alert_item(context, found)


@router.get("/stream", response_class=StreamingResponse)
async def stream(
    request: Request,
    identity: Viewer,
    context: Context,
    kinds: Text = "event,alert,delivery",
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Send new events, alerts and receipts as Server-Sent Events, whose data are the records in JSON.

    `kinds` selects from `event`, `alert` and `delivery`. A client that reconnects with `Last-Event-ID` gets
    everything that is new since then; if a part is no longer in memory, the client gets an event named `gap` first.
    """
    wanted = {kind for kind in kinds.split(",") if kind}
    if unknown := wanted - set(KINDS):
        raise BadInput(f"kinds = {sorted(unknown)[0]!r}: expected some of {', '.join(KINDS)}, separated by commas")
    context.audit_view(request, identity, "news_followed", ",".join(sorted(wanted)))
    return StreamingResponse(_news(request, identity, context, wanted, last_event_id), media_type="text/event-stream")


@router.get("/openapi.json", include_in_schema=False)
async def schema(request: Request, identity: Viewer) -> Response:
    """Return the description of the API in OpenAPI."""
    return JSONResponse(request.app.openapi())


async def _news(
    request: Request, identity: Identity, context: ConsoleContext, kinds: set[str], last: str
) -> AsyncIterator[str]:
    happenings = context.feed.happenings
    position, is_gap = happenings.counted, False
    if _POSITION.fullmatch(last):
        run_id, _, number = last.partition("-")
        is_gap = run_id != happenings.run_id or int(number) > happenings.counted
        position = position if is_gap else int(number)
    clock = asyncio.get_running_loop().time
    check_s = clock() + KEEP_ALIVE_S
    with context.feed.news.subscribed() as woken:
        yield "retry: 2000\n\n"
        while True:
            woken.clear()
            found, has_skipped = happenings.news_after(position)
            if is_gap or has_skipped:
                yield "event: gap\ndata: {}\n\n"
                is_gap = False
            for news in found:
                position = news.number
                if news.kind in kinds and _sees(context, identity, news.record):
                    yield _message(happenings.run_id, news)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(check_s):
                    await woken.wait()
            if clock() < check_s:
                continue
            yield ": keep-alive\n\n"
            try:
                identity = await viewer(await signed_in(request))
            except ConsoleError:
                return
            check_s = clock() + KEEP_ALIVE_S


def _message(run_id: str, news: News) -> str:
    data = encode_json(news.record).decode()  # JSON in one line
    return f"id: {run_id}-{news.number}\nevent: {news.kind}\ndata: {data}\n\n"


def _sees(context: ConsoleContext, identity: Identity, record: Event | Alert | Delivery) -> bool:
    """Return whether a user may see a record. A user may see a receipt of a delivery if the user may see the
    delivered alert."""
    if isinstance(record, Delivery):
        found = context.feed.happenings.alert(record.alert)
        return context.feed.deployment.sees(identity, found) if found else identity.limits.everywhere
    return context.feed.deployment.sees(identity, record)


def _alert_item(context: ConsoleContext, found: Alert) -> AlertItem:
    return AlertItem(alert=found, receipts=list(context.feed.happenings.receipts(found.id)))
