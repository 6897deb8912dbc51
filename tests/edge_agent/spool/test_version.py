"""Tests of the version of a spool's tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolVersionMismatch
from edge_agent.spool.file import prepare
from edge_agent.spool.schema import PAGE_BYTES, SCHEMA_VERSION, Row
from edge_agent.spool.store import SpoolStore


@pytest.mark.parametrize("version", [0, 1, SCHEMA_VERSION + 1])
def test_a_spool_of_another_version_is_refused_and_left_unchanged(tmp_path: Path, version: int) -> None:
    path = tmp_path / "spool.db"
    store = SpoolStore(path, "agent")
    store.keep([Row("frame", "a", 5, 0, 1, b"x")])
    store.close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    before = list(db.iterdump())
    db.close()
    expected = rf"spool\.db: spool version {version}, expected {SCHEMA_VERSION}\. Run the release that wrote"
    with pytest.raises(SpoolVersionMismatch, match=expected) as error:
        SpoolStore(path, "agent")
    assert (error.value.found, error.value.expected) == (version, SCHEMA_VERSION)
    db = sqlite3.connect(path)
    assert list(db.iterdump()) == before
    assert db.execute("PRAGMA user_version").fetchone() == (version,)
    db.close()
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_a_new_spool_has_the_current_version_and_needs_no_temporary_files(tmp_path: Path) -> None:
    """In a container with a read-only file system, an agent can write only to its own folder."""
    store = SpoolStore(tmp_path / "spool.db", "agent")
    with store.transaction() as db:
        names = ("user_version", "page_size", "journal_mode", "temp_store")
        found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    assert found == {"user_version": SCHEMA_VERSION, "page_size": PAGE_BYTES, "journal_mode": "wal", "temp_store": 2}
    store.close()


def test_a_kill_while_the_spool_tables_are_created_leaves_a_usable_spool_file(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    db = sqlite3.connect(path)
    db.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_INDEX else sqlite3.SQLITE_OK
    )
    with pytest.raises(sqlite3.DatabaseError):
        prepare(db, path)
    db.close()
    store = SpoolStore(path, "agent")
    store.keep([Row("frame", "a", 5, 0, 1, b"x")])
    assert [depth.frames for depth in store.depth()] == [1]
    store.close()
