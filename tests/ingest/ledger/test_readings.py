"""The sensors' ledger: runs of readings and accounts cover every number once, or it is said where they do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.codec import encode
from ingest.contract.records import Account, EpochEnd, Heartbeat, Readings, SensorLedger, SensorStatus, Waiting
from ingest.contract.topics import READINGS, STATUS, partition_for
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit
from ingest.ledger.balance import Balance
from ingest.runtime.clock import ManualClock

EPOCH = 1_700_000_000
SENSOR = "cabinet"


@dataclass
class Site:
    """Writes what an agent writes of one sensor."""

    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.log = MemoryLog(2, self.clock)

    async def deliver(self, first: int, last: int, before: int | None = None, *, epoch: int = EPOCH) -> int:
        """Deliver a run, with an account of what was withheld from ``before`` on; return its offset."""
        account = None if before is None else self.withheld(before, first - 1, epoch=epoch)
        rows = last - first + 1
        record = Readings(
            sensor=SENSOR,
            epoch=epoch,
            seq=first,
            quantity="t",
            unit="Cel",
            times_ns=(1,) * rows,
            values=(1.0,) * rows,
            quality=(0,) * rows,
            account=account,
        )
        return await self.write(READINGS, encode(record))

    def withheld(self, first: int, last: int, reason: str = "unusable", *, epoch: int = EPOCH) -> Account:
        return Account(camera=SENSOR, epoch=epoch, first=first, last=last, counts={reason: last - first + 1})

    def end(self, last: int, *, clean: bool = True, told: int = -1, epoch: int = EPOCH) -> EpochEnd:
        return EpochEnd(camera=SENSOR, epoch=epoch, last=last, clean=clean, told=told)

    async def say(
        self,
        *,
        accounts: Iterable[Account] = (),
        ended: Iterable[EpochEnd] = (),
        waiting: Iterable[Waiting] | None = None,
        captured: int | None = None,
    ) -> None:
        self.clock.advance(1.0)
        ledger = SensorLedger(
            accounts=tuple(accounts), ended=tuple(ended), waiting=None if waiting is None else tuple(waiting)
        )
        told = (
            ()
            if captured is None
            else (SensorStatus(sensor=SENSOR, epoch=EPOCH, state="running", captured=captured),)
        )
        beat = Heartbeat(service="agent", instance="a", at_ns=self.clock.now_ns(), sensors=told, readings=ledger)
        await self.write(STATUS, encode(beat))

    async def write(self, topic: str, value: bytes) -> int:
        partition = partition_for(SENSOR, 2) if topic == READINGS else 0
        return (await self.log.produce(Outgoing(topic, partition, value)))[1]

    async def audit(self) -> Balance:
        balance = (await audit(self.log, wait_s=0.0, clock=self.clock)).sensors
        assert balance is not None
        return balance


@pytest.fixture
def site() -> Site:
    return Site()


async def test_what_was_delivered_withheld_and_has_ended_balances(site: Site) -> None:
    await site.deliver(0, 99)
    await site.deliver(105, 149, before=100)
    await site.say(accounts=[site.withheld(150, 150, "outage")], ended=[site.end(150)])
    balance = await site.audit()
    line = balance.cameras[SENSOR]
    assert balance.balanced
    assert (line.captured, line.delivered, line.unaccounted) == (151, 145, 0)
    assert dict(line.withheld) == {"unusable": 5, "outage": 1}
    whole = await audit(site.log, wait_s=0.0, clock=site.clock)
    assert not whole.cameras, "a sensor is no camera"
    assert whole.to_dict()["sensors"]["totals"]["delivered"] == 145


async def test_a_hole_is_unaccounted_and_the_whole_does_not_balance(site: Site) -> None:
    await site.deliver(0, 9)
    await site.deliver(15, 19)
    balance = await site.audit()
    assert balance.totals.unaccounted == 5
    assert balance.totals.examples == [f"{SENSOR}/{EPOCH}/10..14 is missing"]
    assert not (await audit(site.log, wait_s=0.0, clock=site.clock)).balanced


async def test_what_waits_in_a_spool_is_no_loss(site: Site) -> None:
    await site.deliver(15, 19)
    await site.say(waiting=[Waiting(camera=SENSOR, epoch=EPOCH, first=0, last=14)])
    balance = await site.audit()
    assert (balance.balanced, balance.settled, balance.totals.spooled) == (True, False, 15)


async def test_the_very_same_run_again_is_a_repeat_and_an_overlap_is_a_duplicate(site: Site) -> None:
    await site.deliver(0, 9)
    await site.deliver(0, 9)
    balance = await site.audit()
    assert (balance.balanced, balance.totals.repeats, balance.totals.delivered) == (True, 10, 10)
    await site.deliver(5, 12)
    assert (await site.audit()).totals.duplicates == 5


async def test_after_a_kill_what_was_in_memory_only_is_told_apart(site: Site) -> None:
    await site.deliver(0, 9)
    await site.say(captured=14)
    await site.say(ended=[site.end(9, clean=False, told=13)])
    await site.deliver(0, 9, epoch=EPOCH + 1)
    balance = await site.audit()
    assert (balance.balanced, balance.totals.unclean, balance.totals.captured) == (True, 4, 20)


async def test_an_epoch_that_nobody_has_ended_is_a_lost_spool(site: Site) -> None:
    await site.deliver(0, 9)
    await site.deliver(0, 9, epoch=EPOCH + 1)
    assert not (await site.audit()).balanced


async def test_retention_takes_the_beginning_and_leaves_the_rest_balanced(site: Site) -> None:
    await site.deliver(0, 9)
    first = await site.deliver(12, 19, before=10)
    await site.say(ended=[site.end(19)])
    tp = TopicPartition(READINGS, partition_for(SENSOR, 2))
    site.log.forget(tp, first)
    balance = await site.audit()
    assert (balance.balanced, balance.totals.captured) == (True, 10)
    assert balance.truncated == [f"{SENSOR}/{EPOCH} from 10"]
    site.log.forget(tp, first + 1)
    assert (await site.audit()).left_out == [SENSOR]


async def test_a_record_that_cannot_be_read_is_missing(site: Site) -> None:
    await site.write(READINGS, b"\xc1 no msgpack")
    await site.deliver(10, 19)
    assert (await site.audit()).totals.unaccounted == 10


PIECES = st.lists(st.tuples(st.sampled_from(["run", "account", "told"]), st.integers(1, 40)), min_size=1, max_size=12)


@given(PIECES)
async def test_what_went_as_it_should_balances_however_it_is_cut(pieces: list[tuple[str, int]]) -> None:
    site, at, before, delivered = Site(), 0, None, 0
    for kind, count in pieces:
        if kind == "run":
            await site.deliver(at, at + count - 1, before)
            before, delivered = None, delivered + count
        elif kind == "account":
            before = at if before is None else before
        elif before is None:
            await site.say(accounts=[site.withheld(at, at + count - 1, "expired")])
        else:
            continue
        at += count
    tail = [] if before is None else [site.withheld(before, at - 1, "outage")]
    await site.say(accounts=tail, ended=[site.end(at - 1)])
    balance = await site.audit()
    assert balance.balanced, balance.totals.examples
    assert (balance.totals.captured, balance.totals.delivered) == (at, delivered)
