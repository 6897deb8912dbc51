"""Tests of live frames that the sender sends from memory, and of the limit on frames in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_agent.send import sender as sender_module
from edge_agent.send.link import OutboundRecord
from edge_agent.spool.schema import Row
from ingest.contract.identity import LIVE
from ingest.site import SpoolConfig
from tests.edge_agent.send.senderrig import FakeLink, SenderRig, until


async def test_live_frames_are_sent_without_reading_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = SenderRig(tmp_path)
    reads: list[str] = []
    first_round = ["others", "offered", "settle_live", "offered", "settle_late"]
    for method in ("others", "offered", "settle_live", "settle_late"):
        call = getattr(rig.store, method)
        monkeypatch.setattr(rig.store, method, lambda *args, c=call, m=method: reads.append(m) or c(*args))
    monkeypatch.setattr(sender_module, "IDLE_S", 3600.0)
    async with rig.sending() as link:
        await until(lambda: len(reads) == len(first_round))
        for seq in range(20):
            await rig.spool.keep([rig.row(f"a{seq}"), rig.row(f"b{seq}")])
            rig.sender.wake()
        await until(lambda: rig.empty and rig.sender.idle)
        assert rig.names() == [f"{name}{seq}" for seq in range(20) for name in "ab"]
        assert reads == first_round
        assert link.opened == 1


async def test_live_frames_of_a_lost_link_are_sent_in_order_after_the_link_is_back(
    tmp_path: Path,
) -> None:
    rig = SenderRig(tmp_path)
    rig.link.holds = True
    async with rig.sending() as link:
        await until(lambda: rig.sender.connected and not rig.store.unsent_frames)
        for seq in range(8):
            await rig.spool.keep([rig.row(f"a{seq}")])  # without a wake: some wait for the sender
        link.lose()
        rig.sender.wake()
        await until(lambda: not rig.sender.connected)
        await rig.spool.keep([rig.row("a8")])
        link.sent.clear()
        link.gone = link.holds = False
        await until(lambda: rig.empty)
        assert rig.names() == [f"a{seq}" for seq in range(9)]


async def test_unacknowledged_frames_take_only_about_a_quarter_of_the_size_limit_of_a_small_spool(
    tmp_path: Path,
) -> None:
    rig = SenderRig(tmp_path)
    rig.spool.set_bounds({"a": SpoolConfig(max_bytes=1024 * 1024), "b": SpoolConfig()}, {})
    async with rig.sending() as link:
        await until(lambda: rig.sender.connected)
        link.holds = True
        for number in range(10):
            await rig.spool.keep([rig.row(f"a{number}", size=100_000)])
            rig.sender.wake()
            await until(lambda: len(rig.names()) == min(number + 1, 3))  # noqa: B023  (awaited in this turn)
        link.lose()
    assert rig.names() == ["a0", "a1", "a2"]


@pytest.mark.parametrize("kind", ["frame", "readings"])
async def test_one_read_of_a_small_spool_has_at_most_a_quarter_of_the_spool(tmp_path: Path, kind: str) -> None:
    rig = SenderRig(tmp_path)
    limits = {"a": SpoolConfig(max_bytes=1024 * 1024)}
    rig.spool.set_bounds(*((limits, {}) if kind == "frame" else ({}, limits)))
    rig.link.holds = True
    rows = [Row(kind, "a", 5, seq, rig.clock.now_ns(), bytes(50_000)) for seq in range(20)]
    await rig.spool.keep(rows)
    async with rig.sending() as link:
        await until(lambda: len(link.sent) >= 6)
        sent = rig.on_store(
            lambda: rig.store._db.execute("SELECT count(*) FROM outbox WHERE lane = ?", (LIVE,)).fetchone()
        )
        assert sent == (6,)  # the last one exceeds 256 KiB
        link.lose()


async def test_frames_that_the_sender_holds_during_a_blocked_send_count_as_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BlockedLink(FakeLink):
        blocked = False

        def __init__(self) -> None:
            super().__init__()
            self.opens = asyncio.Event()

        async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
            self.blocked = not self.opens.is_set()
            await self.opens.wait()
            return await super().send(record)

    monkeypatch.setattr(sender_module, "IDLE_S", 3600.0)
    rig = SenderRig(tmp_path, max_in_flight_bytes=250_000)
    link = rig.link = rig.sender._link = BlockedLink()
    async with rig.sending():
        await until(lambda: rig.sender.connected and not rig.store.unsent_frames)
        await rig.spool.keep([rig.row(f"a{seq}", size=100_000) for seq in range(2)])
        rig.sender.wake()
        await until(lambda: link.blocked)
        for seq in range(2, 8):
            await rig.spool.keep([rig.row(f"a{seq}", size=100_000)])
        marked = rig.on_store(lambda: rig.store.offered(LIVE, 0, 100))
        assert [row.seq for row in marked] == [0, 1, 2]
        link.opens.set()
        await until(lambda: rig.empty)
        assert rig.names() == [f"a{seq}" for seq in range(8)]
