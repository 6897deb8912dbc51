"""Tests of salvage: a damaged spool keeps its readable rows, names the lost rows, and never returns damaged rows."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool import file as spool_file
from edge_agent.spool.salvage import SKIPPED_IDS, LostRows
from edge_agent.spool.schema import PAGE_BYTES, Row
from edge_agent.spool.store import SpoolStore
from ingest.contract.identity import LATE, LIVE

ROWS = 400
SIZE = 6000
BLOCK = 4096
"""Number of bytes that a flash card loses together."""


def record(seq: int) -> bytes:
    return random.Random(seq).randbytes(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a spool with frames of one camera: two are live, eight are late, and the others have no lane yet."""
    spool = SpoolStore(tmp_path / "spool.db", "agent")
    epoch = spool.begin_epoch("a", "frame", 1000)
    for first in range(0, ROWS, 50):
        spool.keep([Row("frame", "a", epoch, seq, seq, record(seq)) for seq in range(first, first + 50)])
    spool.settle_live(8, 2)
    spool.settle_late(8, 8)
    spool.keep([Row("status", "agent", 0, 0, 0, b"an account")])
    spool.close()
    return spool.path


def overwrite(path: Path, blocks: range, seed: int = 1, size: int = BLOCK) -> None:
    with path.open("r+b") as file:
        for block in blocks:
            file.seek(block * size)
            file.write(random.Random(seed * 1000 + block).randbytes(size))


def overwrite_page(path: Path, page: int) -> None:
    """Overwrite the page that SQLite numbers ``page``."""
    overwrite(path, range(page - 1, page), size=PAGE_BYTES)


def read_back(spool: SpoolStore) -> list[Row]:
    """Return every frame. Start again after a read that found damage and salvaged the spool."""
    for _ in range(5):
        with contextlib.suppress(SpoolUnavailable):
            rows = spool.offered(LIVE, 0, ROWS) + spool.offered(LATE, 0, ROWS)
            return sorted(rows + spool.settle_late(ROWS, ROWS), key=lambda row: row.id)
    raise AssertionError("each call salvages the file again")


def named(lost: tuple[LostRows, ...]) -> set[int]:
    return {seq for each in lost for seq in range(each.first, each.last + 1)}


@pytest.mark.parametrize("seed", range(12))
def test_salvage_of_a_damaged_spool_saves_intact_rows_and_names_lost_rows(path: Path, seed: int) -> None:
    blocks = path.stat().st_size // BLOCK
    start = random.Random(seed).randrange(20, blocks - 8)
    overwrite(path, range(start, start + 1 + seed % 6), seed)
    spool = SpoolStore(path, "agent")
    found = read_back(spool)
    assert all(row.record == record(row.seq) for row in found)  # no damaged row is ever sent
    assert [row.id for row in found] == [row.seq + 1 for row in found]
    missing = set(range(ROWS)) - {row.seq for row in found}
    assert len(missing) < 120  # a block holds one row, or points to at most this many
    lost = set().union(*(named(each.lost) for each in spool.recoveries))
    assert missing == lost or not all(each.complete for each in spool.recoveries)
    assert missing <= lost or not all(each.complete for each in spool.recoveries)
    assert bool(spool.recoveries) == bool(list(path.parent.glob("spool.corrupt-*")))
    if missing:
        assert spool.recoveries
    spool.keep([Row("frame", "a", 1000, ROWS, ROWS, b"new")])
    (new,) = spool.settle_live(ROWS, 5)
    assert new.id > ROWS + 1  # ids that may be in flight are not reused
    spool.close()


def test_salvage_of_a_damaged_spool_saves_lanes_capture_runs_and_withheld_counts(path: Path) -> None:
    blocks = path.stat().st_size // BLOCK
    overwrite(path, range(blocks - 40, blocks - 38))
    spool = SpoolStore(path, "agent")
    found = read_back(spool)
    assert len(found) < ROWS
    assert [row.seq for row in spool.offered(LIVE, 0, ROWS)] == [8, 9]
    (end,) = spool.unfinished()
    assert (end.epoch, end.last, end.clean) == (1000, ROWS - 1, False)  # the ledger shows the lost rows as missing
    assert [row.record for row in spool.others(0, 5)] == [b"an account"]
    (recovery,) = spool.recoveries
    lost = recovery.lost[0]
    assert re.search(rf"{len(found) + 1} rows saved, lost a/1000/{lost.first}\.\.{lost.last}", str(recovery))
    assert recovery.aside.exists()
    spool.close()


def test_a_spool_row_with_a_wrong_checksum_is_not_sent(path: Path) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE outbox SET record = zeroblob(?) WHERE seq = 77", (SIZE,))
    db.close()
    spool = SpoolStore(path, "agent")
    found = read_back(spool)
    assert {row.seq for row in found} == set(range(ROWS)) - {77}
    assert spool.recoveries[0].lost == (LostRows("a", 1000, 77, 77),)
    assert spool.recoveries[0].complete
    spool.close()


def test_a_spool_file_without_its_first_pages_is_reported_with_zero_saved_rows(path: Path) -> None:
    overwrite(path, range(12))
    spool = SpoolStore(path, "agent")
    assert read_back(spool) == []
    (recovery,) = spool.recoveries
    assert not recovery.complete
    assert "0 rows saved" in str(recovery)
    assert spool.unfinished() == []  # the ledger shows that its epoch never ended
    spool.close()


def test_numbers_of_capture_runs_still_increase_after_a_salvage_that_could_read_only_the_spool_rows(
    path: Path,
) -> None:
    db = sqlite3.connect(path)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'epochs'").fetchone()
    (index,) = db.execute(
        "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'epochs' AND type = 'index'"
    ).fetchone()
    (marks,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gone_live'").fetchone()
    db.close()
    for page in (root, index, marks):
        overwrite_page(path, page)
    spool = SpoolStore(path, "agent")
    assert len(read_back(spool)) == ROWS
    assert spool.unfinished() == []
    assert spool.begin_epoch("a", "frame", 500) == 1001
    spool.keep([Row("frame", "a", 1001, 0, 10 * ROWS, b"new")])
    spool.close()


def test_new_spool_row_ids_start_far_above_the_found_ids_if_the_id_counter_is_damaged(path: Path) -> None:
    db = sqlite3.connect(path)
    (sequence,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone()
    db.close()
    overwrite_page(path, sequence)
    spool = SpoolStore(path, "agent")
    assert len(read_back(spool)) == ROWS
    spool.keep([Row("frame", "a", 1000, ROWS, ROWS, b"new")])
    assert spool.settle_live(ROWS, 5)[0].id > SKIPPED_IDS
    spool.close()


def test_all_waiting_frames_move_to_the_late_lane_if_the_newest_live_frame_is_unknown(path: Path) -> None:
    db = sqlite3.connect(path)
    (marks,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gone_live'").fetchone()
    db.close()
    overwrite_page(path, marks)
    spool = SpoolStore(path, "agent")
    assert spool.settle_live(0, ROWS) == []  # any of them may be older than a frame that went live
    assert len(spool.settle_late(0, ROWS)) == ROWS - 10
    spool.close()


def test_a_spool_found_damaged_while_in_use_is_salvaged_at_once(path: Path) -> None:
    spool = SpoolStore(path, "agent")
    overwrite(path, range(60, 63))
    spool._db.execute("PRAGMA cache_size = 1")  # type: ignore[union-attr]
    with pytest.raises(SpoolUnavailable) as error:
        spool.settle_late(ROWS, ROWS)
    assert error.value.why == "salvaged"
    found = spool.settle_late(ROWS, ROWS)
    assert ROWS - 20 < len(found) < ROWS
    spool.close()


@pytest.mark.parametrize("moment", range(3))
def test_a_crash_during_the_salvage_of_a_spool_loses_no_row(path: Path, moment: int) -> None:
    """Crash before or after the damaged file is moved aside, or while its write-ahead log is still in place."""
    whole = SpoolStore(path, "agent")
    whole.close()
    spool_file.salvaged(path).write_bytes(b"half a file") if moment == 0 else shutil.copy(
        path, spool_file.salvaged(path)
    )
    if moment:
        path.rename(path.with_suffix(".corrupt-1"))
    if moment == 2:
        Path(f"{path}-wal").write_bytes(os.urandom(5000))
    spool = SpoolStore(path, "agent")
    assert len(read_back(spool)) == ROWS
    assert not spool_file.salvaged(path).exists()
    spool.close()


def test_the_structure_check_of_a_spool_file_stops_at_its_time_limit(path: Path) -> None:
    db = spool_file.connect(path)
    spool_file.check_structure(db, limit_s=60.0)
    spool_file.check_structure(db, limit_s=0.0)
    overwrite(path, range(30, 60))
    db.execute("PRAGMA cache_size = 1")
    with pytest.raises(sqlite3.DatabaseError):
        spool_file.check_structure(db, limit_s=60.0)
    db.close()


def test_only_the_newest_damaged_spool_file_is_kept(path: Path) -> None:
    for seed in range(2):
        overwrite(path, range(30, 34), seed)
        spool = SpoolStore(path, "agent")
        read_back(spool)
        assert spool.recoveries
        spool.close()
    kept = [file for file in path.parent.glob("spool.corrupt-*") if not file.name.endswith(("-wal", "-shm"))]
    assert len(kept) == 1


def test_an_unordered_index_counts_as_a_damaged_spool_file_and_not_as_a_failing_disk(tmp_path: Path) -> None:
    """The pages of the index are valid, so the structure check passes. The row counts then find an epoch twice."""
    spool = SpoolStore(tmp_path / "spool.db", "agent")
    spool.keep([Row("frame", name, 5, seq, seq, b"x") for name in "ab" for seq in range(5)])
    db = spool._db
    assert db is not None
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outbox_depth'").fetchone()
    spool.close()
    with spool.path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES + 8)  # the cell pointers follow the header of a leaf page
        first, *rest, last = struct.unpack(">10H", file.read(20))
        file.seek((page - 1) * PAGE_BYTES + 8)
        file.write(struct.pack(">10H", last, *rest, first))
    spool = SpoolStore(spool.path, "agent")
    assert [(depth.name, depth.frames) for depth in spool.depth()] == [("a", 5), ("b", 5)]
    assert [recovery.rows for recovery in spool.recoveries] == [10]
    spool.close()


@pytest.mark.parametrize("damaged", [b"CREATE INDEX outbox_lane OM ", b"CREATE INDEX outbox_lane \xc4N "])
def test_salvage_saves_all_spool_rows_if_an_index_definition_is_damaged(path: Path, damaged: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(b"CREATE INDEX outbox_lane ON ", damaged, 1))
    spool = SpoolStore(path, "agent")
    assert [recovery.rows for recovery in spool.recoveries] == [ROWS + 1]
    spool.close()
