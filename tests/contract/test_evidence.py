"""The contract of every evidence store."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from benchmarks.console.s3server import S3Server, is_installed
from ingest.exceptions import ConfigError
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.evidence.encrypted import EncryptedStore, add_key, read_keys
from stream.evidence.folder import FolderStore
from stream.evidence.location import KEY_FILE, open_store
from stream.evidence.retention import PART_NS, RetentionPolicy, prune
from stream.evidence.store import EvidenceStore, MemoryStore
from stream.exceptions import EvidenceChanged, NotStored, StoreFailed, UnusableName


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


@pytest.fixture(scope="session")
def s3_server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start a real S3 server. Its start takes about two seconds."""
    if not is_installed(home):
        pytest.skip("needs s3proxy and Java: run `make s3proxy`")
    with S3Server(home, tmp_path_factory.mktemp("s3proxy")) as server:
        yield server


class TestBucket(EvidenceStoreContract):
    @pytest.fixture
    def address(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
        for name, value in s3_server.environment.items():
            monkeypatch.setenv(name, value)
        return f"s3://bucket/{abs(hash(request.node.name))}/evidence"

    @pytest.fixture
    def store(self, address: str) -> EvidenceStore:
        return open_store(address)

    def test_the_url_of_a_file_names_its_bucket_and_its_media_type_is_stored(
        self, store: EvidenceStore, address: str
    ) -> None:
        kept = store.put("road/e.jpg", b"picture", "image/jpeg")
        assert kept.url == f"{address}/road/e.jpg"
        plain = S3Store("bucket", client_options={"allow_http": True})
        found = obstore.get(plain, kept.url.removeprefix("s3://bucket/"))
        assert found.attributes["Content-Type"] == "image/jpeg"

    def test_a_large_clip_is_uploaded_in_parts_and_read_back(self, store: EvidenceStore) -> None:
        data = bytes(range(256)) * 4096 * 6  # 6 MiB; parts have 5 MiB
        kept = store.put("road/clip.mp4", data, "video/mp4")
        assert kept.size == len(data)
        assert hashlib.sha256(contents(store, "road/clip.mp4")).hexdigest() == kept.sha256

    @pytest.mark.parametrize(
        "change", [{"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}]
    )
    def test_a_bucket_that_refuses_or_does_not_answer_raises_store_failed(
        self, address: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
    ) -> None:
        for name, value in change.items():
            monkeypatch.setenv(name, value)
        store = open_store(address)
        for act in (
            lambda: store.put("road/e.jpg", b"picture", "image/jpeg"),
            lambda: store.open("road/e.jpg"),
            lambda: store.delete("road/e.jpg"),
            lambda: [*store.list()],
        ):
            with pytest.raises(StoreFailed, match="expected a bucket"):
                act()

    def test_a_missing_bucket_raises_store_failed(self, address: str) -> None:
        with pytest.raises(StoreFailed):
            open_store("s3://nowhere").put("road/e.jpg", b"picture", "image/jpeg")


def test_a_bucket_that_accepts_connections_but_never_answers_raises_store_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(name, "x")
        with pytest.raises(StoreFailed, match="expected a bucket"):
            open_store("s3://bucket", request_s=0.2).put("road/e.jpg", b"picture", "image/jpeg")


@pytest.mark.parametrize("address", ["s3://", "s3://bucket?region=x", "s3://key@bucket", "gs://bucket", "file:///e"])
def test_an_address_of_another_kind_of_store_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET"):
        open_store(address)


class TestMemory(EvidenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        return MemoryStore()


class TestEncrypted(EvidenceStoreContract):
    @pytest.fixture
    def inner(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def store(self, inner: MemoryStore, tmp_path: Path) -> EvidenceStore:
        add_key(tmp_path / "keys", "first")
        return EncryptedStore(inner, read_keys(tmp_path / "keys"))

    def test_an_encrypted_store_writes_no_plain_bytes_of_a_picture(
        self, store: EvidenceStore, inner: MemoryStore
    ) -> None:
        store.put("road/e.jpg", b"a picture of somebody", "image/jpeg")
        assert b"somebody" not in contents(inner, "road/e.jpg")

    def test_a_new_key_encrypts_new_files_and_the_old_key_still_opens_old_ones(
        self, store: EvidenceStore, inner: MemoryStore, tmp_path: Path
    ) -> None:
        inner.put("road/plain.jpg", b"from before", "image/jpeg")
        store.put("road/a.jpg", b"old", "image/jpeg")
        add_key(tmp_path / "keys", "second")
        rotated = EncryptedStore(inner, read_keys(tmp_path / "keys"))
        rotated.put("road/b.jpg", b"new", "image/jpeg")
        found = [contents(rotated, f"road/{name}.jpg") for name in ("plain", "a", "b")]
        assert found == [b"from before", b"old", b"new"]
        with pytest.raises(StoreFailed, match="expected this key in the key file"):
            store.open("road/b.jpg")

    @pytest.mark.parametrize("at", [9, 12, 30, -1])
    def test_opening_an_encrypted_file_fails_if_its_bytes_or_its_name_were_changed(
        self, store: EvidenceStore, inner: MemoryStore, at: int
    ) -> None:
        store.put("road/a.jpg", b"picture", "image/jpeg")
        sealed = bytearray(contents(inner, "road/a.jpg"))
        inner.put("road/b.jpg", bytes(sealed), "image/jpeg")  # a file under the name of another one
        sealed[at] ^= 1
        inner.put("road/a.jpg", bytes(sealed), "image/jpeg")
        for name in ("road/a.jpg", "road/b.jpg"):
            with pytest.raises((EvidenceChanged, StoreFailed)):
                store.open(name)

    def test_a_legal_hold_is_readable_without_the_key(self, store: EvidenceStore, inner: MemoryStore) -> None:
        store.put("holds/case-1.json", b"{}", "application/json")
        assert contents(inner, "holds/case-1.json") == contents(store, "holds/case-1.json") == b"{}"

    def test_a_new_encryption_key_file_is_private_and_the_error_for_an_invalid_one_quotes_no_key(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "keys"
        add_key(file, "first")
        assert file.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigError, match="an id that the file does not have yet"):
            add_key(file, "first")
        for text in ("", "first c2hvcnQ=", "first not-base64", file.read_text() * 2):
            file.write_text(text)
            with pytest.raises(ConfigError, match="a key of 32 bytes") as raised:
                read_keys(file)
            assert "c2hvcnQ" not in str(raised.value)

    def test_the_environment_variable_with_the_key_file_encrypts_the_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_key(tmp_path / "keys", "first")
        monkeypatch.setenv(KEY_FILE, str(tmp_path / "keys"))
        open_store(str(tmp_path / "evidence")).put("road/a.jpg", b"somebody", "image/jpeg")
        assert b"somebody" not in (tmp_path / "evidence" / "road" / "a.jpg").read_bytes()


class TestFolder(EvidenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> EvidenceStore:
        return FolderStore(tmp_path / "evidence")

    def test_the_evidence_folder_holds_only_complete_pictures(self, store: EvidenceStore, tmp_path: Path) -> None:
        kept = store.put("road/e.jpg", b"picture", "image/jpeg")
        files = [p for p in (tmp_path / "evidence").rglob("*") if p.is_file()]
        assert [p.as_uri() for p in files] == [kept.url]

    def test_a_symbolic_link_out_of_the_evidence_folder_is_not_followed(
        self, store: EvidenceStore, tmp_path: Path
    ) -> None:
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

    def test_a_prune_removes_the_incomplete_file_of_a_killed_process_after_an_hour(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        kept = store.put("road/e.jpg", b"picture", "image/jpeg")
        child = os.fork()
        if not child:
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            store.put("road/e.jpg", b"half", "image/jpeg")
        os.waitpid(child, 0)
        (part,) = (path for path in tmp_path.rglob("*") if path.name.endswith(".part"))
        clock = ManualClock(started_ns=part.stat().st_mtime_ns)
        for age_s, is_left in ((PART_NS / 1e9, True), (1.0, False)):
            clock.advance(age_s)
            asyncio.run(prune(MemoryLog(), store, RetentionPolicy(), clock, "test"))
            assert part.exists() is is_left
        assert [one.name for one in store.list()] == [kept.name]

    def test_a_full_disk_leaves_no_incomplete_evidence_picture(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreFailed, match="No space left"):
            FolderStore(tmp_path).put("road/e.jpg", b"picture", "image/jpeg")
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
