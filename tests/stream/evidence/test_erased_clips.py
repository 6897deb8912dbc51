"""Tests that nothing is stored for an event that is erased while its alert waits for its clip."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ingest.contract.records import Evidence
from ingest.kafka.log import LogRecord
from stream.evidence import stage
from stream.evidence.clip.window import SETTLE_S
from stream.evidence.erase import Erasure, erase
from stream.evidence.stage import RETRY_S, EvidenceProcessor
from stream.evidence.store import MemoryStore, StoredFile
from stream.exceptions import StoreFailed
from stream.runner.processor import Work
from tests.stream.evidence.scene import Scene


class ErasedMeanwhile(MemoryStore):
    """A store that erases the event of the scene's alert before a file is stored.

    With ``ends_put``, the process ends after the file is stored. With ``refuses_delete``, the first deletion fails.
    """

    def __init__(self, *, ends_put: bool = False, refuses_delete: bool = False) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.scene = Scene(store=self)
        self.ends_put, self.refuses_delete = ends_put, refuses_delete

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        erasing = erase(self.scene.log, MemoryStore(), erasure_of(self.scene), self.scene.clock, "ann")
        asyncio.run_coroutine_threadsafe(erasing, self.loop).result()
        found = super().put(name, data, media_type)
        if self.ends_put:
            raise MemoryError
        return found

    def delete(self, name: str) -> None:
        if self.refuses_delete:
            self.refuses_delete = False
            raise StoreFailed("503")
        super().delete(name)


def erasure_of(scene: Scene) -> Erasure:
    return Erasure("road", scene.captured_ns(50), scene.captured_ns(50), "request 4")


async def waiting_alert(scene: Scene) -> tuple[EvidenceProcessor, LogRecord]:
    """Return a processor to which an alert was given whose clip is due."""
    await scene.film(range(40, 67))
    alert = await scene.alert()
    processor = await scene.open()
    assert await asyncio.to_thread(processor.process, alert) == ()
    scene.clock.seconds += 3.0 + SETTLE_S
    return processor, alert


async def test_the_evidence_of_an_alert_that_was_erased_while_it_waited_is_not_stored() -> None:
    scene = Scene()
    await scene.film(range(40, 67))
    alert = await scene.alert(missing="the frame was late")
    processor = await scene.open()
    assert await asyncio.to_thread(processor.process, alert) == ()
    report = await erase(scene.log, scene.store, erasure_of(scene), scene.clock, "ann")
    assert (report.evidence.events, report.evidence.files) == (1, 0)
    scene.clock.seconds += 3.0 + SETTLE_S
    assert await asyncio.to_thread(processor.tick) == (Work((), (alert.offset,)),)
    assert list(scene.store.list()) == []
    restarted = await scene.open()
    assert await asyncio.to_thread(restarted.process, alert) == ()
    scene.clock.seconds += 3.0 + SETTLE_S
    assert await asyncio.to_thread(restarted.tick) == (Work((), (alert.offset,)),)
    assert list(scene.store.list()) == []


async def test_an_erased_alert_that_a_full_queue_drops_gets_no_evidence_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "MAX_WAITING", 1)
    scene = Scene()
    processor, alert = await waiting_alert(scene)
    await erase(scene.log, scene.store, erasure_of(scene), scene.clock, "ann")
    later = await scene.alert(seq=60)
    assert await asyncio.to_thread(processor.process, later) == (Work((), (alert.offset,)),)


async def test_files_that_are_stored_while_their_event_is_erased_are_deleted() -> None:
    store = ErasedMeanwhile()
    processor, alert = await waiting_alert(store.scene)
    assert await asyncio.to_thread(processor.tick) == (Work((), (alert.offset,)),)
    assert list(store.list()) == []


async def test_the_deletion_of_an_erased_event_s_files_is_tried_again_after_a_failure_of_the_store() -> None:
    store = ErasedMeanwhile(refuses_delete=True)
    processor, alert = await waiting_alert(store.scene)
    assert await asyncio.to_thread(processor.tick) == ()
    store.scene.clock.seconds += RETRY_S
    assert await asyncio.to_thread(processor.tick) == (Work((), (alert.offset,)),)
    assert list(store.list()) == []


async def test_a_restarted_worker_deletes_the_files_that_it_stored_for_an_erased_event_before_its_end() -> None:
    store = ErasedMeanwhile(ends_put=True)
    processor, alert = await waiting_alert(store.scene)
    with pytest.raises(MemoryError):
        await asyncio.to_thread(processor.tick)
    assert len(list(store.list())) == 1
    processor = await store.scene.open()
    assert await asyncio.to_thread(processor.process, alert) == ()
    store.scene.clock.seconds += 3.0 + SETTLE_S
    assert await asyncio.to_thread(processor.tick) == (Work((), (alert.offset,)),)
    assert list(store.list()) == []


async def test_an_erasure_deletes_files_that_are_stored_after_it_has_listed_the_store() -> None:
    class ListedEarlier(MemoryStore):
        def list(self, prefix: str = "") -> Iterator[StoredFile]:
            found = [*super().list(prefix)]
            if waiting:
                works.extend(waiting.pop().tick())
            return iter(found)

    waiting, works = list[EvidenceProcessor](), list[Work]()
    scene = Scene(store=ListedEarlier())
    processor, _ = await waiting_alert(scene)
    waiting.append(processor)
    report = await erase(scene.log, scene.store, erasure_of(scene), scene.clock, "ann")
    assert len(works[0].records) == 1  # the clip was stored
    assert list(scene.store.list()) == []
    assert (report.evidence.events, report.evidence.files) == (1, 1)
