"""The contract of every evidence store."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from stream.evidence.folder import FolderStore
from stream.evidence.store import EvidenceStore, MemoryStore
from stream.exceptions import NotStored, StoreFailed, UnusableName


def contents(store: EvidenceStore, name: str) -> bytes:
    with store.open(name) as stream:
        return stream.read()


class EvidenceStoreContract:
    """Tests that every evidence store passes."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        pytest.fail("each store overrides this fixture")

    def test_a_stored_file_is_read_back_and_its_reference_has_its_hash_and_size(self, store: EvidenceStore) -> None:
        kept = store.put("road/2026-01-01/e-original.jpg", b"picture", "image/jpeg")
        assert contents(store, kept.name) == b"picture"
        assert (kept.sha256, kept.size) == (hashlib.sha256(b"picture").hexdigest(), 7)
        assert kept.name == "road/2026-01-01/e-original.jpg"
        assert kept.media_type == "image/jpeg"
        assert kept.url

    def test_storing_the_same_evidence_picture_again_changes_nothing(self, store: EvidenceStore) -> None:
        assert store.put("a/e.jpg", b"picture", "image/jpeg") == store.put("a/e.jpg", b"picture", "image/jpeg")
        assert contents(store, "a/e.jpg") == b"picture"

    def test_a_second_file_with_the_same_name_replaces_the_first(self, store: EvidenceStore) -> None:
        store.put("a/e.mp4", b"shorter clip", "video/mp4")
        store.put("a/e.mp4", b"clip", "video/mp4")
        assert contents(store, "a/e.mp4") == b"clip"

    def test_a_player_can_read_any_part_of_a_stored_file(self, store: EvidenceStore) -> None:
        store.put("a/clip.mp4", bytes(range(256)) * 1000, "video/mp4")
        with store.open("a/clip.mp4") as stream:
            assert stream.seek(0, os.SEEK_END) == 256_000
            stream.seek(1_030)
            assert stream.read(4) == bytes([6, 7, 8, 9])
            stream.seek(-1, os.SEEK_END)
            assert stream.read() == b"\xff"

    def test_a_deleted_evidence_picture_is_gone_and_may_be_deleted_again(self, store: EvidenceStore) -> None:
        store.put("a/e.jpg", b"picture", "image/jpeg")
        store.delete("a/e.jpg")
        store.delete("a/e.jpg")
        with pytest.raises(NotStored, match="is not in the evidence store"):
            store.open("a/e.jpg")
        assert [*store.list()] == []

    def test_a_list_names_the_files_below_a_prefix_with_their_sizes_and_times(self, store: EvidenceStore) -> None:
        assert [*store.list()] == []
        before_ns = time.time_ns()
        for name, data in (("gate/2026-01-01/a.jpg", b"a"), ("gate/2026-01-02/b.jpg", b"bb"), ("yard/c.jpg", b"c")):
            store.put(name, data, "image/jpeg")
        found = {each.name: each for each in store.list("gate/")}
        assert sorted(found) == ["gate/2026-01-01/a.jpg", "gate/2026-01-02/b.jpg"]
        assert found["gate/2026-01-02/b.jpg"].size - found["gate/2026-01-01/a.jpg"].size == 1
        # S3 has whole seconds
        assert all(abs(each.stored_ns - before_ns) < 60 * 10**9 for each in found.values())
        assert sorted(each.name for each in store.list("gate/2026-01-02")) == ["gate/2026-01-02/b.jpg"]
        assert len([*store.list()]) == 3
        assert [*store.list("nowhere/")] == []

    @pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg", "", "a//b", "a/.", "a\0b"])
    def test_a_name_that_points_outside_the_evidence_store_is_refused(self, store: EvidenceStore, name: str) -> None:
        for act in (lambda: store.put(name, b"picture", "image/jpeg"), lambda: store.open(name)):
            with pytest.raises(UnusableName, match="expected a path inside the store"):
                act()
        with pytest.raises(UnusableName):
            store.delete(name)


class TestMemory(EvidenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        return MemoryStore()


class TestFolder(EvidenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        return FolderStore(tmp_path / "evidence")

    def test_the_evidence_folder_holds_only_complete_pictures(self, store: EvidenceStore, tmp_path: Path) -> None:
        kept = store.put("road/e.jpg", b"picture", "image/jpeg")
        files = [p for p in (tmp_path / "evidence").rglob("*") if p.is_file()]
        assert [p.as_uri() for p in files] == [kept.url]

    def test_a_link_out_of_the_evidence_folder_is_not_followed(self, store: EvidenceStore, tmp_path: Path) -> None:
        store.put("road/e.jpg", b"picture", "image/jpeg")
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "evidence" / "road" / "link.jpg").symlink_to(tmp_path / "secret")
        with pytest.raises(UnusableName):
            store.open("road/link.jpg")
        assert [each.name for each in store.list()] == ["road/e.jpg"]

    def test_deleting_the_last_file_of_a_day_removes_its_folder(self, store: EvidenceStore, tmp_path: Path) -> None:
        for name in ("road/2026-01-01/a.jpg", "road/2026-01-02/b.jpg"):
            store.put(name, b"picture", "image/jpeg")
        store.delete("road/2026-01-01/a.jpg")
        assert [path.name for path in (tmp_path / "evidence" / "road").iterdir()] == ["2026-01-02"]

    def test_an_evidence_folder_that_cannot_be_written_raises_store_failed(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(StoreFailed, match="expected a writable folder"):
            FolderStore(tmp_path / "file").put("e.jpg", b"picture", "image/jpeg")

    def test_a_full_disk_leaves_no_incomplete_evidence_picture(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreFailed, match="No space left"):
            FolderStore(tmp_path).put("road/e.jpg", b"picture", "image/jpeg")
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
