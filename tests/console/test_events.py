"""Tests of the review of events: the pages, their pictures, and the HTTP API."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pytest

from console.access.roles import Role
from console.context import ConsoleContext
from console.evidence import EvidenceFiles
from console.live import happenings as happenings_module
from console.live.happenings import YIELD_EVENTS, EventFilter, Happenings
from ingest.contract.records import Alert, Delivery, Event, Evidence, Frame
from ingest.contract.topics import FRAMES
from ingest.kafka.log import TopicPartition
from ingest.kafka.memorylog import MemoryLog
from stream.evidence.folder import FolderStore
from tests.console.conftest import Browser
from tests.console.records import JPEG, alert, configure, event, frame, receipt, write

Open = Callable[..., Browser]
SCRIPT = "<script>alert(1)</script>"
SECRET = b"secret of another"


@pytest.fixture
def store(tmp_path: Path, context: ConsoleContext) -> FolderStore:
    """Return the evidence store of the console. A file beside it must never be served."""
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    found = FolderStore(tmp_path / "evidence")
    context.evidence = EvidenceFiles(found)
    return found


@pytest.fixture
async def page(browser: Open, context: ConsoleContext, log: MemoryLog) -> Callable[..., Any]:
    """Return a function that writes records, signs in, and loads a page."""
    await configure(log)

    async def load(path: str, *records: Event | Alert | Delivery | Frame, name: str = "ada") -> httpx.Response:
        await write(log, *records)
        await context.feed.catch_up(log)
        one = browser()
        await one.sign_in(name)
        return await one.get(path)

    return load


def stored(name: str, data: bytes = JPEG, media_type: str = "image/jpeg", sha256: str = "") -> Evidence:
    found = sha256 or hashlib.sha256(data).hexdigest()
    return Evidence(name=name, url=f"file:///{name}", sha256=found, media_type=media_type)


async def test_events_are_listed_with_pictures_and_the_state_of_their_delivery(page: Callable[..., Any]) -> None:
    raised = alert(event(2))
    records = (event(1), event(2), event(3, "yard"), event(4, None), raised, receipt(raised, "dead", 3))
    html = (await page("/events", *records)).text
    assert [html.index(f"summary {number}") for number in (4, 3, 2, 1)] == sorted(
        html.index(f"summary {number}") for number in (4, 3, 2, 1)
    )
    assert 'src="/events/event-3/picture"' in html
    assert "alert not delivered" in html


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("camera=gate", [2, 1]),
        ("site=south", [4, 3]),
        ("place=north/door", [2]),
        ("rule=across", [3]),
        ("label=person", [4, 2, 1]),
        ("severity=critical", [2]),
        ("camera=gate&severity=warning", [1]),
        ("since=2023-11-14T22:13:22", [4, 3, 2]),
        ("until=2023-11-14T22:13:22Z", [1]),
        ("until=2023-11-14T22:13:22.400Z", [2, 1]),
        ("camera=none", []),
    ],
)
async def test_filters_select_events(page: Callable[..., Any], query: str, expected: list[int]) -> None:
    records = (
        event(1),
        event(2, severity="critical", place="door"),
        event(3, "yard", rule="across", label="car"),
        event(4, None),
    )
    response = await page(f"/api/events?{query}", *records)
    assert [item["event"]["id"] for item in response.json()["items"]] == [f"event-{number}" for number in expected]
    html = (await page(f"/events?{query}")).text
    assert [number for number in (4, 3, 2, 1) if f"summary {number}" in html] == expected


async def test_pages_of_the_list_have_each_event_once_even_with_equal_times(page: Callable[..., Any]) -> None:
    records = [event(number, captured_ns=1_700_000_001_000_000_000) for number in range(25)]
    found, before = [], ""
    while True:
        body = (await page(f"/api/events?limit=10&before={before}", *records)).json()
        records = []
        found += [item["event"]["id"] for item in body["items"]]
        before = body["before"]
        if not before:
            break
    assert sorted(found) == sorted(f"event-{number}" for number in range(25))


@pytest.mark.parametrize("query", ["since=yesterday", "until=9999999", "before=x-1", "limit=0", "limit=x", "since=-"])
async def test_wrong_parameters_are_refused_with_a_reason(page: Callable[..., Any], query: str) -> None:
    response = await page(f"/api/events?{query}")
    assert response.status_code == 422
    assert "expected" in response.json()["detail"] or "Input should be" in response.json()["detail"]


async def test_users_see_only_events_and_alerts_of_sites_and_cameras_that_they_may_see(
    page: Callable[..., Any],
) -> None:
    records = (
        event(1),
        event(2, "yard"),
        event(3, None),
        *(alert(event(n, c)) for n, c in ((1, "gate"), (2, "yard"))),
    )
    for name, seen, hidden in (("vera", ["event-1"], ["event-2", "event-3"]), ("otto", ["event-1"], ["event-2"])):
        items = (await page("/api/events", *records, name=name)).json()["items"]
        assert [item["event"]["id"] for item in items] == seen
        alerts = (await page("/api/alerts", name=name)).json()
        assert [item["alert"]["data"]["event"] for item in alerts] == ["event-1"]
        for number in hidden:
            for path in (f"/events/{number}", f"/events/{number}/picture", f"/api/events/{number}"):
                assert (await page(path, name=name)).status_code == 404, path
        assert (await page("/api/alerts/msg_event-2", name=name)).status_code == 404
        assert "summary 2" not in (await page("/events", name=name)).text
        assert [c["name"] for c in (await page("/api/cameras", name=name)).json()] == ["gate"]


async def test_a_skipped_alert_is_neither_delivered_nor_an_error(page: Callable[..., Any]) -> None:
    raised, other = alert(event(1)), alert(event(2))
    skipped = receipt(raised, "skipped"), receipt(other, "skipped")
    html = (
        await page("/events", event(1), event(2), raised, other, *skipped, receipt(other, "delivered", 2, "ops"))
    ).text
    assert (html.count("alert skipped"), html.count("alert delivered")) == (1, 1)
    response = await page("/events/event-1")
    assert (response.status_code, ">skipped</span>" in response.text) == (200, True)


async def test_the_page_of_an_event_has_its_evidence_and_receipts(
    page: Callable[..., Any], store: FolderStore
) -> None:
    drawn, plain = b"annotated", b"original"
    files = [
        store.put("gate/2023-11-14/event-1-original.jpg", plain, "image/jpeg"),
        store.put("gate/2023-11-14/event-1-annotated.jpg", drawn, "image/jpeg"),
    ]
    raised = alert(event(1), *files)
    records = (event(1), raised, receipt(raised, "retrying", 1, "pager"), receipt(raised, "delivered", 2, "pager"))
    html = (await page("/events/event-1", *records, receipt(raised, "dead", 1, "desk"))).text
    for text in (files[0].sha256, "pager", "delivered", "desk", "server error", "gate/1/1"):
        assert text in html
    assert "retrying" not in html.partition("Alerts and receipts")[2]
    picture = await page("/events/event-1/picture")
    assert (picture.content, picture.headers["content-type"]) == (drawn, "image/jpeg")
    assert (await page("/api/events/event-1/evidence/0")).content == plain
    assert (await page("/events/event-1/evidence/2")).status_code == 404
    item = (await page("/api/events/event-1")).json()
    assert item["files"] == 2
    assert {(r["receiver"], r["state"]) for r in item["receipts"]} == {("pager", "delivered"), ("desk", "dead")}


async def test_an_event_whose_evidence_has_expired_shows_its_frame_from_the_log(
    page: Callable[..., Any], store: FolderStore, log: MemoryLog
) -> None:
    await write(log, frame("gate", 0), frame("gate", 1))
    response = await page("/events/event-1/picture", event(1), alert(event(1), stored("gate/expired.jpg")))
    assert (response.status_code, response.content) == (200, JPEG)


async def test_an_event_without_evidence_shows_its_frame_from_the_log(
    page: Callable[..., Any], log: MemoryLog
) -> None:
    for seq in range(3):
        await write(log, frame("gate", seq))
    records = (event(1), event(2, seq=1), event(9), event(5, None))
    response = await page("/events/event-1/picture", *records)
    assert (response.status_code, response.content, response.headers["content-type"]) == (200, JPEG, "image/jpeg")
    assert "data-overlay" in (await page("/events/event-1")).text
    assert (await page("/events/event-2/picture")).status_code == 404  # the record at this offset is another frame
    assert (await page("/events/event-9/picture")).status_code == 404
    assert (await page("/events/event-5/picture")).status_code == 404
    log.forget(TopicPartition(FRAMES, 0), 2)
    assert (await page("/events/event-1/picture")).status_code == 404


@pytest.mark.parametrize(
    "evidence",
    [
        stored("../secret.jpg", SECRET),
        stored("gate/../../secret.jpg", SECRET),
        stored("gate/%2e%2e/%2e%2e/secret.jpg", SECRET),
        stored("/etc/passwd"),
        stored("yard/2023-11-14/other.jpg", SECRET),
        stored("gate/link.jpg", SECRET),
        stored("gate/page.html", media_type="text/html"),
        stored("gate/page.svg", media_type="image/svg+xml"),
        stored("gate/real.jpg", sha256="0" * 64),
        stored("gate/none.jpg"),
        stored("gate/nul\0.jpg"),
        stored("gate/" + "a" * 5000),
        stored(""),
    ],
    ids=lambda evidence: evidence.name[:30],
)
async def test_an_evidence_reference_with_a_hostile_file_name_media_type_or_hash_is_not_served(
    page: Callable[..., Any], store: FolderStore, tmp_path: Path, evidence: Evidence
) -> None:
    for name in ("gate/real.jpg", "gate/page.html", "gate/page.svg"):
        store.put(name, JPEG, "image/jpeg")
    store.put("yard/2023-11-14/other.jpg", SECRET, "image/jpeg")
    (tmp_path / "evidence" / "gate" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    await page("/events", event(1), alert(event(1), evidence))
    for path in ("/events/event-1/evidence/0", "/api/events/event-1/evidence/0", "/events/event-1/picture"):
        response = await page(path, name="vera")
        assert response.status_code == 404, path
        assert SECRET not in response.content


async def test_texts_from_the_log_are_escaped_on_all_pages(page: Callable[..., Any]) -> None:
    hostile = event(1, summary=SCRIPT, label=SCRIPT, site=SCRIPT, track=SCRIPT, details={SCRIPT: SCRIPT})
    raised = alert(hostile, stored(f"gate/{SCRIPT}.jpg"))
    failed = receipt(raised, "dead").model_copy(update={"reason": SCRIPT})
    for path in ("/events", "/events/event-1", f"/events?label={SCRIPT}&camera={SCRIPT}", f"/events?since={SCRIPT}"):
        html = (await page(path, hostile, raised, failed)).text
        assert SCRIPT not in html, path
        assert escape(SCRIPT) in html, path
    assert (await page("/api/events")).headers["content-type"] == "application/json"


async def test_the_audit_trail_records_viewed_events_and_a_picture_viewed_twice_only_once(
    page: Callable[..., Any], context: ConsoleContext, log: MemoryLog
) -> None:
    await write(log, frame("gate", 0), frame("gate", 1))
    for path in ("/events?camera=gate", "/events/event-1", "/events/event-1/picture", "/events/event-1/picture"):
        assert (await page(path, event(1), name="vera")).status_code == 200
    entries = [(entry.user, entry.action, entry.subject) for entry in context.trail.page("vera")]
    assert entries.count(("vera", "picture_viewed", "event-1")) == 1
    assert ("vera", "event_viewed", "event-1") in entries
    assert ("vera", "events_viewed", "camera=gate") in entries


async def test_the_api_needs_a_token_or_session_and_describes_itself(browser: Open, context: ConsoleContext) -> None:
    program = browser()
    for path in ("/api/events", "/api/cameras", "/api/alerts", "/api/stream", "/api/openapi.json"):
        response = await program.get(path)
        assert (response.status_code, list(response.json())) == (401, ["detail"]), path
    vera = context.users.named("vera")
    assert vera
    identity = context.sessions.identity(context.sessions.open(vera.id, "", ""))
    assert identity
    program.headers["Authorization"] = f"Bearer {context.tokens.add(identity, 'test', Role.VIEWER, 1)}"
    described = (await program.get("/api/openapi.json")).json()
    assert {"/api/events", "/api/alerts/{number}", "/api/stream"} <= described["paths"].keys()
    assert not [path for path in described["paths"] if not path.startswith("/api/")]
    assert (await program.get("/api/nowhere")).json() == {"detail": "this page does not exist"}
    assert (await program.get("/api/events/none")).status_code == 404
    assert (await program.post("/api/events")).status_code == 405


async def test_events_in_memory_are_the_newest_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happenings_module, "MAX_EVENTS", 100)
    happenings = Happenings()
    for number in range(50):
        happenings.add_event(event(number))
        happenings.add_event(event(number))
    assert happenings.counted == 50
    for number in range(50, 300):
        happenings.add_event(event(0).model_copy(update={"id": f"more-{number}"}))
        happenings.add_alert(alert(event(0)).model_copy(update={"id": f"alert-{number}"}))
        happenings.add_receipt(receipt(alert(event(0)), "dead").model_copy(update={"alert": f"alert-{number}"}))
    newest = await happenings.newest(EventFilter(), lambda _: True, 1000)
    assert len(newest) == 100
    assert newest[0].event.id == "event-49"
    assert len(list(happenings.alerts())) == 100
    assert len(happenings._receipts.items) == 100
    assert sum(map(len, happenings._alerts_of.values())) == 100


async def test_old_alerts_and_receipts_that_are_read_again_neither_replace_newer_ones_nor_count_as_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(happenings_module, "MAX_EVENTS", 3)
    happenings = Happenings()
    events = [event(number) for number in range(6)]
    raised = [alert(one) for one in events]
    receipts = [receipt(one, "delivered", number + 1) for number, one in enumerate(raised)]
    for _ in range(2):  # newest partition first, and once more after an outage
        for number in (3, 4, 5, 0, 1, 2):
            happenings.add_event(events[number])
            happenings.add_alert(raised[number])
            happenings.add_receipt(receipts[number])
    assert [one.id for one in happenings.alerts()] == [raised[number].id for number in (5, 4, 3)]
    items = await happenings.newest(EventFilter(), lambda _: True, 10)
    assert [(len(item.alerts), len(item.receipts)) for item in items] == [(1, 1)] * 3
    assert happenings.counted == 9


async def test_the_list_of_events_accepts_timestamps_in_the_years_1_and_9999(page: Callable[..., Any]) -> None:
    last = event(1, None).model_copy(update={"time": "9999-12-31T23:59:59.999999999Z"})
    first = event(2, None).model_copy(update={"time": "0001-01-01T00:00:00Z"})
    html = (await page("/events", last, first)).text
    assert html.index("summary 1") < html.index("summary 2")


async def test_other_tasks_run_while_a_sketched_path_is_compared_with_many_trails() -> None:
    happenings, turns = Happenings(), 0
    for number in range(3 * YIELD_EVENTS):
        happenings.add_event(event(number))

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    wanted = EventFilter(path=((0.0, 0.0), (1.0, 1.0)), near=1.0)
    await happenings.newest(wanted, lambda _: True, 48)
    counting.cancel()
    assert turns == 3
