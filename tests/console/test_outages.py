"""Tests of outages during alerts: the pages say which part is gone, and afterwards nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

import console.evidence
from console.context import ConsoleContext
from console.evidence import EvidenceFiles
from console.live.view import ANSWER_S, TopicReader, TopicView
from console.pages import numbers
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.records import Alert, EvidenceRecord
from ingest.contract.topics import ALERTS, EVENTS, FRAMES, STATUS
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.alerts.stage import PICTURE_WAIT_S, RETRY_S, AlertStage
from stream.evidence.folder import FolderStore
from stream.evidence.stage import EvidenceStage
from stream.evidence.store import EvidenceStore, MemoryStore
from stream.runner.processor import Work
from tests.console.conftest import Browser
from tests.console.records import alert, configure, event, frame, write
from tests.stream.alerts.test_alerts import jpeg

Open = Callable[..., Browser]
GONE = "The evidence store cannot be read"


async def browser_of_an_event(
    browser: Open, context: ConsoleContext, log: MemoryLog, store: EvidenceStore
) -> Browser:
    """Return the browser of a signed-in user, after an event whose picture is in ``store``."""
    picture = store.put("gate/2023-11-14/221321.000Z-event-1-original.jpg", b"stored", "image/jpeg")
    context.evidence = EvidenceFiles(store, context.clock)
    await configure(log)
    await write(log, frame("gate", 0), frame("gate", 1), event(1), alert(event(1), picture))
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("ada")
    return one


async def test_a_page_names_the_missing_evidence_folder_and_shows_the_frame_from_the_log(
    browser: Open, context: ConsoleContext, log: MemoryLog, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "evidence")
    one = await browser_of_an_event(browser, context, log, store)
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


async def test_alerts_sent_without_pictures_during_an_evidence_store_outage_get_them_afterwards(
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


class SilentLog(MemoryLog):
    """A log whose broker does not answer until ``answers`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Answer once the broker answers."""
        self.asked.set()
        await self.answers.wait()
        return await super().beginnings(topic)

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Answer once the broker answers."""
        self.asked.set()
        await self.answers.wait()
        return await super().ends(topic)


async def test_the_topic_reader_reports_an_unresponsive_broker_before_its_pending_request_fails(
    clock: ManualClock,
) -> None:
    log, read = SilentLog(), asyncio.Event()
    reader = TopicReader("records", [_StatusOf(read)], 0.0, clock=clock)
    running = asyncio.create_task(reader.run(lambda: log))
    try:
        await log.asked.wait()
        assert reader.outage == ""
        clock.advance(ANSWER_S + 1.0)
        assert reader.outage == "it has not answered for 6 s"
        log.answers.set()
        await read.wait()
        assert reader.outage == ""
    finally:
        running.cancel()
        await asyncio.wait({running})


class _StatusOf(TopicView):
    """A view of an empty topic, which notes when it is asked again after it was read."""

    topic = STATUS

    def __init__(self, read: asyncio.Event) -> None:
        self._read, self._turns = read, 0

    def wanted(self) -> bool:
        self._turns += 1
        if self._turns == 2:
            self._read.set()
        return True

    def apply(self, record: LogRecord) -> None:
        raise AssertionError("the topic is empty")


async def test_the_system_page_answers_although_kafka_does_not(
    browser: Open, context: ConsoleContext, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await configure(log)
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("ada")
    monkeypatch.setattr(numbers, "LATENCIES_S", 0.01)
    monkeypatch.setattr(context.feed, "log", SilentLog)
    html = await one.load("/system")
    assert "the latencies are missing: their records were not read within" in html
    assert "Kafka cannot be read" not in html  # the records may have been slow only
    assert "gate" in html


class SilentStore(MemoryStore):
    """A store that does not answer until ``answers`` is set. ``asked`` counts the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = 0, threading.Event()

    def open(self, name: str) -> BinaryIO:
        """Answer once the store answers."""
        self.asked += 1
        self.answers.wait(30.0)
        return super().open(name)


async def test_a_page_names_an_evidence_store_that_does_not_answer_and_requests_no_file_of_it(
    browser: Open, context: ConsoleContext, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SilentStore()
    one = await browser_of_an_event(browser, context, log, store)
    monkeypatch.setattr(console.evidence, "ANSWER_S", 0.01)
    try:
        await context.evidence.probe()
        await context.evidence.probe()
        assert GONE in await one.load("/events")
        response = await one.get("/api/events/event-1/evidence/0")
        assert (response.status_code, "does not answer" in response.text) == (503, True)
        assert (await one.get("/events/event-1/picture")).content == frame("gate", 1).image
        assert store.asked == 1
    finally:
        store.answers.set()
    monkeypatch.undo()
    await context.evidence.probe()
    assert GONE not in await one.load("/events")
    assert (await one.get("/api/events/event-1/evidence/0")).content == b"stored"
