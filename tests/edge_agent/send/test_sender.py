"""Tests of the sender over a scripted link: live frames go before late frames, and refused records delay nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send import sender as sender_module
from edge_agent.send.link import OutboundRecord
from edge_agent.send.sender import ACK_TIMEOUT_S, PATIENT_TRIES
from edge_agent.send.window import LIVE_RECENT_S
from ingest.contract.codec import decode
from ingest.contract.records import Heartbeat
from ingest.runtime.backoff import STEADY_S
from tests.edge_agent.send.senderrig import FakeLink, SenderRig, until


async def test_live_frames_are_sent_before_the_backlog_and_on_a_separate_topic(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path)
    rig.keep("a0", "a1", age_s=60.0)
    rig.keep("a2", "b0")
    async with rig.sending() as link:
        await until(lambda: rig.empty)
        assert [(p.topic, p.key, p.value.decode().strip(), p.late) for p in link.sent] == [
            ("frames", "a", "a2", False),
            ("frames", "b", "b0", False),
            ("frames.late", "a", "a0", True),
            ("frames.late", "a", "a1", True),
        ]


async def test_unacknowledged_rows_are_sent_again_on_the_same_lane_before_newer_rows(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path)
    rig.link.holds = True
    rig.keep("a0", age_s=60.0)
    rig.keep("a1", "a2")
    async with rig.sending() as link:
        await until(lambda: len(link.sent) == 3)
        link.lose()
        rig.clock.advance(60.0)  # without a stored lane, the rows in doubt would be late by now
        rig.keep("a3")
        await until(lambda: not rig.sender.connected)
        link.sent.clear()
        link.gone = link.holds = False
        await until(lambda: rig.empty)
        lanes = {late: [p.value.decode().strip() for p in link.sent if p.late == late] for late in (False, True)}
        assert lanes == {False: ["a1", "a2", "a3"], True: ["a0"]}


async def test_spool_rows_that_the_broker_refuses_stay_in_the_spool_and_the_other_rows_are_sent(
    tmp_path: Path,
) -> None:
    rig = SenderRig(tmp_path)
    rig.link.refuses = {b"a1".ljust(10)}
    rig.keep("a0", "a1", "a2")
    async with rig.sending() as link:
        await until(lambda: rig.empty)
        assert rig.names() == ["a0", "a1", "a2"]
        (beat,) = [decode(Heartbeat, p.value) for p in link.sent if p.topic == "status"]
        assert beat.reason == "refused records that stay in the spool: 1 (frame a/5/1): not this one"
        (depth,) = rig.on_store(rig.store.depth)
        assert (depth.first, depth.last, depth.frames) == (1, 1, 1)  # the ledger counts the parked row as waiting
        assert link.opened == 1


async def test_spool_rows_acknowledged_or_refused_before_a_link_loss_are_not_sent_again(tmp_path: Path) -> None:
    class AnswersAndGoes(FakeLink):
        async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
            if self.holds and len(self.sent) == 3:
                taken, refused, self._held = self._held[0], self._held[1], self._held[2:]
                taken.set_result(None)
                refused.set_exception(RecordRefused("not this one"))
                await asyncio.sleep(0)
                self.lose()
            return await super().send(record)

    rig = SenderRig(tmp_path)
    rig.link = rig.sender._link = AnswersAndGoes()
    rig.link.holds = True
    rig.keep("a0", "a1", "a2", "a3")
    async with rig.sending() as link:
        await until(lambda: link.gone and not rig.sender.connected)
        link.sent.clear()
        link.gone = link.holds = False
        await until(lambda: rig.empty)
        assert rig.names() == ["a2", "a3"]
        (depth,) = rig.on_store(rig.store.depth)
        assert (depth.first, depth.last) == (1, 1)  # the parked row can only expire


async def test_a_spool_row_whose_transmission_the_link_cancelled_is_sent_again(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path)
    rig.link.holds = True
    rig.keep("a0")
    async with rig.sending() as link:
        await until(lambda: len(link.sent) == 1)
        link.holds = False
        link._held[0].cancel()
        await until(lambda: rig.empty)
        assert rig.names() == ["a0", "a0"]


async def test_reconnect_pauses_grow_for_a_link_that_opens_and_then_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = SenderRig(tmp_path)
    pauses: list[float] = []
    sleep = asyncio.sleep

    class OpensOnly(FakeLink):
        async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
            done = await super().send(record)
            if len(pauses) < 6:
                done = asyncio.get_running_loop().create_future()
                done.set_exception(LinkLost("403"))
            return done

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    rig.link = rig.sender._link = OpensOnly()
    rig.keep("a0", size=100_000)
    monkeypatch.setattr(sender_module.asyncio, "sleep", slept)
    task = asyncio.create_task(rig.sender.run(lambda: 0.0))
    while not rig.empty or rig.sender._backoff.out:
        await sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.spool.close()
    assert pauses == sorted(pauses)
    assert pauses[-1] > 20 * pauses[0]  # each try sends 100 kB over a metered link


async def test_the_acknowledgement_timeout_grows_with_each_failed_try(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path)
    rig.link.holds = True
    rig.keep("a0")
    async with rig.sending() as link:
        for tries, waited_s in enumerate([ACK_TIMEOUT_S, 2 * ACK_TIMEOUT_S], 1):
            await until(lambda tries=tries: rig.sender.connected and len(link.sent) == tries)
            rig.clock.advance(waited_s + 1)
            rig.sender.wake()
            await until(lambda: not rig.sender.connected)
        await until(lambda: len(link.sent) == 3)
        rig.clock.advance(PATIENT_TRIES * ACK_TIMEOUT_S - 1)
        rig.sender.wake()
        await until(lambda: not rig.sender._wake.is_set())  # the sender has read the new time
        rig.keep("b0")
        await until(lambda: "b0" in rig.names())
        for done in link._held[2:]:
            done.set_result(None)
        await until(lambda: rig.empty)
        assert link.opened == 3


async def test_a_link_outage_ends_after_the_link_has_been_open_and_idle_for_a_while(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path)
    rig.link.gone = True
    async with rig.sending() as link:
        await until(lambda: rig.sender._backoff.out)
        link.gone = False
        await until(lambda: rig.sender.connected)
        assert rig.sender._backoff.out
        rig.clock.advance(STEADY_S)
        rig.sender.wake()
        await until(lambda: not rig.sender._backoff.out)


async def test_the_sender_pauses_as_long_as_the_gateway_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = SenderRig(tmp_path)
    rig.link.gone, rig.link.retry_after_s = True, 7.0
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        rig.link.gone = False
        await sleep(0)

    monkeypatch.setattr(sender_module.asyncio, "sleep", slept)
    rig.keep("a0")
    task = asyncio.create_task(rig.sender.run(lambda: 0.0))
    while not rig.empty:
        await sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.spool.close()
    assert pauses == [7.0]


async def test_the_backlog_uses_only_its_share_of_the_in_flight_window(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path, max_in_flight_bytes=400_000, late_share=0.25)
    rig.link.holds = True
    rig.keep(*(f"a{seq}" for seq in range(40)), age_s=60.0, size=30_000)
    async with rig.sending() as link:
        await until(lambda: len(link.sent) >= 8)
        rig.keep("b0", "b1", size=30_000)
        await until(lambda: "b1" in rig.names())
        late = [name for name in rig.names() if name.startswith("a")]
        assert 4 <= len(late) <= 8  # 100 kB, and the rows of one read
        for done in link._held:
            done.set_result(None)


async def test_the_backlog_stays_within_its_byte_rate_while_live_frames_are_sent(tmp_path: Path) -> None:
    rig = SenderRig(tmp_path, late_bytes_per_s=100_000)
    rig.keep(*(f"a{seq}" for seq in range(60)), age_s=60.0, size=20_000)
    rig.keep("b0")
    async with rig.sending():
        await until(lambda: len(rig.names()) > 8)
        await until(lambda: rig.sender.idle)
        burst = len(rig.names())
        assert burst <= 1 + 2 * 8  # the first second's bytes, and the rows of one read
        rig.clock.advance(0.5)
        rig.keep("b1")
        await until(lambda: "b1" in rig.names())
        assert len(rig.names()) - burst <= 1 + 8
        rig.clock.advance(LIVE_RECENT_S + 0.1)  # no live frames any more
        rig.sender.wake()
        await until(lambda: rig.empty)


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancelled_sender_ends_even_if_a_row_arrives_at_the_same_moment(tmp_path: Path, steps: int) -> None:
    rig = SenderRig(tmp_path)
    task = asyncio.create_task(rig.sender.run(lambda: 0.0))
    await until(lambda: rig.sender.connected and rig.sender.idle)
    for _ in range(5):
        await asyncio.sleep(0.01)  # the sender waits for a row
    rig.sender.wake()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.spool.close()
    assert done
