"""Tests of the store: lanes, epochs, bounds, and committed rows after a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolError
from edge_agent.spool.expiry import EXPIRED_AT_ONCE, merged
from edge_agent.spool.schema import Depth, Row
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import Heartbeat, WithheldInterval

MB = 1_000_000


def row(seq: int, *, name: str = "a", size: int = 1000, account: str = "", at_ns: int = 0) -> Row:
    return Row("frame", name, 5, seq, at_ns or seq, b"x" * size, account=account)


def accounts(spool: SpoolStore) -> list[WithheldInterval]:
    """Return the counts of withheld frames in the spool's status rows, in order."""
    return [account for row in spool.others(0, 1000) for account in decode(Heartbeat, row.record).accounts]


@pytest.fixture
def spool(tmp_path: Path) -> SpoolStore:
    return SpoolStore(tmp_path / "spool.db", "agent")


def test_spool_rows_are_returned_unchanged_and_in_order(spool: SpoolStore) -> None:
    spool.keep([row(0), row(1, account="0-0 still=1")])
    spool.keep([row(2, name="b")])
    found = spool.settle_live(0, 10)
    assert [(r.name, r.seq, r.record, r.account) for r in found] == [
        ("a", 0, b"x" * 1000, ""),
        ("a", 1, b"x" * 1000, "0-0 still=1"),
        ("b", 2, b"x" * 1000, ""),
    ]
    assert spool.depth() == [Depth("a", 5, 0, 1, 2, 2000), Depth("b", 5, 2, 2, 1, 1000)]
    spool.close()


def test_the_lane_of_a_spooled_frame_is_set_only_once(spool: SpoolStore) -> None:
    spool.keep([row(i) for i in range(4)])
    assert [r.seq for r in spool.settle_live(0, 2)] == [0, 1]
    assert [r.seq for r in spool.settle_late(1_000, 10)] == [2, 3]
    assert spool.settle_live(0, 10) == spool.settle_late(1_000, 10) == []
    live, late = spool.offered(LIVE, 0, 10), spool.offered(LATE, 0, 10)
    assert [r.seq for r in live] == [0, 1]
    assert [r.seq for r in late] == [2, 3]
    spool.remove([r.id for r in live + late])
    assert spool.empty
    spool.close()


def test_the_age_of_a_spooled_frame_decides_whether_it_is_live_or_late(spool: SpoolStore) -> None:
    spool.keep([row(i, at_ns=100 + i) for i in range(6)])
    assert [r.seq for r in spool.settle_live(103, 10)] == [3, 4, 5]
    assert [r.seq for r in spool.settle_late(103, 10)] == [0, 1, 2]
    spool.close()


def test_a_clock_set_back_does_not_put_older_frames_on_the_live_lane(tmp_path: Path) -> None:
    spool = SpoolStore(tmp_path / "spool.db", "agent")
    spool.keep([row(i, at_ns=100 + i) for i in range(10)])
    spool.keep([row(i, name="b", at_ns=100 + i) for i in range(10)])
    assert [(r.name, r.seq) for r in spool.settle_live(107, 3)] == [("a", 7), ("a", 8), ("a", 9)]
    spool.remove([r.id for r in spool.offered(LIVE, 0, 10)])
    spool.close()
    spool = SpoolStore(tmp_path / "spool.db", "agent")  # a restart, after the live rows of camera a were removed
    spool.keep([row(10, at_ns=104)])  # kept after the clock was set back
    assert [(r.name, r.seq) for r in spool.settle_live(103, 10)] == [*(("b", i) for i in range(3, 10)), ("a", 10)]
    assert [(r.name, r.seq) for r in spool.settle_late(103, 20)] == [
        *(("a", i) for i in range(7)),
        *(("b", i) for i in range(3)),
    ]
    spool.close()


def test_spooled_frames_offered_to_the_link_do_not_expire(spool: SpoolStore) -> None:
    spool.keep([row(i) for i in range(5)])
    in_hand = spool.settle_late(1_000, 3)
    assert spool.expire("frame", "a", 0, 0) == 2
    assert [r.seq for r in in_hand] == [0, 1, 2]
    assert [(a.first, a.last) for a in accounts(spool)] == [(3, 4)]
    spool.close()


def test_many_spool_rows_expire_in_limited_transactions_and_each_transaction_adds_one_expiry_record(
    spool: SpoolStore,
) -> None:
    spool.keep([row(i, size=10) for i in range(EXPIRED_AT_ONCE + 7)])
    gone = [spool.expire("frame", "a", 20, 0) for _ in range(3)]
    assert gone == [EXPIRED_AT_ONCE, 5, 0]
    found = [(account.first, account.last) for account in accounts(spool)]
    assert found == [(0, EXPIRED_AT_ONCE - 1), (EXPIRED_AT_ONCE, EXPIRED_AT_ONCE + 4)]
    assert spool.depth() == [Depth("a", 5, EXPIRED_AT_ONCE + 5, EXPIRED_AT_ONCE + 6, 2, 20)]
    spool.close()


def test_the_first_frame_number_in_the_spool_depth_includes_frames_withheld_before_the_first_stored_row(
    spool: SpoolStore,
) -> None:
    spool.keep([row(7, account="3-6 still=4", size=10), row(9, account="8-8 rate=1", size=20)])
    spool.keep([Row("frame", "a", 6, 0, 0, b"new epoch")])
    assert spool.depth() == [Depth("a", 5, 3, 9, 2, 30), Depth("a", 6, 0, 0, 1, 9)]
    spool.remove([spool.settle_live(0, 1)[0].id])
    assert spool.depth()[0] == Depth("a", 5, 8, 9, 1, 20)
    spool.close()


def test_numbers_of_capture_runs_in_a_spool_increase_even_when_the_clock_goes_back(spool: SpoolStore) -> None:
    assert spool.begin_epoch("a", "frame", 1000) == 1000
    assert spool.begin_epoch("a", "frame", 500) == 1001
    assert spool.begin_epoch("b", "frame", 500) == 500
    spool.close()


def test_expiry_deletes_the_oldest_spool_rows_and_accounts_for_their_frame_numbers(spool: SpoolStore) -> None:
    spool.keep([row(2, account="0-1 still=2"), row(3), row(4), row(5)])
    assert len(spool.settle_live(0, 1)) == 1  # offered: Kafka may have it, so it stays
    assert spool.expire("frame", "a", 2500, 0) == 2
    assert [(a.first, a.last, a.counts) for a in accounts(spool)] == [(3, 4, {"expired": 2})]
    assert [r.seq for r in spool.settle_live(0, 10)] == [5]
    assert len(spool.others(0, 10)) == 1
    assert spool.expire("frame", "a", 2500, 0) == 0
    spool.close()


def test_spool_rows_expire_by_age_together_with_the_frames_withheld_before_them(spool: SpoolStore) -> None:
    spool.keep([row(2, account="0-1 still=2", at_ns=10), row(3, at_ns=20)])
    assert spool.expire("frame", "a", MB, 15) == 1
    assert [(a.first, a.last, a.counts) for a in accounts(spool)] == [(0, 2, {"still": 2, "expired": 1})]
    spool.close()


def test_counts_of_withheld_frames_in_adjacent_intervals_are_merged() -> None:
    def account(first: int, last: int) -> WithheldInterval:
        return WithheldInterval(camera="a", epoch=1, first=first, last=last, counts={"expired": last - first + 1})

    joined = merged([account(0, 3), account(4, 4), account(7, 9)])
    assert [(a.first, a.last, a.counts["expired"]) for a in joined] == [(0, 4, 5), (7, 9, 3)]


def test_a_reopened_spool_finds_the_capture_run_that_the_last_process_did_not_close(tmp_path: Path) -> None:
    first = SpoolStore(tmp_path / "spool.db", "agent")
    epoch = first.begin_epoch("a", "frame", 1000)
    first.keep([Row("frame", "a", epoch, 3, 1, b"x")])
    first.note_reported([("a", epoch, 8)])
    first.close()
    second = SpoolStore(tmp_path / "spool.db", "agent")
    (end,) = second.unfinished()
    assert (end.camera, end.epoch, end.last, end.reported, end.clean) == ("a", epoch, 3, 8, False)
    second.end_epoch("frame", end, [])
    assert second.unfinished() == []
    (status,) = second.others(0, 5)
    beat = decode(Heartbeat, status.record)
    assert (beat.service, beat.instance, beat.ended, beat.accounts) == ("agent", "agent", (end,), ())
    second.close()


WRITER = """
import sys
from pathlib import Path
from edge_agent.spool.schema import Row
from edge_agent.spool.store import SpoolStore
spool = SpoolStore(Path(sys.argv[1]), "agent")
for seq in range(100_000):
    spool.keep([Row("frame", "a", 5, seq, seq, b"x" * 20_000)])
    print(seq, flush=True)
"""


def test_committed_spool_rows_survive_a_kill_of_their_writer(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    promised = -1
    while promised < 200:
        promised = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    promised = max([promised, *map(int, rest)])
    spool = SpoolStore(path, "agent")
    kept: list[int] = []
    while rows := spool.settle_live(0, 1_000_000):  # each read has at most ``READ_BYTES``
        kept += [r.seq for r in rows]
    assert kept[: promised + 1] == list(range(promised + 1))
    assert len(kept) <= promised + 2  # the kill may come between a commit and its line
    spool.close()


def test_a_spool_file_that_is_not_a_database_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"this is no database, " * 1000)
    spool = SpoolStore(path, "agent")
    spool.keep([row(0)])
    assert len(list(tmp_path.glob("spool.corrupt-*"))) == 1
    assert [r.seq for r in spool.settle_live(0, 5)] == [0]
    spool.close()


def test_the_error_of_a_spool_on_a_full_disk_names_the_next_step(
    spool: SpoolStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool._db.execute("PRAGMA max_page_count = 20").fetchall()
    with pytest.raises(SpoolError, match="disk is mounted, writable and not full"):
        spool.keep([row(0, size=MB)])
    assert spool.empty
    spool.close()
    with pytest.raises(sqlite3.ProgrammingError):
        spool._db.execute("SELECT 1")
