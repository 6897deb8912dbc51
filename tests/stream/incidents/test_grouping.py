"""Tests of the grouping of events into incidents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract.records import Event, EventData, Incident
from ingest.contract.records.event import MAX_GAP_S, SEVERITIES
from stream.incidents.grouping import MAX_LENGTH_S, IncidentGrouper

SECOND = 1_000_000_000
BEGIN_NS = 1_800_000_000 * SECOND
GAP_S = 60.0
LATE_S = 20
"""Latest arrival of an event after its capture, in seconds."""


def event(
    name: str, at_s: float, *, subject: str = "gate-1", kind: str = "sightline.intrusion", **data: object
) -> Event:
    return Event(
        id=name,
        source=f"/north/{subject}",
        type=kind,
        subject=subject,
        time="2026-01-02T03:04:05.678Z",
        data=EventData.model_validate(
            {
                "incident": f"track-{name}",
                "rule": "fence",
                "camera": subject,
                "site": "north",
                "place": "gate",
                "summary": f"summary of {name}",
                "captured_ns": BEGIN_NS + round(at_s * SECOND),
                "incident_gap_s": GAP_S,
            }
            | data
        ),
    )


class Arrival(NamedTuple):
    """An event and the time of its arrival at the broker, in seconds."""

    event: Event
    at_s: float

    @property
    def appended_ns(self) -> int:
        return BEGIN_NS + round(self.at_s * SECOND)


def on_time(*events: Event) -> list[Arrival]:
    return [Arrival(one, (one.data.captured_ns - BEGIN_NS) / SECOND) for one in events]


def grouped(arrivals: Sequence[Arrival], grouper: IncidentGrouper | None = None) -> list[Incident]:
    grouper = grouper or IncidentGrouper()
    return [record for one in arrivals for record in grouper.add(one.event, one.appended_ns, one.at_s)]


def changes(records: Sequence[Incident]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(one.change, one.events, one.reasons) for one in records]


def incidents_of(arrivals: Sequence[Arrival]) -> dict[str, str]:
    """Return the incident of each event."""
    return {one.event: one.id for one in grouped(arrivals) if not one.ended}


def test_events_of_two_cameras_of_a_place_within_the_gap_are_one_incident() -> None:
    records = grouped(
        on_time(event("a", 0), event("b", 50), event("c", 100, subject="gate-2"), event("d", 200, subject="gate-2"))
    )
    assert changes(records) == [
        ("begin", 1, ()),
        ("update", 2, ()),
        ("update", 3, ("camera",)),
        ("end", 3, ()),
        ("begin", 1, ()),
    ]
    assert records[0].id == records[3].id != records[4].id
    assert (records[3].place, records[3].cameras, records[3].begin_ns) == (
        "north/gate",
        ("gate-1", "gate-2"),
        BEGIN_NS,
    )


def test_events_of_different_types_places_and_lanes_are_different_incidents() -> None:
    arrivals = on_time(
        event("a", 0),
        event("b", 1, kind="sightline.loitering"),
        event("c", 2, place="yard"),
        event("d", 3, place=None),
        event("e", 4, site="south"),
        event("f", 5, lane="late", late=True),
    )
    assert len(set(incidents_of(arrivals).values())) == 6


def test_a_camera_without_a_place_groups_its_own_events() -> None:
    (first, second) = grouped(on_time(event("a", 0, place=None), event("b", 1, place=None)))
    assert (first.id, first.place) == (second.id, "gate-1")


def test_the_severity_of_an_incident_is_the_highest_of_its_events() -> None:
    severities = ("info", "warning", "info", "critical", "critical")
    records = grouped(on_time(*(event(str(n), n, severity=one) for n, one in enumerate(severities))))
    assert [one.severity for one in records] == ["info", "warning", "warning", "critical", "critical"]
    assert [one.reasons for one in records] == [(), ("severity",), (), ("severity",), ()]
    assert [one.summary[-1] for one in records] == ["0", "1", "1", "3", "3"]


def test_an_incident_is_updated_with_a_reason_at_each_power_of_ten_events() -> None:
    records = grouped(on_time(*(event(str(n), n) for n in range(1000))))
    assert [one.events for one in records if one.reasons == ("events",)] == [10, 100, 1000]


def test_an_event_that_is_written_twice_counts_once() -> None:
    assert [one.events for one in grouped(on_time(event("a", 0), event("a", 0), event("b", 1), event("a", 0)))] == [
        1,
        2,
    ]


def test_a_place_whose_events_never_cease_has_a_new_incident_each_day() -> None:
    arrivals = on_time(*(event(str(n), n * GAP_S) for n in range(round(2 * MAX_LENGTH_S / GAP_S))))
    assert [(one.change, one.events) for one in grouped(arrivals) if one.change != "update"] == [
        ("begin", 1),
        ("end", MAX_LENGTH_S / GAP_S + 1),
        ("begin", 1),
    ]


def test_an_incident_ends_after_its_longest_pause_and_a_late_event_opens_it_again() -> None:
    grouper = IncidentGrouper()
    (first,) = grouped(on_time(event("a", 0)), grouper)
    assert grouper.deadline_s == GAP_S
    assert grouper.ends_due(GAP_S - 0.1) == []
    assert changes(grouper.ends_due(GAP_S)) == [("end", 1, ())]
    assert grouper.deadline_s is None
    (again,) = grouped([Arrival(event("b", 55), 65)], grouper)
    assert (again.id, again.change, again.reasons) == (first.id, "update", ("reopened",))
    assert changes(grouper.ends_due(1000)) == [("end", 2, ())]


def test_an_open_incident_ends_when_a_much_later_event_of_another_place_arrives() -> None:
    records = grouped(on_time(event("a", 0), event("b", GAP_S + 1, place="yard")))
    assert [(one.place, one.change) for one in records] == [
        ("north/gate", "begin"),
        ("north/yard", "begin"),
        ("north/gate", "end"),
    ]


def test_a_camera_whose_clock_is_fast_does_not_keep_an_incident_open() -> None:
    fast = event("fast", 3000)
    assert len(set(incidents_of([Arrival(fast, 0), *on_time(event("b", 100))]).values())) == 2


def test_a_camera_whose_clock_is_slow_joins_the_present_incident() -> None:
    arrivals = [Arrival(event(str(n), n - 3000 * (n % 2), subject=f"gate-{n % 2}"), n) for n in range(10)]
    assert len(set(incidents_of(arrivals).values())) == 1


def test_the_number_of_remembered_events_and_incidents_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.incidents.grouping.KNOWN_EVENTS", 20)
    grouper = IncidentGrouper()
    for number in range(100):
        one = event(str(number), number * 100, place=f"place-{number}", incident_gap_s=1.0)
        grouper.add(one, BEGIN_NS + number * 100 * SECOND, number * 100)
    assert grouper.incident_of("79") is None
    assert grouper.incident_of("80") is not None
    assert len(grouper._latest) == MAX_GAP_S / 100 + 1
    assert len(grouper._end_s) == 1


@st.composite
def clusters(draw: st.DrawFn) -> list[list[Event]]:
    """Return clusters of events.

    Within a cluster, events follow each other within ``GAP_S - LATE_S``. Clusters are more than ``GAP_S`` apart.
    """
    found, at_s, number = [], 0, 0
    for size in draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)):
        own = []
        for _ in range(size):
            own.append(event(str(number), at_s, subject=draw(st.sampled_from(["gate-1", "gate-2"]))))
            at_s, number = at_s + draw(st.integers(0, round(GAP_S) - LATE_S)), number + 1
        found.append(own)
        at_s = (own[-1].data.captured_ns - BEGIN_NS) // SECOND + round(GAP_S) + draw(st.integers(1, 100))
    return found


@given(clusters(), st.data())
def test_events_in_any_order_within_the_lateness_form_the_same_groups(
    found: list[list[Event]], data: st.DataObject
) -> None:
    arrivals = [
        Arrival(one.event, one.at_s + data.draw(st.integers(0, LATE_S))) for own in found for one in on_time(*own)
    ]
    arrivals.sort(key=lambda one: one.at_s)
    incidents = incidents_of(arrivals)
    assert len({incidents[one.id] for own in found for one in own}) == len(found)
    for own in found:
        assert len({incidents[one.id] for one in own}) == 1


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival]:
    """Return events of several places, types and lanes, some of them twice, with various gaps and delays."""
    events, at_s = [], 0.0
    for number in range(draw(st.integers(1, 25))):
        at_s += draw(st.sampled_from([0, 1, 20, 59, 61, 300, 3700]))
        captured_s = at_s - draw(st.sampled_from([-5, 0, 1, 30, 200]))
        fields = {
            "place": draw(st.sampled_from(["gate", "yard", None])),
            "severity": draw(st.sampled_from(SEVERITIES)),
            "incident_gap_s": draw(st.sampled_from([0.0, 10.0, 60.0, MAX_GAP_S])),
            "lane": draw(st.sampled_from(["live", "late"])),
        }
        one = event(str(number), captured_s, subject=draw(st.sampled_from(["gate-1", "gate-2"])), **fields)
        events.append(Arrival(one, at_s))
        if draw(st.booleans()):
            events.append(Arrival(draw(st.sampled_from(events)).event, at_s))
    return events


@settings(max_examples=60)
@given(histories(), st.data())
def test_a_restart_at_any_record_makes_the_same_incidents(history: list[Arrival], data: st.DataObject) -> None:
    """A worker is killed after any number of its records, and a new owner reads some events again."""
    undisturbed = grouped(history)
    written: list[Incident] = []
    grouper, position, budget = IncidentGrouper(), 0, data.draw(st.integers(0, len(undisturbed)))
    for number, one in enumerate(history):
        records = grouper.add(one.event, one.appended_ns, one.at_s)
        written += records[: budget - len(written)]
        if len(written) == budget and records:
            position = data.draw(st.integers(max(0, number - 3), number))
            break
    else:
        position = len(history)
    again = IncidentGrouper()
    since_ns = (history[position - 1].appended_ns if position else 0) - round(MAX_GAP_S * SECOND)
    again.restore([one for one in written if one.appended_ns >= since_ns], 0.0)
    written += grouped(history[position:], again)
    assert {one.event: (one.id, one.version) for one in written if not one.ended} == {
        one.event: (one.id, one.version) for one in undisturbed if not one.ended
    }
    still_open = {(one.id, one.version) for one in [*grouper.ends_due(1e9), *again.ends_due(1e9)]}
    ended = {(one.id, one.version) for one in undisturbed if one.ended}
    assert ended <= {(one.id, one.version) for one in written} | still_open
