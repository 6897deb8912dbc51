"""What every evidence store does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stream.alerts.evidence import EvidenceStore, FolderStore, MemoryStore
from stream.alerts.exceptions import StoreFailed


class EvidenceStoreContract:
    """Inherited by one class per store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        pytest.fail("each store has a fixture of its own")

    def test_what_is_kept_comes_back_with_its_hash(self, store: EvidenceStore) -> None:
        kept = store.put("road/2026-01-01/e-original.jpg", b"picture", "image/jpeg")
        assert store.read(kept.name) == b"picture"
        assert kept.sha256 == hashlib.sha256(b"picture").hexdigest()
        assert kept.name == "road/2026-01-01/e-original.jpg"
        assert kept.media_type == "image/jpeg"
        assert kept.url

    def test_the_same_again_changes_nothing(self, store: EvidenceStore) -> None:
        assert store.put("a/e.jpg", b"picture", "image/jpeg") == store.put("a/e.jpg", b"picture", "image/jpeg")
        assert store.read("a/e.jpg") == b"picture"

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, store: EvidenceStore) -> None:
        store.put("a/e.jpg", b"picture", "image/jpeg")
        store.delete("a/e.jpg")
        store.delete("a/e.jpg")
        with pytest.raises(StoreFailed):
            store.read("a/e.jpg")

    @pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg"])
    def test_a_name_cannot_leave_the_store(self, store: EvidenceStore, name: str) -> None:
        with pytest.raises(StoreFailed, match="stays inside"):
            store.put(name, b"picture", "image/jpeg")


class TestMemory(EvidenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        return MemoryStore()


class TestFolder(EvidenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        return FolderStore(tmp_path / "evidence")

    def test_nothing_but_whole_pictures_is_in_the_folder(self, store: EvidenceStore, tmp_path: Path) -> None:
        kept = store.put("road/e.jpg", b"picture", "image/jpeg")
        files = [p for p in (tmp_path / "evidence").rglob("*") if p.is_file()]
        assert [p.as_uri() for p in files] == [kept.url]

    def test_a_disk_that_does_not_take_it_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(StoreFailed, match="can be written to"):
            FolderStore(tmp_path / "file").put("e.jpg", b"picture", "image/jpeg")
