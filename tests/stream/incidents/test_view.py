"""Tests of the view of incidents, and of its reader on an in-memory log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Incident, IncidentAction
from ingest.contract.topics import INCIDENT_ACTIONS, INCIDENTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from stream.exceptions import IncidentNotFound
from stream.incidents.reader import IncidentReader, make_action, write_action
from stream.incidents.view import MAX_ACTIONS, MAX_HISTORY, IncidentView

SECOND = 1_000_000_000


def incident(name: str = "a", events: int = 1, **fields: object) -> Incident:
    return Incident.model_validate(
        {
            "id": name,
            "change": "begin" if events == 1 else "update",
            "type": "sightline.intrusion",
            "place": "north/gate",
            "severity": "warning",
            "summary": "a person entered",
            "cameras": ("gate-1",),
            "rules": ("fence",),
            "events": events,
            "begin_ns": SECOND,
            "last_ns": events * SECOND,
            "gap_s": 60.0,
            "event": f"event-{events}",
            "appended_ns": events * SECOND,
        }
        | fields
    )


RECORDS = (
    incident(),
    incident(events=2, reasons=("camera",), cameras=("gate-1", "gate-2")),
    incident(events=3),
    incident(events=3, change="end"),
    incident(events=4, reasons=("reopened",)),
)
ACTIONS = (
    make_action("a", "acknowledge", "ann", 5 * SECOND, comment="on my way"),
    make_action("a", "assign", "ann", 6 * SECOND, assignee="bob"),
    make_action("a", "comment", "bob", 7 * SECOND, comment="a fox"),
)


def view_of(records: Sequence[Incident | IncidentAction]) -> IncidentView:
    view = IncidentView()
    for record in records:
        if isinstance(record, Incident):
            view.incident(record)
        else:
            view.action(record)
    return view


@given(order=st.permutations([*RECORDS, *ACTIONS, ACTIONS[0]]))
def test_the_latest_state_of_an_incident_is_the_same_in_any_order_of_the_records(
    order: Sequence[Incident | IncidentAction],
) -> None:
    state = view_of(order).find("a")
    assert state.incident == RECORDS[-1]
    assert list(state.actions) == list(ACTIONS)
    assert state.assignee == "bob"
    assert state.acknowledgement == ACTIONS[0]


def test_the_history_of_an_incident_has_only_changes_with_a_reason() -> None:
    details = view_of([*RECORDS, *ACTIONS]).find("a").details()
    assert [(one["change"], one["reasons"]) for one in details["history"]] == [
        ("begin", []),
        ("update", ["camera"]),
        ("end", []),
        ("update", ["reopened"]),
    ]
    assert [one["action"] for one in details["actions"]] == ["acknowledge", "assign", "comment"]
    assert (details["state"], details["events"], details["acknowledged_by"]) == ("open", 4, "ann")


def test_an_incident_is_found_by_the_beginning_of_its_id() -> None:
    view = view_of([incident("abc"), incident("abd"), incident("b")])
    assert view.find("abc").incident.id == "abc"
    assert view.find("b").incident.id == "b"
    with pytest.raises(IncidentNotFound, match="2 incidents have ids that begin with ab"):
        view.find("ab")
    for unknown in ("x", ""):
        with pytest.raises(IncidentNotFound, match="no incident has the id"):
            view.find(unknown)


def test_incidents_are_selected_by_state_place_severity_and_time() -> None:
    view = view_of(
        [
            incident("info", severity="info"),
            incident("ended", 2, change="end", last_ns=9 * SECOND),
            incident("yard", severity="critical", place="yard", cameras=("yard",), appended_ns=3 * SECOND),
            make_action("yard", "acknowledge", "ann", 1),
        ]
    )

    def ids(**conditions: object) -> list[str]:
        return [one.incident.id for one in view.select(**conditions)]  # type: ignore[arg-type]

    assert ids() == ["yard", "ended", "info"]
    assert ids(open_only=True) == ["yard", "info"]
    assert ids(unacknowledged=True) == ["ended", "info"]
    assert ids(places=["north/gate"]) == ["ended", "info"]
    assert ids(places=["yard"]) == ids(severity="critical") == ["yard"]
    assert ids(since_ns=9 * SECOND) == ["ended"]


def test_a_view_keeps_a_limited_number_of_incidents_changes_and_actions() -> None:
    view = IncidentView(limit=3)
    for number in range(10):
        view.incident(incident(f"i{number}"))
        view.action(make_action(f"unknown{number}", "acknowledge", "ann", number))
    assert [one.incident.id for one in view.select()] == ["i9", "i8", "i7"]
    for number in range(2, 3 * MAX_ACTIONS):
        view.incident(incident("i9", number, reasons=("events",)))
        view.action(make_action("i9", "comment", "ann", number, comment="again"))
    state = view.find("i9")
    assert (len(state.history), len(state.actions)) == (MAX_HISTORY, MAX_ACTIONS)
    assert state.actions[-1].at_ns == 3 * MAX_ACTIONS - 1
    view.incident(incident("unknown9"))
    view.incident(incident("unknown0"))
    assert view.find("unknown9").acknowledgement
    assert view.find("unknown0").acknowledgement is None


@settings(max_examples=20)
@given(order=st.permutations(range(8)))
def test_a_full_view_keeps_the_most_recently_updated_incidents_for_any_reading_order(order: Sequence[int]) -> None:
    view = IncidentView(limit=3)
    for number in order:
        view.incident(incident(f"i{number}", appended_ns=number * SECOND))
    view.incident(incident("i5", 2, appended_ns=20 * SECOND))
    assert [one.incident.id for one in view.select()] == ["i5", "i7", "i6"]
    assert len(view) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "assign"},
        {"action": "acknowledge", "assignee": "bob"},
        {"action": "comment", "comment": " "},
        {"action": "close"},
        {"action": "acknowledge", "by": ""},
    ],
)
def test_an_incomplete_action_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        IncidentAction.model_validate({"id": "x", "incident": "a", "by": "ann", "at_ns": 1} | fields)


async def put(log: MemoryLog, record: Incident, partition: int = 0) -> None:
    await log.produce(Outgoing(INCIDENTS, partition, encode_json(record), key=record.id.encode()))


async def test_a_reader_follows_incidents_and_actions_and_skips_unreadable_records() -> None:
    log, view = MemoryLog(partitions=2), IncidentView()
    reader = IncidentReader(log, view)
    await put(log, RECORDS[0])
    await log.produce(Outgoing(INCIDENTS, 0, b"{}"))
    await log.produce(Outgoing(INCIDENT_ACTIONS, 1, b"\xff"))
    await reader.catch_up()
    assert (view.find("a").incident, view.unreadable) == (RECORDS[0], 2)
    await put(log, RECORDS[1])
    await put(log, incident("b"), 1)
    await write_action(log, ACTIONS[0])
    await write_action(log, ACTIONS[0])
    await reader.catch_up()
    assert view.find("a").incident == RECORDS[1]
    assert list(view.find("a").actions) == [ACTIONS[0]]
    assert (len(view), view.unreadable) == (2, 2)


async def test_a_reader_begins_again_after_a_topic_was_created_again() -> None:
    log, view = MemoryLog(partitions=1), IncidentView()
    reader = IncidentReader(log, view)
    for name in ("a", "b"):
        await put(log, incident(name))
    await reader.catch_up()
    log.create_again(TopicPartition(INCIDENTS, 0))
    await put(log, incident("c"))
    await reader.catch_up()
    assert view.find("c")


async def test_all_actions_on_one_incident_are_in_one_partition() -> None:
    log = MemoryLog(partitions=8)
    for action in ACTIONS:
        await write_action(log, action)
    written = {p: end for p, end in (await log.ends(INCIDENT_ACTIONS)).items() if end}
    assert list(written.values()) == [3]
    (partition,) = written
    read = [decode_json(IncidentAction, one.value) async for one in log.read(INCIDENT_ACTIONS, partition, 0, 3)]
    assert read == list(ACTIONS)
