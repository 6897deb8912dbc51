"""The auditor, from real records on a log in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import pytest

from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import FrameId
from ingest.contract.records import Account, Batch, BatchItem, EpochEnd, Frame, FrameRef, Heartbeat, Result, Waiting
from ingest.contract.topics import BATCHES, DEADLETTER, FRAMES, FRAMES_LATE, RESULTS, STATUS, partition_for
from ingest.deadletter import parked
from ingest.exceptions import LogUnavailable, WrongType
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit
from ingest.ledger.balance import Balance
from ingest.runtime.clock import ManualClock
from ingest.site import PinConfig
from ingest.site.topic.store import publish

EPOCH = 1_700_000_000
GARBAGE = b"\xc1 no msgpack"


@dataclass
class Site:
    """Writes what agents, prepare and engines write, one camera per partition."""

    clock: ManualClock = field(default_factory=ManualClock)
    partitions: Mapping[str, int] = field(default_factory=lambda: {"gate": 0, "yard": 1})

    def __post_init__(self) -> None:
        self.log = MemoryLog(2, self.clock)

    async def audit(self, wait_s: float = 0.0) -> Balance:
        return await audit(self.log, wait_s=wait_s, clock=self.clock if wait_s == 0.0 else None)

    async def deliver(
        self,
        seq: int,
        first: int | None = None,
        *,
        camera: str = "gate",
        epoch: int = EPOCH,
        topic: str = FRAMES,
        value: bytes | None = None,
        named: bool = True,
        with_account: bool = True,
    ) -> LogRecord:
        """Deliver a frame, with an account from ``first`` on when that is given, and return its record."""
        account = None
        if first is not None:
            counts = {"still": seq - first}
            account = Account(camera=camera, epoch=epoch, first=first, last=seq - 1, counts=counts)
        body = Frame(
            camera=camera, epoch=epoch, seq=seq, captured_ns=1, width=2, height=2, image=b"jpeg", account=account
        )
        lane = "late" if topic == FRAMES_LATE else "live"
        headers = h.frame_headers([body.id], lane, account=account if with_account else None) if named else {}
        out = Outgoing(topic, self.partitions[camera], encode(body) if value is None else value, headers=headers)
        position = await self.log.produce(out)
        return LogRecord(topic, *position, None, out.value, headers)

    async def finish(
        self,
        seq: int,
        *,
        camera: str = "gate",
        epoch: int = EPOCH,
        pipeline: str = "cars",
        routed: tuple[str, ...] = ("cars",),
        lane: str = "live",
    ) -> None:
        result = Result(
            camera=camera,
            epoch=epoch,
            seq=seq,
            lane=lane,
            pipeline=pipeline,
            pipelines=routed,
            captured_ns=1,
            finished_ns=2,
            width=2,
            height=2,
            source=FrameRef(FRAMES, 0, 0),
            outcome="classified",
        )
        await self.log.produce(Outgoing(RESULTS, self.partitions[camera], encode(result)))

    async def say(self, *accounts: Account, ended: tuple[EpochEnd, ...] = ()) -> None:
        beat = Heartbeat(service="agent", instance="a", at_ns=1, accounts=accounts, ended=ended)
        await self.log.produce(Outgoing(STATUS, 0, encode(beat)))

    async def park(self, record: LogRecord, pipeline: str = "") -> None:
        await self.log.produce(parked(record, "prepare", WrongType("frame", "image: missing"), pipeline))


@pytest.fixture
def site() -> Site:
    return Site()


async def test_an_empty_log_balances(site: Site) -> None:
    found = await site.audit()
    assert found.balanced
    assert found.cameras == {}


async def test_a_whole_run(site: Site) -> None:
    for seq, first in ((0, None), (5, 1), (6, None)):
        await site.deliver(seq, first)
        await site.finish(seq)
    await site.deliver(0, camera="yard", topic=FRAMES_LATE)
    await site.finish(0, camera="yard", lane="late")
    await site.say(
        Account(camera="gate", epoch=EPOCH, first=7, last=9, counts={"expired": 1, "rate": 2}),
        ended=(EpochEnd(camera="gate", epoch=EPOCH, last=9, clean=True, told=9),),
    )
    found = await site.audit()
    assert found.balanced, found.totals.examples
    gate = found.cameras["gate"]
    assert (gate.captured, gate.delivered, gate.classified) == (10, 3, 3)
    assert gate.withheld == {"still": 4, "expired": 1, "rate": 2}
    assert found.cameras["yard"].captured == 1


async def test_a_frame_that_is_missing(site: Site) -> None:
    await site.deliver(0)
    await site.finish(0)
    await site.deliver(2)
    await site.finish(2)
    found = await site.audit()
    assert not found.balanced
    assert found.totals.examples == [f"gate/{EPOCH}/1..1 is missing"]


async def test_a_result_that_is_written_twice(site: Site) -> None:
    await site.deliver(0)
    await site.finish(0)
    await site.finish(0)
    assert (await site.audit()).totals.duplicates == 1


async def test_a_ruined_frame_keeps_its_place_and_its_account(site: Site) -> None:
    await site.park(await site.deliver(5, 0, value=GARBAGE))
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.dead) == (6, 1)


@pytest.mark.parametrize("named", [True, False])
async def test_a_frame_whose_headers_are_missing_is_asked_itself(site: Site, named: bool) -> None:
    await site.deliver(5, 0, named=named, with_account=False)
    await site.finish(5)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert found.totals.withheld == {"still": 5}


async def test_a_header_that_names_another_frame_is_what_counts(site: Site) -> None:
    other = encode(Frame(camera="gate", epoch=EPOCH, seq=9, captured_ns=1, width=2, height=2, image=b""))
    await site.park(await site.deliver(0, value=other))
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.dead) == (1, 1)


async def test_garbage_without_a_name_is_counted_apart(site: Site) -> None:
    record = await site.deliver(0, value=GARBAGE, named=False)
    for _ in range(2):  # parked again after a crash
        await site.park(record)
    found = await site.audit()
    assert (found.balanced, found.unidentified, found.totals.captured) == (True, 1, 0)


async def test_garbage_on_status_results_and_deadletter_does_no_harm(site: Site) -> None:
    await site.deliver(0)
    await site.finish(0)
    for topic in (STATUS, RESULTS, DEADLETTER):
        await site.log.produce(Outgoing(topic, 0, GARBAGE, headers={h.FRAMES: b"\xff", h.ACCOUNT: b"9-1 x"}))
    assert (await site.audit()).balanced


async def test_a_parked_result_is_not_an_end_of_its_frame(site: Site) -> None:
    await site.deliver(0)
    await site.finish(0)
    headers = h.frame_headers([FrameId("gate", EPOCH, 0)], "live", pipeline="cars")
    await site.park(LogRecord(RESULTS, 0, 0, None, b"", headers), "cars")
    found = await site.audit()
    assert (found.balanced, found.totals.dead) == (True, 0)


async def test_a_parked_batch_tells_the_other_pipelines_of_its_frames(site: Site) -> None:
    await site.deliver(0)
    item = BatchItem(
        camera="gate",
        epoch=EPOCH,
        seq=0,
        lane="live",
        captured_ns=1,
        width=2,
        height=2,
        source=FrameRef(FRAMES, 0, 0),
        pipelines=("cars", "people"),
        outcome="empty",
    )
    batch = Batch(pipeline="cars", height=1, width=1, channels=3, items=(item,), pixels=b"")
    headers = h.frame_headers([item.id], "live", pipeline="cars")
    await site.park(LogRecord(BATCHES, 0, 0, None, encode(batch), headers), "cars")
    found = await site.audit()
    assert (found.totals.dead, found.totals.unaccounted) == (1, 1)
    assert found.totals.examples == [f"gate/{EPOCH}/0 has no end in people"]


async def test_a_replay_brings_a_dead_frame_back(site: Site) -> None:
    record = await site.deliver(0, value=GARBAGE)
    await site.park(record)
    headers = {**record.headers, h.LANE: b"replay-a"}
    await site.log.produce(Outgoing(FRAMES, 0, record.value, headers=headers))
    await site.finish(0, lane="replay-a")
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.dead, found.totals.classified, found.totals.repeats) == (1, 0, 1, 0)


async def test_it_waits_for_what_is_in_flight(site: Site) -> None:
    async def later() -> None:
        await site.finish(0)
        await site.finish(3)
        await site.deliver(2, topic=FRAMES_LATE)
        await site.finish(2, lane="late")
        await site.deliver(9)  # after the cut: neither it nor what is missing before it is of this audit
        await site.say(Account(camera="gate", epoch=EPOCH, first=1, last=1, counts={"expired": 1}))
        await site.say(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=12, clean=True),))

    class Busy(MemoryLog):
        looks = 0

        async def ends(self, topic: str) -> Mapping[int, int]:
            self.looks += topic == RESULTS
            if topic == RESULTS and self.looks == 2:  # the first was the cut
                await later()
            return await super().ends(topic)

    site.log = Busy(2, site.clock)
    await site.deliver(0)
    await site.deliver(3)
    found = await site.audit(wait_s=30.0)
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.classified, found.totals.withheld) == (4, 3, {"expired": 1})


async def test_it_gives_up_waiting(site: Site) -> None:
    await site.deliver(0)
    found = await site.audit(wait_s=0.01)
    assert (found.balanced, found.totals.unaccounted) == (False, 1)


async def test_progress_comes_to_its_end(site: Site) -> None:
    for seq in range(600):
        await site.deliver(seq)
        await site.finish(seq)
    told: list[tuple[int, int]] = []
    await audit(site.log, wait_s=0.0, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (1200, 1200)
    assert told == sorted(told)
    assert len(told) > 2


async def test_an_error_of_the_log_is_raised_as_it_is(site: Site) -> None:
    class Broken(MemoryLog):
        async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
            if topic == RESULTS:
                raise LogUnavailable("results[0] was silent")
            async for record in super().read(topic, partition, start, stop):
                yield record

    site.log = Broken(2, site.clock)
    await site.deliver(0)
    await site.finish(0)
    await site.finish(0, camera="yard")
    with pytest.raises(LogUnavailable, match="was silent"):
        await site.audit()


# What retention has taken. Frames are kept for a day, what agents say and results for longer.


async def run_of(site: Site, seqs: range, camera: str = "gate", topic: str = FRAMES, every_s: float = 1.0) -> None:
    for seq in seqs:
        await site.deliver(seq, camera=camera, topic=topic)
        await site.finish(seq, camera=camera, lane="late" if topic == FRAMES_LATE else "live")
        site.clock.advance(every_s)


async def test_an_epoch_whose_beginning_was_taken(site: Site) -> None:
    await run_of(site, range(10))
    await run_of(site, range(5), camera="yard")
    await site.say(Account(camera="gate", epoch=EPOCH - 9, first=0, last=3, counts={"expired": 4}))
    await site.say(ended=(EpochEnd(camera="gate", epoch=EPOCH - 9, last=80, clean=True),))
    await site.say(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=9, clean=True),))
    site.log.forget(TopicPartition(FRAMES, 0), 4)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert found.truncated == [f"gate/{EPOCH} from 4"]
    assert (found.cameras["gate"].captured, found.cameras["yard"].captured) == (6, 5)


async def test_what_is_missing_after_the_beginning_is_still_seen(site: Site) -> None:
    await run_of(site, range(6))
    await run_of(site, range(7, 10))
    site.log.forget(TopicPartition(FRAMES, 0), 4)
    found = await site.audit()
    assert found.totals.examples == [f"gate/{EPOCH}/6..6 is missing"]


async def test_the_account_of_the_first_frame_that_is_left_counts(site: Site) -> None:
    await run_of(site, range(3))
    await site.deliver(8, 3)
    await site.finish(8)
    site.log.forget(TopicPartition(FRAMES, 0), 3)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.truncated, found.totals.captured) == ([f"gate/{EPOCH} from 3"], 6)


async def test_late_frames_that_were_taken_make_no_hole(site: Site) -> None:
    await run_of(site, range(5))
    await run_of(site, range(10, 15))  # back after an outage, and then what came meanwhile, in between
    await run_of(site, range(5, 8), topic=FRAMES_LATE)
    await run_of(site, range(15, 17))
    await run_of(site, range(8, 10), topic=FRAMES_LATE)
    await run_of(site, range(17, 20))
    site.log.forget(TopicPartition(FRAMES_LATE, 0), 3)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert found.truncated == [f"gate/{EPOCH} from 17"]


async def test_a_camera_of_which_all_was_taken_is_left_out(site: Site) -> None:
    await run_of(site, range(5))
    await site.say(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=4, clean=True),))
    await run_of(site, range(3), camera="yard")
    site.log.forget(TopicPartition(FRAMES, 0), 5)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert set(found.cameras) == {"yard"}


async def test_a_camera_on_a_partition_that_is_whole_is_not_left_out(site: Site) -> None:
    await run_of(site, range(5))
    site.log.forget(TopicPartition(FRAMES, 0), 5)
    names = [f"silent-{i}" for i in range(8)]
    for name in names:
        await site.say(Account(camera=name, epoch=EPOCH, first=0, last=3, counts={"expired": 4}))
    await publish(site.log, [PinConfig(name="silent-0", partition=1), PinConfig(name="silent-1", partition=0)])
    found = await site.audit()
    whole = {"silent-0"} | {name for name in names[2:] if partition_for(name, 2) == 1}
    assert 1 < len(whole) < 7
    assert set(found.cameras) == whole
    assert set(found.left_out) == set(names) - whole
    assert found.totals.withheld["expired"] == 4 * len(whole)


async def test_frames_in_a_spool_are_waited_for_and_then_told(site: Site) -> None:
    await site.deliver(0)
    await site.finish(0)
    await site.deliver(9, 8)
    await site.finish(9)
    waiting = (Waiting(camera="gate", epoch=EPOCH, first=1, last=7),)
    await site.log.produce(
        Outgoing(STATUS, 0, encode(Heartbeat(service="agent", instance="a", at_ns=1, waiting=waiting)))
    )
    found = await site.audit(wait_s=0.01)
    assert (found.balanced, found.settled, found.totals.spooled) == (True, False, 7)


async def test_a_camera_that_said_it_ended_and_of_which_nothing_ever_came_is_missing(site: Site) -> None:
    await site.say(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=4, clean=True),))
    assert (await site.audit()).totals.unaccounted == 5


async def test_a_camera_with_late_frames_only_where_frames_were_taken_is_left_out(site: Site) -> None:
    await run_of(site, range(5))
    await run_of(site, range(5, 9), topic=FRAMES_LATE)
    site.log.forget(TopicPartition(FRAMES, 0), 5)
    assert (await site.audit()).cameras == {}
