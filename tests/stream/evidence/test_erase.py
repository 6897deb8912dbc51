"""Tests of erasure: evidence, dead letters, and the report of data that is left."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.services import evidence as command
from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import EvidenceRecord
from ingest.contract.topics import DEADLETTER, EVIDENCE, FRAMES
from ingest.deadletter import letters, parked, replay
from ingest.exceptions import Truncated
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.runtime.eventloop import run
from stream.evidence import names
from stream.evidence.erase import Erasure, erase
from stream.evidence.holds import LegalHold, place
from stream.evidence.location import open_store
from stream.evidence.retention import DAY_NS, grouped
from stream.evidence.store import EvidenceStore, MemoryStore
from tests.stream.evidence.test_clips import frame

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
