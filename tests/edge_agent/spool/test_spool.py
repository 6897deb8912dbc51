"""Tests of the spool on a disk that is full, read-only or gone: one notice as the fault begins, one as it ends."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode, encode
from ingest.contract.records import GOOD, EpochEnd, Heartbeat, Readings, WithheldInterval
from ingest.runtime.clock import SystemClock
from ingest.site import DiskConfig
from tests.edge_agent.smalldisk import SmallDisk

MIB = 1024 * 1024
CLOCK = SystemClock()
ENDED = EpochEnd(camera="a", epoch=5, last=0, clean=True, reported=0)
READING = Readings(
    sensor="s", epoch=5, seq=0, quantity="t", unit="Cel", times_ns=(1,), values=(1.0,), quality=(GOOD,)
)
READINGS = Row("readings", "s", 5, 0, CLOCK.now_ns(), encode(READING))


def frame(seq: int, size: int = 400_000) -> Row:
    return Row("frame", "a", 5, seq, CLOCK.now_ns(), b"x" * size)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", size_mb=40) as small:
        yield small


class Rig:
    """A spool on a small disk."""

    def __init__(self, folder: Path, **config: int) -> None:
        self.store = SpoolStore(folder / "spool.db", "test", clock=CLOCK)
        settings = {"min_free_bytes": 0, "reserve_bytes": 8 * MIB, "max_bytes": 64 * MIB, **config}
        self.metrics = AgentMetrics(CollectorRegistry())
        disk = DiskConfig(**settings)
        self.spool = Spool(self.store, disk, clock=CLOCK, metrics=self.metrics, patience_s=0.01, retry_s=0.01)
        self.next = 0

    async def keep(self) -> int:
        """Keep frames until a frame is refused. Return the number of kept frames."""
        while True:
            try:
                await self.spool.keep([frame(self.next)])
            except SpoolUnavailable:
                return self.next
            self.next += 1

    async def keep_all(self) -> int:
        """Keep frames until a frame is refused although the write-ahead log has been written back."""
        kept = -1
        while kept != await self.keep():
            kept = self.next
            await self.spool.maintain()
        return kept

    async def send(self, count: int) -> None:
        """Put frames on the late lane and remove them, as the sender does after an acknowledgement."""
        for _ in range(count):
            rows = await self.spool.settle_late(1)
            await self.spool.remove([row.id for row in rows])

    async def notices(self) -> list[str]:
        """Return the reasons in status rows."""
        beats = [decode(Heartbeat, row.record) for row in await self.spool.others(0, 100)]
        return [beat.reason for beat in beats if beat.reason]


@pytest.fixture
async def rig(small: SmallDisk) -> AsyncIterator[Rig]:
    rig = Rig(small.folder)
    await rig.spool.open()
    yield rig
    await rig.spool.close()


async def test_the_spool_refuses_frames_on_a_full_disk_until_sending_makes_room(rig: Rig) -> None:
    kept = await rig.keep_all()
    assert 40 < kept < 100
    assert rig.spool.trouble is not None
    assert rig.spool.trouble.why == "full"
    for _ in range(3):  # one notice for one outage
        await rig.spool.maintain()
        assert await rig.keep() == kept
    before = len(await rig.notices())
    assert (await rig.notices())[-1].startswith("disk full: frames are withheld as overload")
    await rig.send(25)  # assigning a lane and removing rows are both writes
    await rig.spool.maintain()
    assert rig.spool.trouble is None
    assert [text.split(" after")[0] for text in (await rig.notices())[before:]] == ["disk is back"]
    assert await rig.keep() > kept + 10


async def test_status_rows_are_written_into_reserved_disk_space_when_the_disk_is_full(
    rig: Rig, small: SmallDisk
) -> None:
    await rig.spool.keep([frame(0)])
    small.fill()
    assert await rig.keep() == 0
    await rig.spool.end_epoch("frame", ENDED)
    for number in range(50):
        await rig.spool.end_epoch("frame", ENDED, [account(number, number, overload=1)])
    await rig.send(1)
    small.empty()
    await rig.spool.maintain()
    assert rig.spool.trouble is None
    assert await rig.keep() > 30


async def test_sensor_readings_wait_for_room_on_a_full_disk(rig: Rig, small: SmallDisk) -> None:
    small.fill()
    await rig.keep()
    waiting = asyncio.create_task(rig.spool.keep([READINGS], wait_for_room=True))
    await rig.spool.maintain()
    assert not waiting.done()
    small.empty()
    await rig.spool.maintain()
    await waiting
    assert [depth.bytes for depth in await rig.spool.depth("readings")] == [READINGS.size]


async def test_the_spool_stores_and_returns_no_frames_on_a_read_only_disk_until_the_disk_is_writable(
    rig: Rig, small: SmallDisk
) -> None:
    await rig.spool.keep([frame(0)])
    rig.store.disconnect()  # a disk with files open for writing cannot be remounted read-only
    small.read_only(True)
    rig.next = 1
    assert await rig.keep() == 1
    assert rig.spool.trouble is not None
    assert rig.spool.trouble.why == "read-only"
    await rig.spool.maintain()
    settling = asyncio.create_task(rig.spool.settle_late(5))  # waits, because the lane cannot be stored
    await rig.spool.maintain()
    assert not settling.done()
    small.read_only(False)
    await rig.spool.maintain()
    assert rig.spool.trouble is None
    assert [row.seq for row in await settling] == [0]
    notices = await rig.notices()
    assert notices[0].startswith("disk read-only")
    assert "back" in notices[1]
    assert await rig.keep() > 40


async def test_the_number_of_waiting_rows_can_be_read_while_the_spool_database_is_read_only(rig: Rig) -> None:
    await rig.spool.keep([frame(0)])
    rig.store._db.execute("PRAGMA query_only = 1")  # type: ignore[union-attr]
    rig.next = 1
    assert await rig.keep() == 1
    assert rig.spool.trouble is not None
    assert rig.spool.trouble.why == "read-only"
    assert len(await rig.spool.depth()) == 1
    rig.store._db.execute("PRAGMA query_only = 0")  # type: ignore[union-attr]
    await rig.spool.maintain()
    assert rig.spool.trouble is None


async def test_a_spool_can_be_opened_on_a_full_disk(small: SmallDisk) -> None:
    small.fill()
    rig = Rig(small.folder)
    await rig.spool.open()
    assert await rig.keep() == 0
    await rig.spool.maintain()
    small.empty()
    await rig.spool.maintain()
    assert rig.spool.trouble is None
    assert await rig.keep() > 30
    await rig.spool.close()


async def test_the_oldest_frames_expire_before_the_disk_is_full(small: SmallDisk) -> None:
    rig = Rig(small.folder, min_free_bytes=16 * MIB)
    await rig.spool.open()
    for seq in range(60):
        await rig.spool.keep([frame(seq)])
        await rig.spool.maintain()
    assert rig.spool.trouble is None
    (depth,) = await rig.spool.depth()
    assert depth.last == 59
    assert 10 < depth.frames < 50
    beats = [decode(Heartbeat, row.record) for row in await rig.spool.others(0, 100)]
    expired = {seq for beat in beats for a in beat.accounts for seq in range(a.first, a.last + 1)}
    assert expired == set(range(depth.first))
    small.fill(leave_bytes=10 * MIB)  # other files take more room
    for _ in range(5):
        await rig.spool.maintain()
    assert shutil.disk_usage(small.folder).free >= 15 * MIB
    assert (await rig.spool.depth())[0].frames < depth.frames
    await rig.spool.close()


async def test_a_spool_over_its_limit_in_which_no_row_may_expire_refuses_frames(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_bytes=4 * MIB)
    await rig.spool.open()
    for seq in range(20):
        await rig.spool.keep([frame(seq)])
    offered = await rig.spool.settle_late(100)
    await rig.spool.maintain()
    assert rig.spool.trouble is not None
    rig.next = 20
    assert await rig.keep() == 20
    await rig.spool.remove([row.id for row in offered[:15]])
    await rig.spool.maintain()
    assert rig.spool.trouble is None
    await rig.spool.close()


async def test_on_a_full_disk_a_stopping_spool_fills_the_reserved_space_and_then_refuses_frames_without_waiting(
    rig: Rig,
) -> None:
    kept = await rig.keep()
    rig.spool.give_up()
    await rig.spool.keep([frame(kept)])
    assert (await rig.spool.depth())[0].last == kept
    rig.next = kept + 1
    assert await rig.keep() > kept + 3  # then frames are refused without waiting
    with pytest.raises(SpoolUnavailable):
        await rig.spool.keep([frame(0)])


async def test_frames_stored_at_the_same_time_share_one_spool_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    groups: list[int] = []
    keep = rig.store.keep

    def counting(rows: Sequence[Row], *, acked: Sequence[int], live_bytes: int) -> list[Row]:
        groups.append(len(rows) + len(acked))
        return keep(rows, acked=acked, live_bytes=live_bytes)

    monkeypatch.setattr(rig.store, "keep", counting)
    await asyncio.gather(*(rig.spool.keep([frame(seq, 1000)]) for seq in range(200)))
    assert sum(groups) == 200
    assert len(groups) < 10
    assert (await rig.spool.depth())[0].frames == 200
    groups.clear()
    await asyncio.gather(rig.spool.keep([frame(200, 1000)]), rig.spool.remove([1, 2]))
    assert groups == [3]
    assert (await rig.spool.depth())[0].frames == 199
    await rig.spool.close()


async def test_new_frames_that_a_full_disk_refuses_do_not_stop_deletions_in_the_same_commit(
    rig: Rig, small: SmallDisk
) -> None:
    await rig.spool.keep([frame(0), frame(1), frame(2)])
    small.fill()
    refused, deleted = await asyncio.gather(
        rig.spool.keep([frame(3)]), rig.spool.remove([1, 2]), return_exceptions=True
    )
    assert isinstance(refused, SpoolUnavailable)
    assert deleted is None
    assert [(depth.first, depth.last) for depth in await rig.spool.depth()] == [(2, 2)]


async def test_a_damaged_spool_is_salvaged_and_reported(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for seq in range(30):
        await rig.spool.keep([frame(seq)])
    await rig.spool.close()
    with (tmp_path / "spool.db").open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xa5" * 20_000)
    rig = Rig(tmp_path)
    rows: list[Row] = []
    while more := await rig.spool.settle_late(100):
        rows += more
    assert 25 <= len(rows) < 30
    await rig.spool.maintain()
    (notice,) = await rig.notices()
    assert notice.startswith(f"spool was damaged: {len(rows)} rows saved, lost a/5/")
    await rig.spool.close()


CHILD = """
import resource, signal, sys
from pathlib import Path
from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool.schema import Row
from edge_agent.spool.store import SpoolStore
spool = SpoolStore(Path(sys.argv[1]), "agent")
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


def test_a_spool_write_that_fails_at_the_file_size_limit_can_be_repeated(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "spool.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    why, promised, kept = done.stdout.split()
    assert why == "failing"
    assert int(promised) == int(kept) > 20


def account(first: int, last: int, **counts: int) -> WithheldInterval:
    return WithheldInterval(camera="a", epoch=5, first=first, last=last, counts=counts)
