"""Tests of outages during alerts: the pages say which part is gone, and afterwards nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from console.context import ConsoleContext
from console.evidence import EvidenceFiles
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.records import Alert, EvidenceRecord
from ingest.contract.topics import ALERTS, EVENTS, FRAMES
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.alerts.stage import PICTURE_WAIT_S, RETRY_S, AlertStage
from stream.evidence.folder import FolderStore
from stream.evidence.stage import EvidenceStage
from stream.runner.processor import Work
from tests.console.conftest import Browser
from tests.console.records import alert, configure, event, frame, write
from tests.stream.alerts.test_alerts import jpeg

Open = Callable[..., Browser]
GONE = "The evidence store cannot be read"


async def test_a_page_names_the_missing_evidence_folder_and_shows_the_frame_from_the_log(
    browser: Open, context: ConsoleContext, log: MemoryLog, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "evidence")
    picture = store.put("gate/2023-11-14/221321.000Z-event-1-original.jpg", b"stored", "image/jpeg")
    context.evidence = EvidenceFiles(store, context.clock)
    await configure(log)
    await write(log, frame("gate", 0), frame("gate", 1), event(1), alert(event(1), picture))
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("ada")
    await context.evidence.probe()
    assert (await one.get("/events/event-1/picture")).content == b"stored"
    assert GONE not in await one.load("/events")

    (tmp_path / "evidence").rename(tmp_path / "unmounted")
    await context.evidence.probe()
    assert GONE in await one.load("/events")
    response = await one.get("/api/events/event-1/evidence/0")
    assert (response.status_code, "the folder is gone" in response.text) == (503, True)
    assert (await one.get("/events/event-1/picture")).content == frame("gate", 1).image

    (tmp_path / "unmounted").rename(tmp_path / "evidence")
    assert (await one.get("/api/events/event-1/evidence/0")).content == b"stored"
    assert GONE not in await one.load("/events")


async def test_a_new_evidence_folder_that_does_not_exist_yet_is_no_outage(
    context: ConsoleContext, tmp_path: Path
) -> None:
    context.evidence = EvidenceFiles(FolderStore(tmp_path / "new"), context.clock)
    await context.evidence.probe()
    assert context.evidence.outage == ""


async def test_alerts_of_a_store_outage_get_their_pictures_when_it_ends(
    log: MemoryLog, clock: ManualClock, tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    folder.write_text("no folder, so nothing can be stored")
    store, events = FolderStore(folder), [event(number) for number in range(3)]
    processor = await AlertStage(store, 4, clock).open(TopicPartition(EVENTS, 0), 0, log)
    works: list[Work] = []
    for number, one in enumerate(events):
        picture = frame("gate", number, image=jpeg()).model_copy(update={"width": 160, "height": 90})
        await log.produce(Outgoing(FRAMES, 0, encode(picture)))
        works += await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, number, None, encode_json(one)))
    assert works == []
    clock.advance(PICTURE_WAIT_S + RETRY_S)
    works += await asyncio.to_thread(processor.tick)
    written = [record for work in works for record in work.records if record.topic == ALERTS]
    made = [decode_json(Alert, record.value) for record in written]
    assert [one.data.event for one in made] == [one.id for one in events]
    assert sorted(offset for work in works for offset in work.done) == [0, 1, 2]
    assert all("the evidence store failed" in one.data.evidence_missing for one in made)

    folder.unlink()
    evidence = await EvidenceStage(store, clock).open(TopicPartition(ALERTS, 0), 0, log)
    works = []
    for number, record in enumerate(written):
        await asyncio.to_thread(evidence.process, LogRecord(ALERTS, 0, number, None, record.value))
        works += await asyncio.to_thread(evidence.tick)
    completed = [decode_json(EvidenceRecord, record.value) for work in works for record in work.records]
    files = [file for one in completed for file in one.files]
    assert len(files) == 2 * len(events)
    for file in files:
        with store.open(file.name) as stream:
            assert stream.read()
