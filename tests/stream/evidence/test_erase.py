"""Tests of erasure: evidence, dead letters, and the report of data that is left."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.services import evidence as command
from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Event, EventData, EvidenceRecord
from ingest.contract.topics import DEADLETTER, EVENTS, EVIDENCE, FRAMES
from ingest.deadletter import letters, parked, replay
from ingest.exceptions import ConfigError, Truncated
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.runtime.eventloop import run
from stream.events import rfc3339
from stream.evidence import names
from stream.evidence.erase import Erasure, erase, erasure_of_track
from stream.evidence.holds import LegalHold, place
from stream.evidence.location import open_store
from stream.evidence.retention import DAY_NS, grouped
from stream.evidence.store import EvidenceStore, MemoryStore
from tests.stream.evidence.scene import frame

FIRST = "2026-01-02T03:00:00Z"
FIRST_NS = 1_767_322_800 * 10**9
HOUR_NS = 3600 * 10**9


def keep(store: EvidenceStore, event: str, hour: int, camera: str = "road") -> None:
    store.put(f"{names.stem(camera, f'2026-01-02T{hour:02d}:30:00.000Z', event)}-original.jpg", b"x", "image/jpeg")


async def park(log: MemoryLog, captured_ns: int, camera: str = "road", value: bytes = b"") -> None:
    one = frame(captured_ns // 10**9 % 100, captured_ns, camera=camera)
    headers = h.frame_headers([one.id], LIVE)
    record = LogRecord(FRAMES, 0, one.seq, camera.encode(), value or encode(one), headers)
    await log.produce(parked(record, "prepare", Truncated("no picture")))


def wanted(camera: str = "road") -> Erasure:
    return Erasure(camera, FIRST_NS, FIRST_NS + HOUR_NS, "request 4")


async def test_an_erasure_deletes_the_evidence_of_one_camera_and_period() -> None:
    log, store, clock = MemoryLog(), MemoryStore(), ManualClock(started_ns=FIRST_NS + DAY_NS)
    for event, hour, camera in (("a", 2, "road"), ("b", 3, "road"), ("c", 4, "road"), ("d", 3, "yard")):
        keep(store, event, hour, camera)
    keep(store, "held", 3)
    place(store, LegalHold(name="case-1", event="held", reason="court", placed_ns=1))
    report = await erase(log, store, wanted(), clock, "ann")
    assert {group.name.event for group in grouped(store.list())} == {"a", "c", "d", "held"}
    assert (report.evidence.events, report.evidence.held) == (1, {"held": "case-1"})
    (stone,) = [decode_json(EvidenceRecord, one.value) async for one in log.read(EVIDENCE, 0, 0, 1)]
    assert (stone.event, stone.reason, stone.by) == ("b", "erased: request 4", "ann")
    until = {one.place: one.until_ns for one in report.left}
    assert until["topic frames"] == clock.now_ns() + 8 * DAY_NS
    assert until["topic alerts"] == clock.now_ns() + 37 * DAY_NS
    assert until["spools of agents"] == 0


async def test_an_erased_dead_letter_keeps_only_its_frame_ids_and_its_error() -> None:
    log = MemoryLog(partitions=1, clock=ManualClock(started_ns=FIRST_NS + HOUR_NS))
    await park(log, FIRST_NS - 1)
    await park(log, FIRST_NS + 1)
    await park(log, FIRST_NS + 1, camera="yard")
    await park(log, FIRST_NS + 2 * 10**9, value=b"unreadable")
    await log.produce(Outgoing(DEADLETTER, 0, b"", headers={"sightline-replayed-lane": b"replay-x"}))
    before = [one async for one in letters(log)]
    report = await erase(log, MemoryStore(), wanted(), ManualClock(), "ann")
    after = [one async for one in letters(log)]
    assert report.dead_letters == 2
    assert [one.frames for one in after] == [one.frames for one in before]
    assert [one.failure for one in after] == [one.failure for one in before]
    assert [bool(one.record.value) for one in after] == [True, False, True, False]
    assert [one.whole for one in after] == [True, False, True, False]
    begin, end = (await log.beginnings(DEADLETTER))[0], (await log.ends(DEADLETTER))[0]
    assert end - begin == 5  # the receipt of an earlier replay stays
    assert any("segment files" in one.place for one in report.left)
    again = await erase(log, MemoryStore(), wanted(), ManualClock(), "ann")
    assert again.dead_letters == 0
    assert (await log.ends(DEADLETTER))[0] == end
    replayed = await replay(log, "later")
    assert (replayed.sent, replayed.skipped) == (2, {"was too large to be parked whole": 2})


def test_the_command_erase_asks_first_and_fails_if_evidence_is_under_a_legal_hold(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, folder = MemoryLog(), str(tmp_path_factory.mktemp("evidence"))
    monkeypatch.setattr(command, "on_log", lambda client_id, kafka, prefix, work: run(work(log)))
    store = open_store(folder)
    keep(store, "a", 3)
    keep(store, "b", 3)
    place(store, LegalHold(name="case-1", event="b", reason="court", placed_ns=1))
    words = ["evidence", "erase", "--evidence", folder, "--camera", "road", "--from", FIRST, "--reason", "request 4"]
    refused = CliRunner().invoke(app, words, input="n\n")
    assert refused.exit_code == 1
    assert "Erase the evidence of 2 events of road?" in refused.output
    assert len(grouped(store.list())) == 2
    done = CliRunner().invoke(app, [*words, "--yes", "--json"])
    assert done.exit_code == 1
    said = json.loads(done.output)
    assert (said["evidence"]["events"], said["evidence"]["held"]) == (1, {"b": "case-1"})
    assert {"place": "spools of agents", "contents": "frames that are not sent yet", "until": "unknown"} in said[
        "left"
    ]


def seen(event: str, hour: int, track: str, camera: str = "road", lane: str = "live") -> Event:
    """Return an event whose evidence ``keep`` has stored."""
    data = EventData.model_validate(
        {"incident": "i", "rule": "r", "summary": "s", "camera": camera, "lane": lane, "track": track}
        | {"captured_ns": FIRST_NS + (hour - 3) * HOUR_NS + HOUR_NS // 2}
    )
    time = f"2026-01-02T{hour:02d}:30:00.000Z"
    return Event(id=event, source=f"/{camera}", type="sightline.x", subject=camera, time=time, data=data)


PASSAGES = (
    seen("a", 3, "1-7-0"),
    seen("b", 4, "1-7-0"),
    seen("other", 3, "1-8-0"),
    seen("alone", 4, ""),
    seen("yard", 3, "1-7-0", camera="yard"),
    seen("again", 3, "1-7-0", lane="replay-x"),
)


@pytest.fixture
async def passages() -> MemoryLog:
    """Return a log with the events of several tracks and an unreadable record."""
    log = MemoryLog(partitions=2)
    await log.produce(Outgoing(EVENTS, 0, b"{broken"))
    for number, one in enumerate(PASSAGES):
        await log.produce(Outgoing(EVENTS, number % 2, encode_json(one)))
    return log


@pytest.mark.parametrize(
    ("event", "erased"), [("b", {"a", "b", "again"}), ("other", {"other"}), ("alone", {"alone"})]
)
async def test_the_erasure_of_a_track_deletes_the_evidence_of_its_events_and_of_no_others(
    passages: MemoryLog, event: str, erased: set[str]
) -> None:
    store, clock = MemoryStore(), ManualClock(started_ns=FIRST_NS + DAY_NS)
    for one in PASSAGES:
        keep(store, one.id, int(one.time[11:13]), one.subject)
    report = await erase(passages, store, await erasure_of_track(passages, event, "request 4"), clock, "ann")
    assert {group.name.event for group in grouped(store.list())} == {one.id for one in PASSAGES} - erased
    assert report.evidence.events == len(erased)
    assert any(one.place == "other tracks" for one in report.left)


async def test_the_erasure_of_a_track_deletes_evidence_whose_file_name_has_a_time_rounded_up() -> None:
    log, store = MemoryLog(partitions=1), MemoryStore()
    captured_ns = FIRST_NS + 999_999_999
    one = seen("a", 3, "1-7-0")
    data = one.data.model_copy(update={"captured_ns": captured_ns})
    one = one.model_copy(update={"data": data, "time": rfc3339(captured_ns)})
    await log.produce(Outgoing(EVENTS, 0, encode_json(one)))
    store.put(f"{names.stem('road', one.time, 'a')}-original.jpg", b"x", "image/jpeg")
    report = await erase(log, store, await erasure_of_track(log, "a", "request 4"), ManualClock(), "ann")
    assert (report.evidence.events, list(store.list())) == (1, [])


async def test_the_erasure_of_an_unknown_event_is_refused(passages: MemoryLog) -> None:
    with pytest.raises(ConfigError, match="the id of a camera's event"):
        await erasure_of_track(passages, "nobody", "request 4")


def test_the_command_erase_lists_the_events_of_a_track_and_refuses_an_additional_camera_option(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, passages: MemoryLog
) -> None:
    folder = str(tmp_path_factory.mktemp("evidence"))
    monkeypatch.setattr(command, "on_log", lambda client_id, kafka, prefix, work: run(work(passages)))
    store = open_store(folder)
    for event, hour in (("a", 3), ("b", 4), ("other", 3)):
        keep(store, event, hour)
    words = ["evidence", "erase", "--evidence", folder, "--event", "a", "--reason", "request 4"]
    assert CliRunner().invoke(app, [*words, "--camera", "road"]).exit_code != 0
    done = CliRunner().invoke(app, words, input="y\n")
    assert done.exit_code == 0, done.output
    assert "Erase the evidence of 2 events of road?" in done.output
    assert "2026-01-02T04:30:00" in done.output
    assert [group.name.event for group in grouped(store.list())] == ["other"]
