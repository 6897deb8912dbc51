"""Tests of names, retention, legal holds and tombstones, without Kafka."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.codec import decode_json
from ingest.contract.records import EvidenceRecord
from ingest.contract.topics import EVIDENCE
from ingest.exceptions import Fenced
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.evidence import names
from stream.evidence.folder import FolderStore
from stream.evidence.holds import LegalHold, place, read_holds, release
from stream.evidence.retention import (
    AT_ONCE,
    DAY_NS,
    WRITER,
    DeletionReport,
    EvidenceGroup,
    RetentionPolicy,
    grouped,
    prune,
    surplus,
)
from stream.evidence.store import MemoryStore, StoredFile
from stream.exceptions import StoreFailed

NOW_NS = 100 * DAY_NS


def files(*, day: int, event: str = "e", camera: str = "gate", size: int = 10) -> list[StoredFile]:
    """Return the two pictures of an event in January 2026."""
    stem = names.stem(camera, f"2026-01-{day:02d}T03:04:05.678Z", event)
    return [StoredFile(f"{stem}-{kind}.jpg", size // 2, (60 + day) * DAY_NS) for kind in ("original", "annotated")]


class AgedStore(MemoryStore):
    """A store in memory whose files have the time at which they were stored as a setting."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def keep(self, *kept: StoredFile) -> None:
        for file in kept:
            self._files[file.name] = bytes(file.size), file.stored_ns

    def delete(self, name: str) -> None:
        if name in self.broken:
            raise StoreFailed("read-only")
        super().delete(name)


async def tombstones(log: MemoryLog) -> list[EvidenceRecord]:
    end = (await log.ends(EVIDENCE))[0]
    return [decode_json(EvidenceRecord, record.value) async for record in log.read(EVIDENCE, 0, 0, end)]


class TestNames:
    @settings(max_examples=30)
    @given(
        time=st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.678912345Z"]),
        event=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"),
        kind=st.sampled_from(["original", "annotated", "clip", "clip-boxes"]),
    )
    def test_camera_time_event_and_kind_are_read_from_the_name_of_an_evidence_file(
        self, time: str, event: str, kind: str
    ) -> None:
        found = names.parse(f"{names.stem('gate', time, event)}-{kind}.jpg")
        assert found is not None
        assert (found.subject, found.kind) == ("gate", kind) or event.endswith(("-clip", "-"))
        assert found.first_ns // 10**9 == 1_767_323_045
        assert found.last_ns - found.first_ns == 999_999

    def test_an_evidence_file_name_without_a_time_of_day_covers_the_whole_day(self) -> None:
        found = names.parse("gate/2026-01-02/4f2a-original.jpg")
        assert found is not None
        assert (found.event, found.last_ns - found.first_ns) == ("4f2a", DAY_NS - 1)

    @pytest.mark.parametrize(
        "name",
        ["holds/a.json", "gate/2026-13-02/a-original.jpg", "gate/a-original.jpg", "Gate/2026-01-02/a-clip.mp4"],
    )
    def test_a_name_that_is_no_evidence_file_name_is_not_parsed(self, name: str) -> None:
        assert names.parse(name) is None


class TestSurplus:
    groups = grouped([*files(day=3, event="c"), *files(day=1, event="a"), *files(day=2, event="b")])

    def events(self, policy: RetentionPolicy, now_ns: int = NOW_NS) -> list[str]:
        return [group.name.event for group, _ in surplus(self.groups, policy, now_ns)]

    def test_without_limits_retention_deletes_no_evidence(self) -> None:
        assert self.events(RetentionPolicy()) == []

    def test_evidence_older_than_the_limit_is_deleted(self) -> None:
        assert self.events(RetentionPolicy(max_age_ns=38 * DAY_NS)) == ["a"]
        assert self.events(RetentionPolicy(max_age_ns=38 * DAY_NS), NOW_NS + 1) == ["a", "b"]

    def test_the_oldest_events_are_deleted_until_the_remaining_evidence_fits(self) -> None:
        assert self.events(RetentionPolicy(max_bytes=30)) == []
        assert self.events(RetentionPolicy(max_bytes=29)) == ["a"]
        assert self.events(RetentionPolicy(max_bytes=10)) == ["a", "b"]

    @settings(max_examples=30)
    @given(
        sizes=st.lists(st.integers(2, 50), max_size=20), max_bytes=st.integers(1, 500), max_age=st.integers(1, 100)
    )
    def test_the_kept_evidence_is_within_both_limits(self, sizes: list[int], max_bytes: int, max_age: int) -> None:
        groups: list[EvidenceGroup] = grouped(
            [file for n, size in enumerate(sizes) for file in files(day=1 + n, event=f"e{n}", size=size)]
        )
        policy = RetentionPolicy(max_age * DAY_NS, max_bytes)
        gone = [group for group, _ in surplus(groups, policy, NOW_NS)]
        kept = [group for group in groups if group not in gone]
        assert sum(group.size for group in kept) <= max_bytes
        assert all(NOW_NS - group.stored_ns <= max_age * DAY_NS for group in kept)
        assert kept == groups[len(gone) :]


class TestPrune:
    async def prune(self, log: MemoryLog, store: MemoryStore, policy: RetentionPolicy) -> DeletionReport:
        return await prune(log, store, policy, ManualClock(started_ns=NOW_NS), "test")

    async def test_deleted_evidence_leaves_a_tombstone_with_the_reason(self) -> None:
        log, store = MemoryLog(), AgedStore()
        store.keep(*files(day=1, event="a"), *files(day=2, event="b"), StoredFile("notes.txt", 4, 0))
        report = await self.prune(log, store, RetentionPolicy(max_age_ns=38 * DAY_NS))
        assert (report.events, report.files, report.bytes) == (1, 2, 10)
        (stone,) = await tombstones(log)
        assert (stone.state, stone.event, stone.subject, stone.by) == ("deleted", "a", "gate", "test")
        assert (stone.reason, stone.deleted_bytes, stone.at_ns) == ("older than 38 days", 10, NOW_NS)
        assert sorted(stone.deleted) == [file.name for file in sorted(files(day=1, event="a"))]
        left = [file.name for file in store.list()]
        assert sorted(left) == sorted([*(file.name for file in files(day=2, event="b")), "notes.txt"])

    async def test_a_second_run_of_the_retention_deletes_nothing_and_writes_no_tombstone(self) -> None:
        log, store = MemoryLog(), AgedStore()
        store.keep(*files(day=1))
        for events in (1, 0):
            report = await self.prune(log, store, RetentionPolicy(max_age_ns=DAY_NS))
            assert report.events == events
        assert len(await tombstones(log)) == 1

    async def test_evidence_under_a_legal_hold_stays_and_counts_towards_the_limit_of_bytes(self) -> None:
        log, store = MemoryLog(), AgedStore()
        for day, event in enumerate("abcd", 1):
            store.keep(*files(day=day, event=event))
        place(store, LegalHold(name="case-1", event="a", reason="court", placed_ns=1))
        await self.prune(log, store, RetentionPolicy(max_bytes=20))
        assert {group.name.event for group in grouped(store.list())} == {"a", "d"}
        await self.prune(log, store, RetentionPolicy(max_age_ns=DAY_NS))
        assert {group.name.event for group in grouped(store.list())} == {"a"}
        assert release(store, "case-1")
        await self.prune(log, store, RetentionPolicy(max_age_ns=DAY_NS))
        assert grouped(store.list()) == []

    async def test_a_file_that_the_store_cannot_delete_is_deleted_by_the_next_run(self) -> None:
        log, store = MemoryLog(), AgedStore()
        store.keep(*files(day=1, event="a"), *files(day=2, event="b"))
        store.broken = {files(day=1, event="a")[0].name}
        report = await self.prune(log, store, RetentionPolicy(max_age_ns=DAY_NS))
        assert (report.events, report.failed) == (1, {"a": "read-only"})
        store.broken = set()
        report = await self.prune(log, store, RetentionPolicy(max_age_ns=DAY_NS))
        assert (report.events, report.failed) == (1, {})
        assert grouped(store.list()) == []

    async def test_a_deletion_that_is_fenced_by_a_newer_one_deletes_nothing(self) -> None:
        log, store = MemoryLog(), AgedStore()
        store.keep(*files(day=1))

        class Overtaken(MemoryLog):
            async def writer(self, transactional_id: str) -> object:
                older = await log.writer(transactional_id)
                await log.writer(WRITER)
                return older

        with pytest.raises(Fenced):
            await self.prune(Overtaken(), store, RetentionPolicy(max_age_ns=DAY_NS))
        assert len(grouped(store.list())) == 1
        assert await tombstones(log) == []

    async def test_a_legal_hold_placed_during_a_deletion_keeps_the_remaining_evidence(self) -> None:
        hold = LegalHold(name="case-1", camera="yard", reason="court", placed_ns=1)

        class HeldMeanwhile(AgedStore):
            def delete(self, name: str) -> None:
                super().delete(name)
                place(self, hold)

        log, store = MemoryLog(), HeldMeanwhile()
        for number in range(AT_ONCE):
            store.keep(*files(day=1, event=f"{number}"))
        store.keep(*files(day=2, event="court", camera="yard"))
        report = await self.prune(log, store, RetentionPolicy(max_age_ns=DAY_NS))
        assert (report.events, report.held) == (AT_ONCE, {"court": "case-1"})
        assert [group.name.event for group in grouped(store.list())] == ["court"]
        assert len(await tombstones(log)) == AT_ONCE

    async def test_nothing_is_deleted_while_the_folder_of_the_legal_holds_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log, store, scandir = MemoryLog(), FolderStore(tmp_path), os.scandir
        (file, _) = files(day=1, event="a")
        store.put(file.name, b"picture", "image/jpeg")
        place(store, LegalHold(name="case-1", event="a", reason="court", placed_ns=1))

        def refused(path: str) -> object:
            if str(path).endswith("holds"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refused)
        with pytest.raises(StoreFailed, match="Permission denied: expected a readable folder"):
            await self.prune(log, store, RetentionPolicy(max_age_ns=1))
        monkeypatch.undo()
        assert [group.name.event for group in grouped(store.list())] == ["a"]
        assert await tombstones(log) == []


class TestHolds:
    def test_a_legal_hold_on_a_camera_covers_its_evidence_between_two_times(self) -> None:
        gate, yard = (names.parse(files(day=2, camera=camera)[0].name) for camera in ("gate", "yard"))
        assert gate is not None
        assert yard is not None
        for since_ns, until_ns, covered in (
            (0, gate.first_ns - 1, False),
            (0, gate.first_ns, True),
            (gate.last_ns, gate.last_ns + 5, True),
            (gate.last_ns + 1, gate.last_ns + 5, False),
        ):
            hold = LegalHold(
                name="x", camera="gate", since_ns=since_ns, until_ns=until_ns, reason="court", placed_ns=1
            )
            assert hold.covers(gate) is covered
            assert not hold.covers(yard)

    def test_stored_legal_holds_are_listed_until_they_are_released(self) -> None:
        store = MemoryStore()
        holds = [LegalHold(name=f"case-{n}", event="e", reason="court", by="ann", placed_ns=n) for n in (1, 2)]
        for hold in holds:
            place(store, hold)
        assert read_holds(store) == holds
        assert release(store, "case-1")
        assert not release(store, "case-1")
        assert not release(store, "../case-2")
        assert read_holds(store) == holds[1:]

    async def test_nothing_is_deleted_while_a_legal_hold_cannot_be_read(self) -> None:
        log, store = MemoryLog(), AgedStore()
        store.keep(*files(day=1))
        store.put("holds/case-1.json", b"{", "application/json")
        with pytest.raises(StoreFailed, match=r"holds/case-1.json is no legal hold"):
            await prune(log, store, RetentionPolicy(max_age_ns=1), ManualClock(), "test")
        assert len(grouped(store.list())) == 1

    @pytest.mark.parametrize(
        "wrong", [{}, {"camera": "gate", "event": "e"}, {"camera": "gate", "since_ns": 2, "until_ns": 1}]
    )
    def test_a_legal_hold_without_a_clear_subject_is_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match="expected"):
            LegalHold(name="x", reason="court", placed_ns=1, **wrong)  # type: ignore[arg-type]
