"""A damaged spool gives up what can still be read, says what is lost, and is never read as if it were whole."""

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
from edge_agent.spool import opening
from edge_agent.spool.salvage import SKIPPED_IDS, Lost
from edge_agent.spool.schema import PAGE_BYTES, Row
from edge_agent.spool.spool import Spool
from ingest.contract.identity import LATE, LIVE

ROWS = 400
SIZE = 6000
BLOCK = 4096
"""What a card loses at once."""


def record(seq: int) -> bytes:
    return random.Random(seq).randbytes(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool of one camera's frames, of which the first ten are settled and two of these have gone live."""
    spool = Spool(tmp_path / "spool.db")
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
    """Overwrite what SQLite calls page ``page``."""
    overwrite(path, range(page - 1, page), size=PAGE_BYTES)


def read_back(spool: Spool) -> list[Row]:
    """Return every frame, trying again after each mending."""
    for _ in range(5):
        with contextlib.suppress(SpoolUnavailable):
            rows = spool.offered(LIVE, 0, ROWS) + spool.offered(LATE, 0, ROWS)
            return sorted(rows + spool.settle_late(ROWS, ROWS), key=lambda row: row.id)
    raise AssertionError("mended for ever")


def named(lost: tuple[Lost, ...]) -> set[int]:
    return {seq for each in lost for seq in range(each.first, each.last + 1)}


@pytest.mark.parametrize("seed", range(12))
def test_what_is_whole_is_saved_and_what_is_not_is_named(path: Path, seed: int) -> None:
    blocks = path.stat().st_size // BLOCK
    start = random.Random(seed).randrange(20, blocks - 8)
    overwrite(path, range(start, start + 1 + seed % 6), seed)
    spool = Spool(path)
    found = read_back(spool)
    assert all(row.record == record(row.seq) for row in found)  # nothing else is ever sent
    assert [row.id for row in found] == [row.seq + 1 for row in found]
    missing = set(range(ROWS)) - {row.seq for row in found}
    assert len(missing) < 120  # a block holds a row at the most, or points to so many
    lost = set().union(*(named(each.lost) for each in spool.recoveries))
    assert missing == lost or not all(each.complete for each in spool.recoveries)
    assert missing <= lost or not all(each.complete for each in spool.recoveries)
    assert bool(spool.recoveries) == bool(list(path.parent.glob("spool.corrupt-*")))
    if missing:
        assert spool.recoveries
    spool.keep([Row("frame", "a", 1000, ROWS, ROWS, b"new")])
    (new,) = spool.settle_live(ROWS, 5)
    assert new.id > ROWS + 1  # an id that the sender may still have in flight is never given again
    spool.close()


def test_lanes_epochs_and_accounts_are_saved_too(path: Path) -> None:
    blocks = path.stat().st_size // BLOCK
    overwrite(path, range(blocks - 40, blocks - 38))
    spool = Spool(path)
    found = read_back(spool)
    assert len(found) < ROWS
    assert [row.seq for row in spool.offered(LIVE, 0, ROWS)] == [8, 9]
    (end,) = spool.unfinished()
    assert (end.epoch, end.last, end.clean) == (1000, ROWS - 1, False)  # the ledger misses what is lost
    assert [row.record for row in spool.others(0, 5)] == [b"an account"]
    (recovery,) = spool.recoveries
    lost = recovery.lost[0]
    assert re.search(rf"{len(found) + 1} rows saved, lost a/1000/{lost.first}\.\.{lost.last}", str(recovery))
    assert recovery.aside.exists()
    spool.close()


def test_a_row_that_only_its_checksum_tells_to_be_damaged_is_not_sent(path: Path) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE outbox SET record = zeroblob(?) WHERE seq = 77", (SIZE,))
    db.close()
    spool = Spool(path)
    found = read_back(spool)
    assert {row.seq for row in found} == set(range(ROWS)) - {77}
    assert spool.recoveries[0].lost == (Lost("a", 1000, 77, 77),)
    assert spool.recoveries[0].complete
    spool.close()


def test_of_a_file_without_its_first_pages_nothing_is_left_and_that_is_said(path: Path) -> None:
    overwrite(path, range(12))
    spool = Spool(path)
    with_nothing = read_back(spool)
    assert with_nothing == []
    (recovery,) = spool.recoveries
    assert not recovery.complete
    assert "0 rows saved" in str(recovery)
    assert spool.unfinished() == []  # that its epoch never ended is for the ledger to see
    spool.close()


def test_epochs_go_on_upwards_when_only_the_rows_are_left(path: Path) -> None:
    db = sqlite3.connect(path)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'epochs'").fetchone()
    (index,) = db.execute(
        "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'epochs' AND type = 'index'"
    ).fetchone()
    (marks,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gone_live'").fetchone()
    db.close()
    for page in (root, index, marks):
        overwrite_page(path, page)
    spool = Spool(path)
    assert len(read_back(spool)) == ROWS
    assert spool.unfinished() == []
    assert spool.begin_epoch("a", "frame", 500) == 1001
    spool.keep([Row("frame", "a", 1001, 0, 10 * ROWS, b"new")])
    spool.close()


def test_ids_that_nobody_remembers_are_left_far_behind(path: Path) -> None:
    db = sqlite3.connect(path)
    (sequence,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone()
    db.close()
    overwrite_page(path, sequence)
    spool = Spool(path)
    assert len(read_back(spool)) == ROWS
    spool.keep([Row("frame", "a", 1000, ROWS, ROWS, b"new")])
    assert spool.settle_live(ROWS, 5)[0].id > SKIPPED_IDS
    spool.close()


def test_without_its_mark_nothing_overtakes_what_has_gone_live(path: Path) -> None:
    db = sqlite3.connect(path)
    (marks,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gone_live'").fetchone()
    db.close()
    overwrite_page(path, marks)
    spool = Spool(path)
    assert spool.settle_live(0, ROWS) == []  # which of them are older than what went live, nobody knows
    assert len(spool.settle_late(0, ROWS)) == ROWS - 10
    spool.close()


def test_damage_that_shows_while_running_is_mended_while_running(path: Path) -> None:
    spool = Spool(path)
    overwrite(path, range(60, 63))
    spool._db.execute("PRAGMA cache_size = 1")  # type: ignore[union-attr]
    with pytest.raises(SpoolUnavailable) as error:
        spool.settle_late(ROWS, ROWS)
    assert error.value.why == "mended"
    found = spool.settle_late(ROWS, ROWS)
    assert ROWS - 20 < len(found) < ROWS
    spool.close()


@pytest.mark.parametrize("moment", range(3))
def test_a_crash_in_the_middle_of_mending_loses_nothing(path: Path, moment: int) -> None:
    """Before the exchange, with the damaged file moved aside, and with its companions left behind."""
    whole = Spool(path)
    whole.close()
    opening.salvaged(path).write_bytes(b"half of it") if moment == 0 else shutil.copy(path, opening.salvaged(path))
    if moment:
        path.rename(path.with_suffix(".corrupt-1"))
    if moment == 2:
        Path(f"{path}-wal").write_bytes(os.urandom(5000))
    spool = Spool(path)
    assert len(read_back(spool)) == ROWS
    assert not opening.salvaged(path).exists()
    spool.close()


def test_a_check_that_takes_too_long_is_left_to_the_rows(path: Path) -> None:
    db = opening.connect(path)
    opening.look_over(db, limit_s=60.0)
    opening.look_over(db, limit_s=0.0)
    overwrite(path, range(30, 60))
    db.execute("PRAGMA cache_size = 1")
    with pytest.raises(sqlite3.DatabaseError):
        opening.look_over(db, limit_s=60.0)
    db.close()


def test_only_the_newest_damaged_file_is_kept(path: Path) -> None:
    for seed in range(2):
        overwrite(path, range(30, 34), seed)
        spool = Spool(path)
        read_back(spool)
        assert spool.recoveries
        spool.close()
    kept = [file for file in path.parent.glob("spool.corrupt-*") if not file.name.endswith(("-wal", "-shm"))]
    assert len(kept) == 1


def test_an_index_whose_order_is_lost_is_damage_and_no_failing_disk(tmp_path: Path) -> None:
    """Its pages are whole, so that no check of them finds it; then an epoch is found twice in it."""
    spool = Spool(tmp_path / "spool.db")
    spool.keep([Row("frame", name, 5, seq, seq, b"x") for name in "ab" for seq in range(5)])
    db = spool._db
    assert db is not None
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outbox_depth'").fetchone()
    spool.close()
    with spool.path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES + 8)  # behind the header of a leaf, where its cells are
        first, *rest, last = struct.unpack(">10H", file.read(20))
        file.seek((page - 1) * PAGE_BYTES + 8)
        file.write(struct.pack(">10H", last, *rest, first))
    spool = Spool(spool.path)
    assert [(depth.name, depth.frames) for depth in spool.depth()] == [("a", 5), ("b", 5)]
    assert [recovery.rows for recovery in spool.recoveries] == [10]
    spool.close()


@pytest.mark.parametrize("damaged", [b"CREATE INDEX outbox_lane OM ", b"CREATE INDEX outbox_lane \xc4N "])
def test_rows_are_saved_though_what_says_how_an_index_is_made_is_damaged(path: Path, damaged: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(b"CREATE INDEX outbox_lane ON ", damaged, 1))
    spool = Spool(path)
    assert [recovery.rows for recovery in spool.recoveries] == [ROWS + 1]
    spool.close()
