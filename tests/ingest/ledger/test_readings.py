"""Tests of the sensors' ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.codec import encode
from ingest.contract.records import (
    EpochEnd,
    Heartbeat,
    Readings,
    SensorLedger,
    SensorStatus,
    Waiting,
    WithheldInterval,
)
from ingest.contract.topics import READINGS, STATUS, partition_for
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit
from ingest.ledger.balance import Balance
from ingest.runtime.clock import ManualClock

EPOCH = 1_700_000_000
SENSOR = "cabinet"


@dataclass
class SensorWriter:
    """A writer of the records that an agent writes about one sensor."""

    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.log = MemoryLog(2, self.clock)

    async def deliver(self, first: int, last: int, before: int | None = None, *, epoch: int = EPOCH) -> int:
        """Deliver a run of readings, with the counts of the readings that were withheld from ``before`` on.

        Return the record's offset.
        """
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

    def withheld(self, first: int, last: int, reason: str = "unusable", *, epoch: int = EPOCH) -> WithheldInterval:
        return WithheldInterval(camera=SENSOR, epoch=epoch, first=first, last=last, counts={reason: last - first + 1})

    def end(self, last: int, *, clean: bool = True, reported: int = -1, epoch: int = EPOCH) -> EpochEnd:
        return EpochEnd(camera=SENSOR, epoch=epoch, last=last, clean=clean, reported=reported)

    async def send_heartbeat(
        self,
        *,
        accounts: Iterable[WithheldInterval] = (),
        ended: Iterable[EpochEnd] = (),
        waiting: Iterable[Waiting] | None = None,
        captured: int | None = None,
    ) -> None:
        self.clock.advance(1.0)
        ledger = SensorLedger(
            accounts=tuple(accounts), ended=tuple(ended), waiting=None if waiting is None else tuple(waiting)
        )
        sensors = (
            ()
            if captured is None
            else (SensorStatus(sensor=SENSOR, epoch=EPOCH, state="running", captured=captured),)
        )
        beat = Heartbeat(service="agent", instance="a", at_ns=self.clock.now_ns(), sensors=sensors, readings=ledger)
        await self.write(STATUS, encode(beat))

    async def write(self, topic: str, value: bytes) -> int:
        partition = partition_for(SENSOR, 2) if topic == READINGS else 0
        return (await self.log.produce(Outgoing(topic, partition, value)))[1]

    async def audit(self) -> Balance:
        balance = (await audit(self.log, wait_s=0.0, clock=self.clock)).sensors
        assert balance is not None
        return balance


@pytest.fixture
def site() -> SensorWriter:
    return SensorWriter()


async def test_the_ledger_of_an_ended_sensor_run_with_delivered_and_withheld_readings_balances(
    site: SensorWriter,
) -> None:
    await site.deliver(0, 99)
    await site.deliver(105, 149, before=100)
    await site.send_heartbeat(accounts=[site.withheld(150, 150, "outage")], ended=[site.end(150)])
    balance = await site.audit()
    line = balance.cameras[SENSOR]
    assert balance.balanced
    assert (line.captured, line.delivered, line.unaccounted) == (151, 145, 0)
    assert dict(line.withheld) == {"unusable": 5, "outage": 1}
    whole = await audit(site.log, wait_s=0.0, clock=site.clock)
    assert not whole.cameras, "a sensor must not appear among the cameras"
    assert whole.to_dict()["sensors"]["totals"]["delivered"] == 145


async def test_missing_readings_are_unaccounted_and_unbalance_the_whole_audit(site: SensorWriter) -> None:
    await site.deliver(0, 9)
    await site.deliver(15, 19)
    balance = await site.audit()
    assert balance.totals.unaccounted == 5
    assert balance.totals.examples == [f"{SENSOR}/{EPOCH}/10..14 is missing"]
    assert not (await audit(site.log, wait_s=0.0, clock=site.clock)).balanced


async def test_readings_that_wait_in_a_spool_do_not_count_as_lost(site: SensorWriter) -> None:
    await site.deliver(15, 19)
    await site.send_heartbeat(waiting=[Waiting(camera=SENSOR, epoch=EPOCH, first=0, last=14)])
    balance = await site.audit()
    assert (balance.balanced, balance.settled, balance.totals.spooled) == (True, False, 15)


async def test_readings_delivered_again_are_a_repeat_and_overlapping_readings_a_duplicate(
    site: SensorWriter,
) -> None:
    await site.deliver(0, 9)
    await site.deliver(0, 9)
    balance = await site.audit()
    assert (balance.balanced, balance.totals.repeats, balance.totals.delivered) == (True, 10, 10)
    await site.deliver(5, 12)
    assert (await site.audit()).totals.duplicates == 5


async def test_readings_in_the_memory_of_a_killed_process_are_counted_as_unclean(site: SensorWriter) -> None:
    await site.deliver(0, 9)
    await site.send_heartbeat(captured=14)
    await site.send_heartbeat(ended=[site.end(9, clean=False, reported=13)])
    await site.deliver(0, 9, epoch=EPOCH + 1)
    balance = await site.audit()
    assert (balance.balanced, balance.totals.unclean, balance.totals.captured) == (True, 4, 20)


async def test_the_ledger_does_not_balance_if_a_sensor_run_without_an_end_record_precedes_a_newer_run(
    site: SensorWriter,
) -> None:
    await site.deliver(0, 9)
    await site.deliver(0, 9, epoch=EPOCH + 1)
    assert not (await site.audit()).balanced


async def test_a_sensor_truncated_by_retention_is_audited_from_its_first_retained_reading(
    site: SensorWriter,
) -> None:
    await site.deliver(0, 9)
    first = await site.deliver(12, 19, before=10)
    await site.send_heartbeat(ended=[site.end(19)])
    tp = TopicPartition(READINGS, partition_for(SENSOR, 2))
    site.log.forget(tp, first)
    balance = await site.audit()
    assert (balance.balanced, balance.totals.captured) == (True, 10)
    assert balance.truncated == [f"{SENSOR}/{EPOCH} from 10"]
    site.log.forget(tp, first + 1)
    assert (await site.audit()).left_out == [SENSOR]


async def test_readings_of_an_unreadable_record_are_unaccounted(site: SensorWriter) -> None:
    await site.write(READINGS, b"\xc1 no msgpack")
    await site.deliver(10, 19)
    assert (await site.audit()).totals.unaccounted == 10


PIECES = st.lists(
    st.tuples(st.sampled_from(["run", "account", "status"]), st.integers(1, 40)), min_size=1, max_size=12
)


@given(PIECES)
async def test_the_ledger_of_a_faultless_sensor_run_balances_however_its_readings_are_split_into_records(
    pieces: list[tuple[str, int]],
) -> None:
    site, at, before, delivered = SensorWriter(), 0, None, 0
    for kind, count in pieces:
        if kind == "run":
            await site.deliver(at, at + count - 1, before)
            before, delivered = None, delivered + count
        elif kind == "account":
            before = at if before is None else before
        elif before is None:
            await site.send_heartbeat(accounts=[site.withheld(at, at + count - 1, "expired")])
        else:
            continue
        at += count
    tail = [] if before is None else [site.withheld(before, at - 1, "outage")]
    await site.send_heartbeat(accounts=tail, ended=[site.end(at - 1)])
    balance = await site.audit()
    assert balance.balanced, balance.totals.examples
    assert (balance.totals.captured, balance.totals.delivered) == (at, delivered)
