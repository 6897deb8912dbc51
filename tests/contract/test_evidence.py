"""The contract of every evidence store."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from stream.alerts.evidence import EvidenceStore, FolderStore, MemoryStore
from stream.exceptions import StoreFailed, UnusableName


class EvidenceStoreContract:
    """Tests that every evidence store passes."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        pytest.fail("each store overrides this fixture")

    def test_a_stored_evidence_picture_is_read_back_and_its_reference_has_its_hash(
        self, store: EvidenceStore
    ) -> None:
        kept = store.put("road/2026-01-01/e-original.jpg", b"picture", "image/jpeg")
        assert store.read(kept.name) == b"picture"
        assert kept.sha256 == hashlib.sha256(b"picture").hexdigest()
        assert kept.name == "road/2026-01-01/e-original.jpg"
        assert kept.media_type == "image/jpeg"
        assert kept.url

    def test_storing_the_same_evidence_picture_again_changes_nothing(self, store: EvidenceStore) -> None:
        assert store.put("a/e.jpg", b"picture", "image/jpeg") == store.put("a/e.jpg", b"picture", "image/jpeg")
        assert store.read("a/e.jpg") == b"picture"

    def test_a_deleted_evidence_picture_is_gone_and_may_be_deleted_again(self, store: EvidenceStore) -> None:
        store.put("a/e.jpg", b"picture", "image/jpeg")
        store.delete("a/e.jpg")
        store.delete("a/e.jpg")
        with pytest.raises(StoreFailed):
            store.read("a/e.jpg")

    @pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg"])
    def test_a_picture_name_that_points_outside_the_evidence_store_is_refused(
        self, store: EvidenceStore, name: str
    ) -> None:
        with pytest.raises(UnusableName, match="expected a path inside the store"):
            store.put(name, b"picture", "image/jpeg")


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
