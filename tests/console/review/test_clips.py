"""Tests of clips on the page of an event: files and parts of files for the player, and reasons for a missing clip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from console.context import ConsoleContext
from console.evidence import CLIPS_S, EvidenceFiles
from console.live.happenings import EventEvidence, ReviewItem
from console.review.clip import WAIT_S, clip_of
from console.review.ranges import byte_range
from ingest.contract.records import Clip, ClipGap, ClipRequest, Evidence, EvidenceRecord, Heartbeat
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.evidence.clip.window import SETTLE_S
from stream.evidence.encrypted import EncryptedStore, KeyRing
from stream.evidence.retention import evidence_outgoing
from stream.evidence.store import MemoryStore
from tests.console.conftest import Browser
from tests.console.records import CAPTURED_NS, alert, configure, event, write

Open = Callable[..., Browser]
MOVIE = bytes(range(256)) * 40
NAME = "gate/2023-11-14/221321.000Z-event-1-clip.mp4"
REQUEST = ClipRequest(before_s=2.0, after_s=3.0)
FACTS = Clip(
    from_ns=CAPTURED_NS,
    to_ns=CAPTURED_NS + 5_000_000_000,
    first_ns=CAPTURED_NS,
    last_ns=CAPTURED_NS + 3_000_000_000,
    frames=31,
    gaps=(ClipGap(from_ns=CAPTURED_NS + 3_000_000_000, to_ns=CAPTURED_NS + 5_000_000_000, reason="9 still"),),
)


def reference(name: str = NAME, data: bytes = MOVIE) -> Evidence:
    sha256 = hashlib.sha256(data).hexdigest()
    return Evidence(name=name, url=f"file:///{name}", sha256=sha256, media_type="video/mp4", size=len(data))


def record(*files: Evidence, clip: Clip | None = FACTS) -> EvidenceRecord:
    return EvidenceRecord(
        state="stored", subject="gate", event="event-1", captured_ns=CAPTURED_NS, at_ns=1, files=files, clip=clip
    )


def tombstone(*names: str) -> EvidenceRecord:
    return EvidenceRecord(
        state="deleted",
        subject="gate",
        event="event-1",
        captured_ns=CAPTURED_NS,
        at_ns=2,
        deleted=names,
        reason="older than 30 days",
        by="ops",
    )


@pytest.fixture
def files() -> MemoryStore:
    """Return the store below the encryption."""
    return MemoryStore()


@pytest.fixture
async def page(
    browser: Open, context: ConsoleContext, log: MemoryLog, clock: ManualClock, files: MemoryStore
) -> Callable[..., Any]:
    """Return a function that writes records of evidence, signs in and loads a page.

    The store is encrypted and has the clip of event-1, whose rule requests a clip.
    """
    store = EncryptedStore(files, KeyRing("k", {"k": b"x" * 32}))
    store.put(NAME, MOVIE, "video/mp4")
    context.evidence = EvidenceFiles(store, clock)
    await configure(log)
    one = event(1, clip=REQUEST)
    await write(log, one, alert(one))

    async def load(path: str, *records: EvidenceRecord, name: str = "ada", **headers: str) -> Any:
        for each in records:
            await log.produce(evidence_outgoing(each))
        await context.feed.catch_up(log)
        person = browser()
        await person.sign_in(name)
        return await person.get(path, headers=headers)

    return load


async def test_the_page_of_an_event_plays_its_clip_and_lists_its_gaps_and_hash(page: Callable[..., Any]) -> None:
    response = await page("/events/event-1", record(reference()))
    assert 'src="/events/event-1/evidence/0"' in response.text
    for text in (reference().sha256, "31 frames", "9 still", "2.0 s"):
        assert text in response.text, text
    item = (await page("/api/events/event-1")).json()
    assert (item["files"], item["evidence"][0]["sha256"]) == (1, reference().sha256)


async def test_a_player_gets_the_parts_of_an_encrypted_clip(page: Callable[..., Any], files: MemoryStore) -> None:
    path, tag = "/events/event-1/evidence/0", f'"{reference().sha256}"'
    whole = await page(path, record(reference()))
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, MOVIE, "bytes")
    size = len(MOVIE)
    for header, start, stop in (
        ("bytes=100-199", 100, 200),
        ("bytes=9000-", 9000, size),
        ("bytes=-5", size - 5, size),
    ):
        part = await page(path, range=header)
        assert (part.status_code, part.content) == (206, MOVIE[start:stop]), header
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    assert (await page(path, range="bytes=5-9", **{"if-range": tag})).status_code == 206
    assert (await page(path, range="bytes=5-9", **{"if-range": '"other"'})).content == MOVIE
    beyond = await page(path, range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"], beyond.content) == (416, f"bytes */{size}", b"")
    assert MOVIE not in b"".join(data for data, _ in files._files.values())


@pytest.mark.parametrize("header", ["", "bytes=", "bytes=-", "bytes=a-b", "bytes=9-5", "bytes=0-1,5-6", "rows=0-1"])
def test_a_range_that_cannot_be_read_selects_the_whole_file(header: str) -> None:
    assert byte_range(header, 100) is None


def test_a_range_of_more_last_bytes_than_the_file_has_selects_the_whole_file() -> None:
    assert byte_range("bytes=-500", 100) == (0, 100)
    empty = byte_range("bytes=-0", 100)
    assert empty
    assert not empty.satisfiable


async def test_a_clip_is_hidden_from_users_of_another_site(page: Callable[..., Any], context: ConsoleContext) -> None:
    assert (await page("/events/event-1/evidence/0", record(reference()), name="otto")).status_code == 200
    other = event(2, "yard", clip=REQUEST)
    context.feed.happenings.add_event(other)
    context.feed.happenings.add_alert(alert(other, reference("yard/2023-11-14/221322.000Z-event-2-clip.mp4")))
    for path in ("/events/event-2", "/events/event-2/evidence/0", "/api/events/event-2/evidence/0"):
        assert (await page(path, name="otto")).status_code == 404, path


async def test_a_clip_whose_cache_entry_expires_during_a_request_is_still_served(
    page: Callable[..., Any], context: ConsoleContext, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/api/events/event-1/evidence/0"
    assert (await page(path, record(reference()))).content == MOVIE
    times = iter((clock.monotonic() + CLIPS_S - 0.1, clock.monotonic() + CLIPS_S + 0.1))
    slow = ManualClock()
    monkeypatch.setattr(slow, "monotonic", lambda: next(times))
    monkeypatch.setattr(context.evidence, "_clock", slow)
    assert (await page(path)).content == MOVIE


async def test_a_deleted_or_changed_clip_is_not_served_and_the_page_says_why(
    page: Callable[..., Any], files: MemoryStore, clock: ManualClock
) -> None:
    path = "/api/events/event-1/evidence/0"
    assert (await page(path, record(reference()))).content == MOVIE
    data, at_ns = files._files[NAME]
    files._files[NAME] = data[:-1] + bytes([data[-1] ^ 1]), at_ns
    clock.advance(CLIPS_S)
    changed = await page(path)
    assert (changed.status_code, "not in the store" in changed.text) == (404, False)
    files._files[NAME] = data, at_ns
    assert (await page(path)).content == MOVIE
    gone = await page(path, tombstone(NAME))  # although the clip is still in memory
    assert (gone.status_code, "older than 30 days, by ops" in gone.text) == (404, True)
    html = (await page("/events/event-1")).text
    assert "No clip: it was deleted: older than 30 days, by ops." in html
    assert "<video" not in html
    restored = await page("/events/event-1", record(reference()))
    assert "<video" in restored.text


async def test_an_event_page_reloads_every_5_s_while_the_clip_may_still_come(
    page: Callable[..., Any], context: ConsoleContext, log: MemoryLog, clock: ManualClock
) -> None:
    await write(log, Heartbeat(service="evidence", instance="e1", at_ns=1))
    html = (await page("/events/event-1")).text
    assert 'hx-trigger="every 5s"' in html
    assert "hx-trigger" not in (await page("/events/event-1", record(reference()))).text.partition("</form>")[2]


def reason_of(
    *,
    request: ClipRequest | None = REQUEST,
    camera: str | None = "gate",
    alerts: bool = True,
    stored: EvidenceRecord | None = None,
    age_s: float = 0.0,
    runs: bool = True,
) -> tuple[str, bool]:
    one = event(1, camera, clip=request)
    evidence = EventEvidence()
    if stored:
        evidence.add(stored, 0)
    item = ReviewItem(one, CAPTURED_NS, (alert(one),) if alerts else (), (), evidence)
    state = clip_of(item, CAPTURED_NS + round(age_s * 1e9), worker_runs=runs)
    return state.missing, state.pending


def test_an_event_without_a_clip_says_why() -> None:
    due_s = REQUEST.after_s + SETTLE_S
    assert "sensor" in reason_of(camera=None)[0]
    assert "requests none: set `clip`" in reason_of(request=None)[0]
    assert reason_of(alerts=False) == ("a clip belongs to an alert, and this event has none yet", True)
    assert reason_of() == ("it is made 8 s after the event", True)
    assert reason_of(age_s=due_s + 1) == ("the evidence worker has not made it yet", True)
    assert reason_of(age_s=due_s + WAIT_S + 1)[1] is False
    assert "start `sightline evidence run`" in reason_of(runs=False)[0]
    missing = record(clip=FACTS.model_copy(update={"missing": "the log has no frame of the interval"}))
    assert reason_of(stored=missing) == ("the log has no frame of the interval", False)
    assert reason_of(stored=record(reference())) == ("", False)


async def test_a_picture_that_was_stored_after_the_alert_is_shown(
    page: Callable[..., Any], context: ConsoleContext
) -> None:
    name = "gate/2023-11-14/221321.000Z-event-1-original.jpg"
    later = context.evidence._store.put(name, b"late picture", "image/jpeg")  # type: ignore[union-attr]
    missing = alert(event(1, clip=REQUEST))
    data = missing.data.model_copy(update={"evidence_missing": "the evidence store failed"})
    context.feed.happenings.add_alert(missing.model_copy(update={"id": "msg_other", "data": data}))
    assert "No picture was stored" in (await page("/events/event-1")).text
    html = (await page("/events/event-1", record(later))).text
    assert "No picture was stored" not in html
    assert (await page("/events/event-1/picture")).content == b"late picture"
