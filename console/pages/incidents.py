"""Incidents: a list with filters, and a page on which people acknowledge, assign and comment."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from console.access.forms import read_form
from console.access.guard import Context, Operator, Viewer
from console.access.roles import Identity
from console.context import ConsoleContext
from console.exceptions import BadInput, NotFound, Unavailable
from console.pages.render import go, page
from ingest.contract.records.event import SEVERITIES, Severity
from ingest.exceptions import LogUnavailable
from stream.exceptions import IncidentNotFound
from stream.incidents.reader import make_action, write_action
from stream.incidents.view import IncidentState

MOST = 200
"""Maximum number of incidents on one page."""
Text = Annotated[str, Query(max_length=200)]
IncidentId = Annotated[str, Path(max_length=128)]
Action = Literal["acknowledge", "assign", "comment"]
router = APIRouter()


class ActionOrder(BaseModel):
    """An action on an incident: an assignment has an ``assignee``, a comment has a text."""

    action: Action
    assignee: Annotated[str, Field(max_length=200)] = ""
    comment: Annotated[str, Field(max_length=2000)] = ""


@router.get("/incidents", include_in_schema=False)
async def incidents(
    request: Request,
    identity: Viewer,
    context: Context,
    state: Text = "",
    severity: Severity = "info",
    place: Text = "",
) -> Response:
    """Show the newest incidents."""
    context.audit_view(request, identity, "incidents_viewed", place)
    chosen = {"state": state, "severity": severity, "place": place}
    found = _selected(context, identity, state, severity, place)
    places = sorted({one.incident.place for one in _selected(context, identity)})
    return page(
        request, identity, "incidents.html", incidents=found, chosen=chosen, places=places, severities=SEVERITIES
    )


@router.get("/incidents/{id_}", include_in_schema=False)
async def incident(request: Request, id_: IncidentId, identity: Viewer, context: Context) -> Response:
    """Show one incident with its history and the actions on it."""
    found = visible_incident(context, identity, id_)
    context.audit_view(request, identity, "incident_viewed", id_)
    return _incident_page(request, context, identity, found)


@router.post("/incidents/{id_}", include_in_schema=False)
async def submit(request: Request, id_: IncidentId, identity: Operator, context: Context) -> Response:
    """Acknowledge, assign or comment on an incident."""
    found, form = visible_incident(context, identity, id_), await read_form(request)
    values = {name: form.text(name) for name in ("action", "assignee", "comment")}
    try:
        await _act(request, context, identity, found, **values)
    except (BadInput, Unavailable) as error:
        return _incident_page(request, context, identity, found, str(error), error.status)
    return go(f"/incidents/{id_}", "saved")


@router.get("/api/incidents")
async def list_incidents(
    request: Request,
    identity: Viewer,
    context: Context,
    state: Annotated[Literal["", "open", "unacknowledged"], Query()] = "",
    severity: Severity = "info",
    place: Text = "",
) -> list[dict[str, Any]]:
    """Return the newest incidents, the one that changed last first."""
    context.audit_view(request, identity, "incidents_viewed", place)
    return [one.summary() for one in _selected(context, identity, state, severity, place)]


@router.get("/api/incidents/{id_}")
async def one_incident(request: Request, id_: IncidentId, identity: Viewer, context: Context) -> dict[str, Any]:
    """Return an incident with its history and the actions on it."""
    found = visible_incident(context, identity, id_)
    context.audit_view(request, identity, "incident_viewed", id_)
    return found.details()


@router.post("/api/incidents/{id_}/actions", status_code=201)
async def add_action(
    request: Request, id_: IncidentId, order: ActionOrder, identity: Operator, context: Context
) -> dict[str, Any]:
    """Acknowledge, assign or comment on an incident."""
    found = visible_incident(context, identity, id_)
    await _act(request, context, identity, found, **order.model_dump())
    return found.details()


async def _act(
    request: Request,
    context: ConsoleContext,
    identity: Identity,
    state: IncidentState,
    action: str,
    assignee: str = "",
    comment: str = "",
) -> None:
    """Write an action to the log, and add it to the view at once. Raise BadInput or Unavailable."""
    id_ = state.incident.id
    try:
        record = make_action(
            id_, action, identity.name, context.clock.now_ns(), assignee=assignee.strip(), comment=comment.strip()
        )
    except ValueError as error:
        raise BadInput(_reason(error)) from None
    try:
        await write_action(context.feed.log(), record)
    except LogUnavailable as error:
        raise Unavailable(f"nothing was saved: {error}") from None
    context.feed.incidents.action(record)
    context.audit(request, identity, f"incident_{action}", id_, assignee or comment)


def _incident_page(
    request: Request,
    context: ConsoleContext,
    identity: Identity,
    state: IncidentState,
    problem: str = "",
    status: int = 200,
) -> Response:
    people = sorted(user.name for user in context.users.all() if user.enabled)
    return page(request, identity, "incident.html", status, state=state, people=people, problem=problem)


def _selected(
    context: ConsoleContext, identity: Identity, state: str = "", severity: Severity = "info", place: str = ""
) -> list[IncidentState]:
    found = context.feed.incidents.select(
        open_only=state == "open",
        unacknowledged=state == "unacknowledged",
        places=[place] if place else (),
        severity=severity,
    )
    return list(islice((one for one in found if _sees(context, identity, one)), MOST))


def visible_incident(context: ConsoleContext, identity: Identity, id_: str) -> IncidentState:
    """Return the incident ``id_`` if the user may see the incident. Raise NotFound."""
    try:
        found = context.feed.incidents.find(id_)
    except IncidentNotFound:
        found = None
    if found is None or found.incident.id != id_ or not _sees(context, identity, found):
        raise NotFound("there is no such incident any more, or you may not see it")
    return found


def _sees(context: ConsoleContext, identity: Identity, state: IncidentState) -> bool:
    """Return whether a user may see all cameras and sensors of an incident. The site in the record counts, because a
    camera may have been removed or moved since."""
    incident, deployment = state.incident, context.feed.deployment
    return all(deployment.sees_camera(identity, name, incident.site) for name in incident.cameras) and all(
        deployment.sees_sensor(identity, name, incident.site) for name in incident.sensors
    )


def _reason(error: ValueError) -> str:
    return (
        str(error).partition("Value error, ")[2].partition(" [type=")[0] or "expected acknowledge, assign or comment"
    )
