"""Tests of the pages of incidents: rights, actions, and hostile texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from console.context import ConsoleContext
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Incident, IncidentAction
from ingest.contract.topics import INCIDENT_ACTIONS, INCIDENTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from tests.console.conftest import Browser
from tests.console.records import CAPTURED_NS, configure

Open = Callable[..., Browser]


def incident(name: str, cameras: tuple[str, ...] = ("gate",), **fields: Any) -> Incident:
    values: dict[str, Any] = {
        "id": name,
        "change": "begin",
        "type": "sightline.zone.entered",
        "place": "north/door",
        "site": "north",
        "severity": "warning",
        "summary": f"summary of {name}",
        "cameras": cameras,
        "rules": ("inside",),
        "events": 1,
        "begin_ns": CAPTURED_NS,
        "last_ns": CAPTURED_NS,
        "gap_s": 120.0,
        "event": f"event-of-{name}",
        "appended_ns": CAPTURED_NS,
    }
    return Incident(**{**values, **fields})


@pytest.fixture
async def operator(context: ConsoleContext, log: MemoryLog, browser: Open) -> Browser:
    """Return the browser of otto, who is an operator of the site north."""
    await configure(log)
    hostile = incident("three", summary="<script>alert(1)</script>", severity="critical")
    for record in (incident("one"), incident("two", ("gate", "yard"), site="south", place="south/door"), hostile):
        await log.produce(Outgoing(INCIDENTS, 0, encode_json(record)))
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("otto")
    return one


async def actions(log: MemoryLog) -> list[IncidentAction]:
    ends = await log.ends(INCIDENT_ACTIONS)
    return [
        decode_json(IncidentAction, record.value)
        for partition, end in ends.items()
        async for record in log.read(INCIDENT_ACTIONS, partition, 0, end)
    ]


async def test_the_list_has_only_incidents_all_of_whose_cameras_the_user_may_see(operator: Browser) -> None:
    html = await operator.load("/incidents")
    assert ("summary of one" in html, "summary of two" in html) == (True, False)
    assert ("<script>alert" in html, "&lt;script&gt;alert" in html) == (False, True)
    assert (await operator.get("/incidents/two")).status_code == 404
    assert (await operator.get("/api/incidents/two")).status_code == 404
    assert [one["id"] for one in (await operator.get("/api/incidents")).json()] == ["three", "one"]
    critical = (await operator.get("/api/incidents?severity=critical")).json()
    assert [one["id"] for one in critical] == ["three"]


async def test_an_operator_acknowledges_assigns_and_comments(
    operator: Browser, context: ConsoleContext, log: MemoryLog
) -> None:
    await operator.load("/incidents/one")
    for fields in (
        {"action": "acknowledge"},
        {"action": "assign", "assignee": "vera"},
        {"action": "comment", "comment": "<b>"},
    ):
        assert (await operator.submit("/incidents/one", **fields)).status_code == 303
    found = await actions(log)
    assert [(one.action, one.by, one.assignee, one.comment) for one in found] == [
        ("acknowledge", "otto", "", ""),
        ("assign", "otto", "vera", ""),
        ("comment", "otto", "", "<b>"),
    ]
    html = await operator.load("/incidents/one")
    assert "otto → vera" in html
    assert "otto: &lt;b&gt;" in html
    await context.feed.catch_up(log)
    details = (await operator.get("/api/incidents/one")).json()
    assert (details["acknowledged_by"], details["assignee"], len(details["actions"])) == ("otto", "vera", 3)
    assert (await operator.get("/api/incidents?state=unacknowledged")).json()[0]["id"] == "three"
    assert "incident_acknowledge" in context.trail.actions()


@pytest.mark.parametrize("fields", [{"action": "assign"}, {"action": "comment"}, {"action": "none"}, {}])
async def test_an_incomplete_action_is_refused_and_writes_nothing(
    operator: Browser, log: MemoryLog, fields: dict[str, str]
) -> None:
    await operator.load("/incidents/one")
    response = await operator.submit("/incidents/one", **fields)
    assert response.status_code == 422
    assert "expected" in response.text
    assert await actions(log) == []


async def test_a_viewer_and_a_request_without_the_token_of_its_form_change_nothing(
    operator: Browser, browser: Open, log: MemoryLog
) -> None:
    viewer = browser()
    await viewer.sign_in("vera")
    assert "Acknowledge" not in (await viewer.load("/incidents/one")).partition("Acknowledged")[2]
    assert (await viewer.submit("/incidents/one", action="acknowledge")).status_code == 403
    assert (await operator.post("/incidents/one", data={"action": "acknowledge"})).status_code == 403
    assert (await operator.post("/api/incidents/one/actions", json={"action": "acknowledge"})).status_code == 403
    assert await actions(log) == []


async def test_the_api_accepts_acknowledgements_assignments_and_comments(operator: Browser, log: MemoryLog) -> None:
    operator.headers["X-CSRF-Token"] = operator.csrf
    response = await operator.post("/api/incidents/one/actions", json={"action": "comment", "comment": "a fox"})
    assert (response.status_code, response.json()["actions"][0]["comment"]) == (201, "a fox")
    assert (await operator.post("/api/incidents/one/actions", json={"action": "comment"})).status_code == 422
    assert [one.comment for one in await actions(log)] == ["a fox"]


async def test_an_incident_of_a_removed_camera_stays_with_its_site(
    operator: Browser, context: ConsoleContext
) -> None:
    context.feed.incidents.incident(incident("four", ("removed",)))
    context.feed.incidents.incident(incident("five", ("removed",), site="south", place="south/door"))
    assert (await operator.get("/api/incidents/four")).status_code == 200
    assert (await operator.get("/api/incidents/five")).status_code == 404


async def test_incidents_that_are_read_over_the_api_are_in_the_audit_trail(
    operator: Browser, context: ConsoleContext
) -> None:
    assert (await operator.get("/api/incidents?place=north/door")).status_code == 200
    assert (await operator.get("/api/incidents/one")).status_code == 200
    entries = [(entry.action, entry.subject) for entry in context.trail.page("otto")]
    assert {("incidents_viewed", "north/door"), ("incident_viewed", "one")} <= set(entries)
