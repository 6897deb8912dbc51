"""`sightline incidents`: list, show, acknowledge, assign and comment on incidents."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from deploy.cli.common import AsJson, Kafka, Last, Prefix, friendly, on_log, since_ms_of, user_name
from deploy.cli.output import print_rows, printable, stdout
from ingest.contract.records import IncidentAction
from ingest.contract.records.event import SEVERITIES, Severity
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.site.entry import expectation
from stream.incidents.reader import KEPT_S, IncidentReader, make_action, write_action
from stream.incidents.view import IncidentState, IncidentView

app = typer.Typer(help="List incidents, acknowledge them, assign them, and comment on them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the incident, or its beginning.")]
By = Annotated[
    str, typer.Option("--by", help="Name of the person who acts. Default: the user's name.", show_default=False)
]


@app.command("list")
@friendly
def list_incidents(
    open_only: Annotated[bool, typer.Option("--open", help="Only incidents that have not ended.")] = False,
    unacknowledged: Annotated[bool, typer.Option(help="Only incidents that nobody has acknowledged.")] = False,
    place: Annotated[
        list[str] | None, typer.Option(help="Only incidents of this place, camera or sensor. May be repeated.")
    ] = None,
    severity: Annotated[str, typer.Option(help="Lowest severity: info, warning or critical.")] = "info",
    last: Last = "7d",
    limit: Annotated[int, typer.Option(min=1, help="Number of incidents to print.")] = 100,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """List incidents, the one that changed last first."""
    lowest, since_ms = _severity(severity), since_ms_of("incidents list", last)
    kept_s = time.time() - since_ms / 1000.0
    view = on_log("sightline-incidents", kafka, prefix, lambda log: _read(log, kept_s))
    chosen = view.select(
        open_only=open_only,
        unacknowledged=unacknowledged,
        places=place or (),
        severity=lowest,
        since_ns=since_ms * 1_000_000,
    )
    rows = [state.summary() for state, _ in zip(chosen, range(limit), strict=False)]
    if as_json:
        stdout.print_json(data=rows)
        return
    shown = ("id", "state", "severity", "place", "began", "events", "acknowledged_by", "assignee", "summary")
    short = [row | {"id": row["id"][:8]} for row in rows]
    print_rows(short, False, dict(zip(shown, (name.replace("_", " ") for name in shown), strict=True)))


@app.command()
@friendly
def show(incident: Id, as_json: AsJson = False, kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Show an incident with its changes and the actions of people."""
    state = on_log("sightline-incidents", kafka, prefix, lambda log: _find(log, incident))
    if as_json:
        stdout.print_json(data=state.details())
        return
    for line in lines(state.details()):
        sys.stdout.write(printable(line) + "\n")


@app.command()
@friendly
def ack(
    incident: Id,
    by: By = "",
    comment: Annotated[str, typer.Option(help="A comment.")] = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Acknowledge an incident: somebody takes care of it."""
    _act(incident, "acknowledge", by, as_json, kafka, prefix, comment=comment)


@app.command()
@friendly
def assign(
    incident: Id,
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Who takes care of the incident.")],
    by: By = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Assign an incident to a person."""
    _act(incident, "assign", by, as_json, kafka, prefix, assignee=person)


@app.command()
@friendly
def comment(
    incident: Id,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The comment.")],
    by: By = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Add a comment to an incident."""
    _act(incident, "comment", by, as_json, kafka, prefix, comment=text)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that show an incident as text. ``found`` is the dict of ``IncidentState.details``."""
    yield f"incident {found['id']}: {found['state']}, {found['severity']}"
    yield f"  {found['summary']}"
    yield f"  {found['type']} at {found['place']} ({found['lane']}), {found['events']} events"
    yield f"  cameras and sensors: {', '.join([*found['cameras'], *found['sensors']])}"
    yield f"  rules: {', '.join(found['rules'])}"
    for one in found["history"]:
        reasons = f" ({', '.join(one['reasons'])})" if one["reasons"] else ""
        state = f"{one['severity']}, {one['events']} events, event {one['event']}"
        yield f"  {one['at']}  {one['change']}{reasons}: {state}"
    for one in found["actions"]:
        assignee = f" to {one['assignee']}" if one["assignee"] else ""
        text = f": {one['comment']}" if one["comment"] else ""
        yield f"  {one['at']}  {one['action']}{assignee} by {one['by']}{text}"


async def _read(log: Log, kept_s: float) -> IncidentView:
    view = IncidentView()
    await IncidentReader(log, view, kept_s).catch_up()
    if view.unreadable:
        sys.stderr.write(f"{view.unreadable} records cannot be read and are left out\n")
    return view


async def _find(log: Log, incident: str) -> IncidentState:
    return (await _read(log, KEPT_S)).find(incident)


def _act(
    incident: str,
    action: str,
    by: str,
    as_json: bool,
    kafka: str,
    prefix: str,
    *,
    assignee: str = "",
    comment: str = "",
) -> None:
    async def work(log: Log) -> dict[str, Any]:
        found = (await _find(log, incident)).incident.id
        own = action_of(found, action, by or user_name(), assignee=assignee, comment=comment)
        await write_action(log, own)
        return (await _find(log, found)).details()

    details = on_log("sightline-incidents", kafka, prefix, work)
    if as_json:
        stdout.print_json(data=details)
        return
    for line in lines(details):
        sys.stdout.write(printable(line) + "\n")


def action_of(incident: str, action: str, by: str, *, assignee: str = "", comment: str = "") -> IncidentAction:
    """Return the record of a person's action on an incident, made now. Raise ConfigError for a wrong value."""
    try:
        return make_action(incident, action, by, time.time_ns(), assignee=assignee, comment=comment)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or action
        raise ConfigError(f"incident {action}", field, first["input"], expectation(first)) from None


def _severity(text: str) -> Severity:
    for severity in SEVERITIES:
        if severity == text:
            return severity
    raise ConfigError("incidents list", "--severity", text, f"one of {', '.join(SEVERITIES)}")
