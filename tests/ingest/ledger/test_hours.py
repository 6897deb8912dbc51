"""Tests of the balance by hour."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.codec import encode
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import EpochEnd, Frame, FrameRef, Heartbeat, Result, Waiting, WithheldInterval
from ingest.contract.topics import FRAMES, FRAMES_LATE, RESULTS, STATUS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit
from ingest.ledger.balance import StateCounts, compute_balance
from ingest.ledger.hours import compute_hours
from ingest.ledger.states import HOUR_NS, FrameEnd, Ledger
from ingest.runtime.clock import ManualClock

CAMERA, EPOCH = "gate", 7
FIRST_HOUR = 472_222
START_NS = FIRST_HOUR * HOUR_NS


def account(first: int, last: int, reason: str = "still") -> WithheldInterval:
    return WithheldInterval(camera=CAMERA, epoch=EPOCH, first=first, last=last, counts={reason: last - first + 1})


def deliver(ledger: Ledger, seq: int, at_s: float, before: WithheldInterval | None = None, *, ends: int = 1) -> None:
    frame = FrameId(CAMERA, EPOCH, seq)
    ledger.add_frame(frame, LIVE, before, START_NS + round(at_s * 1e9))
    for _ in range(ends):
        ledger.add_frame_end(frame, FrameEnd("classified", "cars", LIVE), frozenset({"cars"}))


def test_each_hour_has_its_own_frames_and_its_own_faults() -> None:
    ledger = Ledger()
    deliver(ledger, 4, 10.0, account(0, 3))
    deliver(ledger, 9, 3599.0, account(6, 8, "rate"))  # 5 is missing
    deliver(ledger, 10, 3601.0)
    deliver(ledger, 11, 3602.0, ends=0)
    deliver(ledger, 12, 7300.0, ends=2)
    hours = compute_hours(ledger)[CAMERA]
    first, second, third = (hours[FIRST_HOUR + n] for n in range(3))
    assert (first.captured, first.delivered, first.classified, first.unaccounted) == (10, 2, 2, 1)
    assert (first.withheld, first.examples) == (Counter(still=4, rate=3), ["gate/7/5"])
    assert (second.delivered, second.classified, second.unaccounted) == (2, 1, 1)
    assert second.examples == ["gate/7/11"]
    assert (third.duplicates, third.unaccounted, third.examples) == (1, 0, ["gate/7/12"])
    assert [one.balanced for one in (first, second, third)] == [False, False, False]


def test_missing_frames_that_cross_a_full_hour_and_frames_in_a_spool_are_split_by_hour() -> None:
    ledger = Ledger()
    deliver(ledger, 0, 10.0)
    deliver(ledger, 100, 3590.0)
    deliver(ledger, 300, 3700.0)
    ledger.set_spooled("agent", 1, [Waiting(camera=CAMERA, epoch=EPOCH, first=290, last=295)])
    ledger.add_epoch_end(EpochEnd(camera=CAMERA, epoch=EPOCH, last=310, clean=True))
    hours = compute_hours(ledger)[CAMERA]
    assert [hours[FIRST_HOUR + n].unaccounted for n in range(2)] == [99, 199 - 6 + 10]
    assert [hours[FIRST_HOUR + n].spooled for n in range(2)] == [0, 6]
    assert len(hours[FIRST_HOUR].examples) == 10


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["deliver", "lose", "repeat", "two ends", "no end"]))),
    st.integers(1, 4000),
    st.booleans(),
    st.randoms(),
)
def test_the_counts_of_all_hours_add_up_to_the_balance(
    steps: list[tuple[int, str]], gap_s: int, clean: bool, shuffled: random.Random
) -> None:
    entries, seq = [], 0
    for run, step in steps:
        before = account(seq, seq + run - 1) if run else None
        seq += run
        times = {"lose": 0, "repeat": 2}.get(step, 1)
        ends = {"two ends": 2, "no end": 0}.get(step, 1)
        entries += [(seq, seq * gap_s, before, ends if not n else 0) for n in range(times)]
        seq += 1
    shuffled.shuffle(entries)
    ledger = Ledger()
    for at, at_s, before, ends in entries:
        deliver(ledger, at, at_s, before, ends=ends)
    if seq:
        ledger.add_epoch_end(EpochEnd(camera=CAMERA, epoch=EPOCH, last=seq - 1, clean=clean, reported=seq + 2))
    summed, whole = StateCounts(), compute_balance(ledger).totals
    for counts in compute_hours(ledger).get(CAMERA, {}).values():
        summed.add(counts)
    summed.examples = whole.examples
    assert summed == whole


async def test_the_audit_assigns_late_frames_to_the_hour_of_their_capture() -> None:
    clock = ManualClock(started_ns=START_NS + 3 * HOUR_NS)
    log = MemoryLog(clock=clock)
    for seq, topic, captured_ns in ((0, FRAMES_LATE, START_NS + 5), (1, FRAMES, clock.now_ns())):
        one = Frame(camera=CAMERA, epoch=EPOCH, seq=seq, captured_ns=captured_ns, width=2, height=2, image=b"x")
        lane = LATE if topic == FRAMES_LATE else LIVE
        same = {"camera": CAMERA, "epoch": EPOCH, "seq": seq, "captured_ns": captured_ns, "width": 2, "height": 2}
        end = {"lane": lane, "pipelines": ("cars",), "pipeline": "cars", "finished_ns": 9, "outcome": "empty"}
        result = Result.model_validate({**same, **end, "source": FrameRef(topic, 0, 0)})
        await log.produce(Outgoing(topic, 0, encode(one)))
        await log.produce(Outgoing(RESULTS, 0, encode(result)))
    beat = Heartbeat(service="agent", instance="a", at_ns=clock.now_ns() + HOUR_NS, accounts=(account(2, 4),))
    await log.produce(Outgoing(STATUS, 0, encode(beat)))
    found = await audit(log, wait_s=0.0, by_hour=True, clock=clock)
    hours = found.hours[CAMERA]
    assert {hour - FIRST_HOUR: (counts.captured, counts.empty) for hour, counts in hours.items()} == {
        0: (1, 1),
        3: (1, 1),
        4: (3, 0),
    }
    assert found.to_dict()["hours"][CAMERA][FIRST_HOUR]["balanced"] is True
    assert (await audit(log, wait_s=0.0, clock=clock)).hours == {}
