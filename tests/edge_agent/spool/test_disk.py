"""A disk that is full, read-only or gone is said once as it begins and once as it ends; sending goes on meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool import disk as disk_module
from edge_agent.spool.disk import Disk
from edge_agent.spool.refused import Refused
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.status import accounts_row, notice_row
from ingest.contract.codec import decode
from ingest.contract.records import Account, Heartbeat
from ingest.runtime.clock import SystemClock
from ingest.site import DiskConfig
from tests.edge_agent.smalldisk import SmallDisk

MIB = 1024 * 1024
CLOCK = SystemClock()


def frame(seq: int, size: int = 400_000) -> Row:
    return Row("frame", "a", 5, seq, seq + 1, b"x" * size)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(disk_module, "RETRY_S", 0.01)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", size_mb=40) as small:
        yield small


class Rig:
    """A spool on a small disk, and what it tells."""

    def __init__(self, folder: Path, **config: int) -> None:
        self.spool = Spool(folder / "spool.db", clock=CLOCK)
        settings = {"min_free_bytes": 0, "reserve_bytes": 8 * MIB, "max_bytes": 64 * MIB, **config}
        self.disk = Disk(self.spool, DiskConfig(**settings), lambda text: notice_row("test", text, CLOCK), CLOCK)
        self.next = 0

    async def promise(self) -> int:
        """Promise frames until one is refused. Return how many there are."""
        while True:
            try:
                await self.disk.promise([frame(self.next)])
            except SpoolUnavailable:
                return self.next
            self.next += 1

    async def promise_all(self) -> int:
        """Promise frames until there is no room left, with what the write-ahead log gives back, either."""
        kept = -1
        while kept != await self.promise():
            kept = self.next
            await self.look()
        return kept

    async def send(self, count: int) -> None:
        """Do what the sender does with some of the backlog."""
        for _ in range(count):
            rows = await self.disk(self.spool.settle_late, CLOCK.now_ns(), 1)
            await self.disk(self.spool.remove, [row.id for row in rows])

    async def told(self) -> list[str]:
        rows = await self.disk(self.spool.others, 0, 100)
        return [decode(Heartbeat, row.record).reason for row in rows]

    async def look(self) -> None:
        await self.disk.look(self.expire)

    def expire(self, excess: int) -> int:
        def tell(accounts: list[Account], kind: str) -> Row:
            return accounts_row("test", accounts, CLOCK, kind)

        return sum(self.spool.expire_over(excess, [], tell).values())


@pytest.fixture
async def rig(small: SmallDisk) -> AsyncIterator[Rig]:
    rig = Rig(small.folder)
    await rig.disk.open()
    yield rig
    await rig.disk.close()


async def test_when_the_disk_is_full_frames_are_refused_sending_goes_on_and_room_comes_back(rig: Rig) -> None:
    kept = await rig.promise_all()
    assert 40 < kept < 100
    assert rig.disk.trouble is not None
    assert rig.disk.trouble.why == "full"
    for _ in range(3):  # it is said once
        await rig.look()
        assert await rig.promise() == kept
    before = len(await rig.told())
    assert (await rig.told())[-1].startswith("disk full: frames are withheld as overload")
    await rig.send(25)  # settles and removes: both are writes
    await rig.look()
    assert rig.disk.trouble is None
    assert [text.split(" after")[0] for text in (await rig.told())[before:]] == ["disk is back"]
    assert await rig.promise() > kept + 10


async def test_whatever_others_leave_of_the_disk_the_ledger_s_records_have_room(rig: Rig, small: SmallDisk) -> None:
    await rig.disk.promise([frame(0)])
    small.fill()
    assert await rig.promise() == 0
    await rig.disk(rig.spool.end_epoch, "a", 5, [notice_row("test", "ended", CLOCK)])
    for number in range(50):
        await rig.disk(rig.spool.keep, [notice_row("test", f"account {number}", CLOCK)])
    await rig.send(1)
    small.empty()
    await rig.look()
    assert rig.disk.trouble is None
    assert await rig.promise() > 30


async def test_readings_wait_for_room_and_are_kept_then(rig: Rig, small: SmallDisk) -> None:
    small.fill()
    await rig.promise()
    waiting = asyncio.create_task(rig.disk(rig.spool.keep, [Row("readings", "s", 5, 0, 1, b"r" * 1000)]))
    await rig.look()
    assert not waiting.done()
    small.empty()
    await rig.look()
    await waiting
    assert rig.spool.used_bytes() >= 1000


async def test_a_read_only_disk_is_survived(rig: Rig, small: SmallDisk) -> None:
    await rig.disk.promise([frame(0)])
    rig.spool._let_go()  # a disk with files that are written to is not made read-only by a command
    small.read_only(True)
    rig.next = 1
    assert await rig.promise() == 1
    assert rig.disk.trouble is not None
    assert rig.disk.trouble.why == "read-only"
    await rig.look()
    settling = asyncio.create_task(rig.disk(rig.spool.settle_late, CLOCK.now_ns(), 5))  # waits, since no lane holds
    await rig.look()
    assert not settling.done()
    small.read_only(False)
    await rig.look()
    assert rig.disk.trouble is None
    assert [row.seq for row in await settling] == [0]
    said = await rig.told()
    assert said[0].startswith("disk read-only")
    assert "back" in said[1]
    assert await rig.promise() > 40


async def test_a_disk_that_the_kernel_makes_read_only_is_survived(rig: Rig) -> None:
    await rig.disk.promise([frame(0)])
    rig.spool._db.execute("PRAGMA query_only = 1")  # type: ignore[union-attr]
    rig.next = 1
    assert await rig.promise() == 1
    assert rig.disk.trouble is not None
    assert rig.disk.trouble.why == "read-only"
    assert len(await rig.disk.attempt(rig.spool.depth)) == 1  # what waits can still be told
    rig.spool._db.execute("PRAGMA query_only = 0")  # type: ignore[union-attr]
    await rig.look()
    assert rig.disk.trouble is None


async def test_an_agent_may_start_on_a_disk_that_is_full(small: SmallDisk) -> None:
    small.fill()
    rig = Rig(small.folder)
    await rig.disk.open()
    assert await rig.promise() == 0
    await rig.look()
    small.empty()
    await rig.look()
    assert rig.disk.trouble is None
    assert await rig.promise() > 30
    await rig.disk.close()


async def test_the_oldest_give_way_before_the_disk_is_full_and_the_newest_are_kept(small: SmallDisk) -> None:
    rig = Rig(small.folder, min_free_bytes=16 * MIB)
    await rig.disk.open()
    for seq in range(60):
        await rig.disk.promise([frame(seq)])
        await rig.look()
    assert rig.disk.trouble is None
    (depth,) = rig.spool.depth()
    assert depth.last == 59
    assert 10 < depth.frames < 50
    beats = [decode(Heartbeat, row.record) for row in await rig.disk(rig.spool.others, 0, 100)]
    expired = {seq for beat in beats for a in beat.accounts for seq in range(a.first, a.last + 1)}
    assert expired == set(range(depth.first))
    small.fill(leave_bytes=10 * MIB)  # others take more
    for _ in range(5):
        await rig.look()
    assert disk_module.measure(small.folder) >= 15 * MIB
    assert rig.spool.depth()[0].frames < depth.frames
    await rig.disk.close()


async def test_over_its_bound_with_nothing_that_may_expire_frames_are_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_bytes=4 * MIB)
    await rig.disk.open()
    for seq in range(20):
        await rig.disk.promise([frame(seq)])
    offered = await rig.disk(rig.spool.settle_late, CLOCK.now_ns(), 100)
    await rig.look()
    assert rig.disk.trouble is not None
    rig.next = 20
    assert await rig.promise() == 20
    await rig.disk(rig.spool.remove, [row.id for row in offered[:15]])
    await rig.look()
    assert rig.disk.trouble is None
    await rig.disk.close()


async def test_at_the_end_what_is_in_hand_may_use_what_was_held_back(rig: Rig) -> None:
    kept = await rig.promise()
    rig.disk.give_up()
    await rig.disk.promise([frame(kept)])
    assert rig.spool.depth()[0].last == kept
    rig.next = kept + 1
    assert await rig.promise() > kept + 3  # and then nothing waits any more
    with pytest.raises(SpoolUnavailable):
        await rig.disk(rig.spool.keep, [frame(0)])


async def test_frames_that_come_together_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    groups: list[int] = []
    keep = rig.spool.keep

    def counting(rows: list[Row]) -> None:
        groups.append(len(rows))
        keep(rows)

    monkeypatch.setattr(rig.spool, "keep", counting)
    await asyncio.gather(*(rig.disk.promise([frame(seq, 1000)]) for seq in range(200)))
    assert sum(groups) == 200
    assert len(groups) < 10
    assert rig.spool.depth()[0].frames == 200
    await rig.disk.close()


async def test_a_damaged_spool_is_mended_and_told_of_and_the_work_goes_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for seq in range(30):
        await rig.disk.promise([frame(seq)])
    await rig.disk.close()
    with (tmp_path / "spool.db").open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xa5" * 20_000)
    rig = Rig(tmp_path)
    rows: list[Row] = []
    while more := await rig.disk(rig.spool.settle_late, CLOCK.now_ns(), 100):
        rows += more
    assert 25 <= len(rows) < 30
    await rig.look()
    (said,) = await rig.told()
    assert said.startswith(f"spool was damaged: {len(rows)} rows saved, lost a/5/")
    await rig.disk.close()


CHILD = """
import resource, signal, sys
from pathlib import Path
from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
spool = Spool(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
kept = 0
try:
    while True:
        spool.keep([Row("frame", "a", 5, kept, kept + 1, b"x" * 50_000)])
        kept += 1
except SpoolUnavailable as error:
    print(error.why)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.keep([Row("frame", "a", 5, kept, kept + 1, b"x" * 50_000)])
print(kept + 1, spool.depth()[0].frames)
"""


def test_a_write_that_fails_for_another_reason_is_no_end_either(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "spool.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    why, promised, kept = done.stdout.split()
    assert why == "failing"
    assert int(promised) == int(kept) > 20


def account(first: int, last: int, **counts: int) -> Account:
    return Account(camera="a", epoch=5, first=first, last=last, counts=counts)


def test_what_was_refused_is_accounted_for_with_the_next_frame_that_is_kept() -> None:
    refused = Refused("a", 5)
    assert refused.joined(account(0, 1, still=2)) == account(0, 1, still=2)
    refused.add(2, account(0, 1, still=2))
    refused.add(3, None)
    refused.add(6, account(4, 5, rate=2))
    assert refused.last == 6
    assert refused.joined(account(7, 8, still=2)) == account(0, 8, still=4, rate=2, overload=3)
    assert refused.joined(None) == account(0, 6, still=2, rate=2, overload=3)
    refused.told()
    assert refused.joined(None) is None
    assert refused.last == -1
