"""Tests of the audit, with real records on an in-memory log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import pytest

from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import FrameId
from ingest.contract.records import (
    Batch,
    BatchItem,
    EpochEnd,
    Frame,
    FrameRef,
    Heartbeat,
    Result,
    Waiting,
    WithheldInterval,
)
from ingest.contract.topics import BATCHES, DEADLETTER, FRAMES, FRAMES_LATE, RESULTS, STATUS, partition_for
from ingest.deadletter import parked
from ingest.exceptions import LogUnavailable, WrongType
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import commit, start_position
from ingest.ledger.auditor import audit
from ingest.ledger.balance import Balance
from ingest.runtime.clock import ManualClock
from ingest.site import PinConfig
from ingest.site.topic.store import publish

EPOCH = 1_700_000_000
GARBAGE = b"\xc1 no msgpack"


@dataclass
class SiteWriter:
    """A writer of the records of agents, prepare stage and engines, with one camera per partition."""

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
        """Deliver a frame and return its record.

        With ``first``, add the counts of the frames that were withheld from ``first`` on.
        """
        account = None
        if first is not None:
            counts = {"still": seq - first}
            account = WithheldInterval(camera=camera, epoch=epoch, first=first, last=seq - 1, counts=counts)
        body = Frame(
            camera=camera, epoch=epoch, seq=seq, captured_ns=1, width=2, height=2, image=b"jpeg", account=account
        )
        lane = "late" if topic == FRAMES_LATE else "live"
        headers = h.frame_headers([body.id], lane) if named else {}
        if named and with_account and account:
            headers[h.ACCOUNT] = h.account_text(account).encode()
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

    async def send_heartbeat(self, *accounts: WithheldInterval, ended: tuple[EpochEnd, ...] = ()) -> None:
        beat = Heartbeat(service="agent", instance="a", at_ns=1, accounts=accounts, ended=ended)
        await self.log.produce(Outgoing(STATUS, 0, encode(beat)))

    async def park(self, record: LogRecord, pipeline: str = "") -> None:
        await self.log.produce(parked(record, "prepare", WrongType("frame", "image: missing"), pipeline))


@pytest.fixture
def site() -> SiteWriter:
    return SiteWriter()


async def test_the_ledger_of_an_empty_log_balances(site: SiteWriter) -> None:
    found = await site.audit()
    assert found.balanced
    assert found.cameras == {}


async def test_the_ledger_of_a_faultless_run_balances(site: SiteWriter) -> None:
    for seq, first in ((0, None), (5, 1), (6, None)):
        await site.deliver(seq, first)
        await site.finish(seq)
    await site.deliver(0, camera="yard", topic=FRAMES_LATE)
    await site.finish(0, camera="yard", lane="late")
    await site.send_heartbeat(
        WithheldInterval(camera="gate", epoch=EPOCH, first=7, last=9, counts={"expired": 1, "rate": 2}),
        ended=(EpochEnd(camera="gate", epoch=EPOCH, last=9, clean=True, reported=9),),
    )
    found = await site.audit()
    assert found.balanced, found.totals.examples
    gate = found.cameras["gate"]
    assert (gate.captured, gate.delivered, gate.classified) == (10, 3, 3)
    assert gate.withheld == {"still": 4, "expired": 1, "rate": 2}
    assert found.cameras["yard"].captured == 1


async def test_a_missing_frame_is_named_among_the_examples_of_the_audit(site: SiteWriter) -> None:
    await site.deliver(0)
    await site.finish(0)
    await site.deliver(2)
    await site.finish(2)
    found = await site.audit()
    assert not found.balanced
    assert found.totals.examples == [f"gate/{EPOCH}/1..1 is missing"]


async def test_a_result_written_twice_counts_as_a_duplicate(site: SiteWriter) -> None:
    await site.deliver(0)
    await site.finish(0)
    await site.finish(0)
    assert (await site.audit()).totals.duplicates == 1


async def test_a_frame_with_a_corrupt_body_is_identified_and_counted_by_its_headers(site: SiteWriter) -> None:
    await site.park(await site.deliver(5, 0, value=GARBAGE))
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.dead) == (6, 1)


@pytest.mark.parametrize("named", [True, False])
async def test_withheld_counts_are_read_from_the_body_if_their_header_is_missing(
    site: SiteWriter, named: bool
) -> None:
    await site.deliver(5, 0, named=named, with_account=False)
    await site.finish(5)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert found.totals.withheld == {"still": 5}


async def test_the_frame_id_in_the_header_overrides_the_frame_id_in_the_body(site: SiteWriter) -> None:
    other = encode(Frame(camera="gate", epoch=EPOCH, seq=9, captured_ns=1, width=2, height=2, image=b""))
    await site.park(await site.deliver(0, value=other))
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.dead) == (1, 1)


async def test_a_dead_letter_without_a_frame_id_counts_as_unidentified(site: SiteWriter) -> None:
    record = await site.deliver(0, value=GARBAGE, named=False)
    for _ in range(2):  # the same record parked again after a crash
        await site.park(record)
    found = await site.audit()
    assert (found.balanced, found.unidentified, found.totals.captured) == (True, 1, 0)


async def test_the_audit_ignores_garbage_on_the_topics_status_results_and_deadletter(site: SiteWriter) -> None:
    await site.deliver(0)
    await site.finish(0)
    for topic in (STATUS, RESULTS, DEADLETTER):
        await site.log.produce(Outgoing(topic, 0, GARBAGE, headers={h.FRAMES: b"\xff", h.ACCOUNT: b"9-1 x"}))
    assert (await site.audit()).balanced


async def test_the_dead_letter_of_a_result_is_not_counted_as_an_outcome_of_its_frame(site: SiteWriter) -> None:
    await site.deliver(0)
    await site.finish(0)
    headers = h.frame_headers([FrameId("gate", EPOCH, 0)], "live", pipeline="cars")
    await site.park(LogRecord(RESULTS, 0, 0, None, b"", headers), "cars")
    found = await site.audit()
    assert (found.balanced, found.totals.dead) == (True, 0)


async def test_a_frame_in_a_dead_letter_batch_of_one_pipeline_still_needs_an_outcome_in_its_other_pipelines(
    site: SiteWriter,
) -> None:
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


async def test_a_frame_classified_in_a_replay_counts_as_classified_and_not_as_dead(site: SiteWriter) -> None:
    record = await site.deliver(0, value=GARBAGE)
    await site.park(record)
    headers = {**record.headers, h.LANE: b"replay-a"}
    await site.log.produce(Outgoing(FRAMES, 0, record.value, headers=headers))
    await site.finish(0, lane="replay-a")
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.dead, found.totals.classified, found.totals.repeats) == (1, 0, 1, 0)


async def test_the_audit_waits_for_frames_in_processing(site: SiteWriter) -> None:
    async def later() -> None:
        await site.finish(0)
        await site.finish(3)
        await site.deliver(2, topic=FRAMES_LATE)
        await site.finish(2, lane="late")
        await site.deliver(9)  # after the cut: this audit ignores the frame and the hole before it
        await site.send_heartbeat(
            WithheldInterval(camera="gate", epoch=EPOCH, first=1, last=1, counts={"expired": 1})
        )
        await site.send_heartbeat(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=12, clean=True),))

    class BusyLog(MemoryLog):
        looks = 0

        async def ends(self, topic: str) -> Mapping[int, int]:
            self.looks += topic == RESULTS
            if topic == RESULTS and self.looks == 2:  # the first reading was the cut
                await later()
            return await super().ends(topic)

    site.log = BusyLog(2, site.clock)
    await site.deliver(0)
    await site.deliver(3)
    found = await site.audit(wait_s=30.0)
    assert found.balanced, found.totals.examples
    assert (found.totals.captured, found.totals.classified, found.totals.withheld) == (4, 3, {"expired": 1})


async def test_the_audit_stops_waiting_at_its_deadline(site: SiteWriter) -> None:
    await site.deliver(0)
    found = await site.audit(wait_s=0.01)
    assert (found.balanced, found.totals.unaccounted) == (False, 1)


async def test_the_progress_of_an_audit_grows_up_to_the_number_of_records(site: SiteWriter) -> None:
    for seq in range(600):
        await site.deliver(seq)
        await site.finish(seq)
    reported: list[tuple[int, int]] = []
    await audit(site.log, wait_s=0.0, on_progress=lambda done, total: reported.append((done, total)))
    assert reported[-1] == (1200, 1200)
    assert reported == sorted(reported)
    assert len(reported) > 2


async def test_the_audit_raises_an_error_of_the_log_unchanged(site: SiteWriter) -> None:
    class UnreadableResultsLog(MemoryLog):
        async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
            if topic == RESULTS:
                raise LogUnavailable("results[0] was silent")
            async for record in super().read(topic, partition, start, stop):
                yield record

    site.log = UnreadableResultsLog(2, site.clock)
    await site.deliver(0)
    await site.finish(0)
    await site.finish(0, camera="yard")
    with pytest.raises(LogUnavailable, match="was silent"):
        await site.audit()


# Retention: frames are kept for a day, heartbeats and results for longer.


async def deliver_run(site: SiteWriter, seqs: range, camera: str = "gate", topic: str = FRAMES) -> None:
    for seq in seqs:
        await site.deliver(seq, camera=camera, topic=topic)
        await site.finish(seq, camera=camera, lane="late" if topic == FRAMES_LATE else "live")
        site.clock.advance(1.0)


async def test_a_capture_run_truncated_by_retention_is_audited_from_its_first_retained_frame(
    site: SiteWriter,
) -> None:
    await deliver_run(site, range(10))
    await deliver_run(site, range(5), camera="yard")
    await site.send_heartbeat(
        WithheldInterval(camera="gate", epoch=EPOCH - 9, first=0, last=3, counts={"expired": 4})
    )
    await site.send_heartbeat(ended=(EpochEnd(camera="gate", epoch=EPOCH - 9, last=80, clean=True),))
    await site.send_heartbeat(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=9, clean=True),))
    site.log.forget(TopicPartition(FRAMES, 0), 4)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert found.truncated == [f"gate/{EPOCH} from 4"]
    assert (found.cameras["gate"].captured, found.cameras["yard"].captured) == (6, 5)


async def test_a_frame_missing_after_the_first_retained_frame_is_reported(site: SiteWriter) -> None:
    await deliver_run(site, range(6))
    await deliver_run(site, range(7, 10))
    site.log.forget(TopicPartition(FRAMES, 0), 4)
    found = await site.audit()
    assert found.totals.examples == [f"gate/{EPOCH}/6..6 is missing"]


async def test_the_audit_includes_the_withheld_counts_of_the_first_retained_frame(site: SiteWriter) -> None:
    await deliver_run(site, range(3))
    await site.deliver(8, 3)
    await site.finish(8)
    site.log.forget(TopicPartition(FRAMES, 0), 3)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert (found.truncated, found.totals.captured) == ([f"gate/{EPOCH} from 3"], 6)


async def test_late_frames_deleted_by_retention_are_not_reported_as_missing(site: SiteWriter) -> None:
    await deliver_run(site, range(5))
    await deliver_run(site, range(10, 15))  # after an outage, with the frames of the outage in between
    await deliver_run(site, range(5, 8), topic=FRAMES_LATE)
    await deliver_run(site, range(15, 17))
    await deliver_run(site, range(8, 10), topic=FRAMES_LATE)
    await deliver_run(site, range(17, 20))
    site.log.forget(TopicPartition(FRAMES_LATE, 0), 3)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert found.truncated == [f"gate/{EPOCH} from 17"]


async def test_a_camera_without_a_retained_frame_is_left_out_of_the_audit(site: SiteWriter) -> None:
    await deliver_run(site, range(5))
    await site.send_heartbeat(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=4, clean=True),))
    await deliver_run(site, range(3), camera="yard")
    site.log.forget(TopicPartition(FRAMES, 0), 5)
    found = await site.audit()
    assert found.balanced, found.totals.examples
    assert set(found.cameras) == {"yard"}


async def test_a_camera_whose_partition_still_has_all_records_is_audited(site: SiteWriter) -> None:
    await deliver_run(site, range(5))
    site.log.forget(TopicPartition(FRAMES, 0), 5)
    names = [f"silent-{i}" for i in range(8)]
    for name in names:
        await site.send_heartbeat(WithheldInterval(camera=name, epoch=EPOCH, first=0, last=3, counts={"expired": 4}))
    await publish(site.log, [PinConfig(name="silent-0", partition=1), PinConfig(name="silent-1", partition=0)])
    found = await site.audit()
    whole = {"silent-0"} | {name for name in names[2:] if partition_for(name, 2) == 1}
    assert 1 < len(whole) < 7
    assert set(found.cameras) == whole
    assert set(found.left_out) == set(names) - whole
    assert found.totals.withheld["expired"] == 4 * len(whole)


async def test_the_audit_waits_for_frames_in_a_spool_and_then_reports_them_as_spooled(site: SiteWriter) -> None:
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


async def test_frames_of_an_ended_capture_run_without_any_delivered_frame_are_unaccounted(site: SiteWriter) -> None:
    await site.send_heartbeat(ended=(EpochEnd(camera="gate", epoch=EPOCH, last=4, clean=True),))
    assert (await site.audit()).totals.unaccounted == 5


async def test_a_camera_is_left_out_of_the_audit_if_only_its_late_frames_are_still_stored(
    site: SiteWriter,
) -> None:
    await deliver_run(site, range(5))
    await deliver_run(site, range(5, 9), topic=FRAMES_LATE)
    site.log.forget(TopicPartition(FRAMES, 0), 5)
    assert (await site.audit()).cameras == {}


class TestExpiredUnread:
    async def test_frames_deleted_before_prepare_read_them_count_as_expired_unread(self) -> None:
        site = SiteWriter()
        for seq in range(6):
            await site.deliver(seq)
        await commit(site.log, "prepare-live", GATE, 2)
        site.log.forget(GATE, 5)
        for _ in range(2):  # found first by the auditor alone, then also in the report of prepare
            balance = await site.audit()
            assert (balance.balanced, balance.totals.expired_unread) == (False, 3)
            assert balance.expired_unread == ["frames[0] 2..4 unread by prepare-live"]
            await start_position(site.log, "prepare-live", GATE)

    async def test_frames_that_expired_unread_are_still_reported_after_prepare_committed_a_later_offset(self) -> None:
        site = SiteWriter()
        for seq in range(6):
            await site.deliver(seq)
        await commit(site.log, "prepare-live", GATE, 2)
        site.log.forget(GATE, 5)
        await start_position(site.log, "prepare-live", GATE)
        await commit(site.log, "prepare-live", GATE, 6)
        assert (await site.audit()).to_dict()["totals"]["expired_unread"] == 3


GATE = TopicPartition(FRAMES, 0)
