"""Tests of the loop of one partition, on a fake group member that acknowledges on request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from ingest.contract.topics import BATCHES, STATUS
from ingest.exceptions import LogUnavailable, UnknownOffset
from ingest.kafka import outage
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.kafka.outage import KafkaWatch
from stream.exceptions import NotWritten, RecordsLost, TopicCreatedAgain
from stream.runner import chunk, partition
from stream.runner.acks import FetchNumber
from stream.runner.echo import EchoProcessor, EchoStage
from stream.runner.processor import Work
from tests.stream.runner.fakemember import until
from tests.stream.runner.looprig import ASSIGNMENT, PARTITION, Make


async def test_the_commit_position_advances_only_over_consecutive_acknowledged_records(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.offer(0, 3)
    await until(lambda: len(rig.sent) == 3)
    assert rig.loop.position == 0
    rig.member.acknowledge(1)
    rig.member.acknowledge(2)
    await until(lambda: all(f.done() for _, f in rig.sent[1:]))
    assert (rig.loop.position, rig.loop.in_flight) == (0, 3)
    rig.member.acknowledge(0)
    await until(lambda: rig.loop.position == 3)
    assert [int(r.value) for r, _ in rig.sent] == [0, 1, 2]


async def test_held_back_records_are_written_at_their_deadline_even_without_new_records(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=10, delay_s=0.01))
    rig.offer(0, 2)
    await until(lambda: len(rig.sent) == 2)


class SilenceProcessor(EchoProcessor):
    """Notes its calls. Its deadline has always passed."""

    ticks_in_silence = True

    def __init__(self, stage: EchoStage) -> None:
        super().__init__(stage)
        self.calls: list[str] = []

    def process(self, record: LogRecord) -> Sequence[Work]:
        self.calls.append(f"record {record.offset}")
        return super().process(record)

    def tick(self) -> Sequence[Work]:
        self.calls.append("tick")
        return super().tick()


class SilenceStage(EchoStage):
    async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
        self.processor = SilenceProcessor(self)
        return self.processor


async def test_a_silence_deadline_does_not_expire_before_the_backlog_has_been_processed(rigs: Make) -> None:
    stage = SilenceStage(hold=10, delay_s=0.0)
    rig = rigs(stage)
    rig.member.waiting = 1
    rig.offer(0, 1)
    await until(lambda: rig.loop.fed == 1 and (rig.member.asked > 0 or "tick" in stage.processor.calls))
    assert stage.processor.calls == ["record 0"]
    rig.offer(1, 3)
    await until(lambda: rig.loop.fed == 3)
    rig.member.waiting = 0
    await until(lambda: len(rig.sent) == 3)
    assert stage.processor.calls == ["record 0", "record 1", "record 2", "tick"]


class WritesWhenIdle(EchoStage):
    """A stage that holds ten records back for a minute, but none while it is idle."""

    def __init__(self) -> None:
        super().__init__(hold=10, delay_s=60.0)

    async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
        processor = await super().open(tp, position, log)
        processor.idle = processor.flush  # type: ignore[method-assign]
        return processor


async def test_held_back_records_are_written_immediately_if_the_queue_is_empty(rigs: Make) -> None:
    rig = rigs(WritesWhenIdle())
    rig.offer(0, 3)
    await until(lambda: len(rig.sent) == 3)


async def test_records_are_held_back_until_earlier_output_is_acknowledged(rigs: Make) -> None:
    rig = rigs(WritesWhenIdle())
    rig.offer(0, 1)
    await until(lambda: len(rig.sent) == 1)
    rig.offer(1, 3)
    await until(lambda: rig.loop.fed == 3 and not rig.loop.queued)
    assert (len(rig.sent), rig.loop.busy) == (1, 1)
    rig.member.acknowledge(0)
    await until(lambda: len(rig.sent) == 3)


async def test_records_are_held_back_while_the_readers_of_the_output_lag_behind(rigs: Make) -> None:
    rig = rigs(WritesWhenIdle())
    rig.loop.behind = True
    rig.offer(0, 9)
    await until(lambda: rig.loop.fed == 9 and not rig.loop.busy)
    assert rig.sent == []
    rig.offer(9, 10)
    await until(lambda: len(rig.sent) == 10)


async def test_records_held_back_for_a_sensor_window_do_not_count_as_work_for_the_watchdog(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=3, delay_s=60.0))
    rig.offer(0, 2)
    await until(lambda: rig.loop.in_flight == 2 and not rig.loop.busy)
    rig.offer(2, 3)
    await until(lambda: len(rig.sent) == 3)
    assert rig.loop.busy == 1
    for number in range(3):
        rig.member.acknowledge(number)
    await until(lambda: rig.loop.position == 3)
    assert rig.loop.busy == 0


async def test_a_failed_write_of_output_is_reported_with_its_partition_and_offset(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.offer(0, 1)
    await until(lambda: len(rig.sent) == 1)
    rig.member.acknowledge(0, OSError("broker gone"))
    await until(lambda: bool(rig.failures))
    error, tp, offset = rig.failures[0]
    assert isinstance(error, NotWritten)
    assert (error.topic, tp, offset) == (BATCHES, PARTITION, 0)
    assert rig.loop.position == 0


async def test_a_record_that_the_producer_refuses_during_an_outage_is_written_after_the_outage(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broker:
        up = False

        async def partitions(self) -> Mapping[str, int]:
            if not self.up:
                raise LogUnavailable("no Kafka")
            return {}

        async def close(self) -> None:
            pass

    monkeypatch.setattr(outage, "CHECK_S", 0.0)
    broker, watch = Broker(), KafkaWatch()
    async with watch.watching(lambda: broker, asyncio.Event()):
        await until(lambda: watch.out)
        rig = rigs(EchoStage(), watch=watch)
        rig.member.send_error = OSError("unknown topic")
        rig.offer(0, 1)
        await until(lambda: rig.loop.fed == 1)
        rig.member.send_error, broker.up = None, True
        await until(lambda: len(rig.sent) == 1)
        rig.member.acknowledge(0)
        await until(lambda: rig.loop.position == 1)
        rig.member.send_error = OSError("unknown topic")
        rig.offer(1, 2)
        await until(lambda: bool(rig.failures))
    assert isinstance(rig.failures[0][0], NotWritten)  # the broker answers, so the outage is not the cause


async def test_an_error_in_the_processor_is_reported_with_its_offset(rigs: Make) -> None:
    class FailsAtOffsetTwo(EchoProcessor):
        def process(self, record: LogRecord) -> Sequence[Work]:
            return () if record.offset < 2 else self._fail()

        def _fail(self) -> Sequence[Work]:
            raise ValueError("bad")

    class FailingStage(EchoStage):
        async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
            return FailsAtOffsetTwo(self)

    rig = rigs(FailingStage())
    rig.offer(0, 5)
    await until(lambda: bool(rig.failures))
    assert isinstance(rig.failures[0][0], ValueError)
    assert rig.failures[0][2] == 2
    assert rig.loop.position == 0


async def test_finishing_a_record_twice_fails_with_unknown_offset(rigs: Make) -> None:
    class FinishesTwice(EchoProcessor):
        def process(self, record: LogRecord) -> Sequence[Work]:
            return (Work((), (record.offset,)), Work((), (record.offset,)))

    class FinishesTwiceStage(EchoStage):
        async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
            return FinishesTwice(self)

    rig = rigs(FinishesTwiceStage())
    rig.offer(0, 1)
    await until(lambda: bool(rig.failures))
    assert isinstance(rig.failures[0][0], UnknownOffset)


async def test_draining_a_partition_flushes_its_output_and_waits_for_acknowledgements(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=10, delay_s=60.0))
    rig.offer(0, 3)
    await until(lambda: rig.loop.in_flight == 3)
    draining = asyncio.create_task(rig.loop.drain())
    await until(lambda: len(rig.sent) == 3)
    assert not draining.done()
    for number in range(3):
        rig.member.acknowledge(number)
    await draining
    assert rig.loop.position == 3


async def test_a_drain_stops_waiting_for_acknowledgements_when_its_partition_is_dropped(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=2, delay_s=60.0))
    rig.offer(0, 2)
    await until(lambda: len(rig.sent) == 2)
    draining = asyncio.create_task(rig.loop.drain())
    dropping = asyncio.create_task(rig.loop.drop())
    rig.member.acknowledge(0)
    rig.member.acknowledge(1)
    await asyncio.gather(draining, dropping)
    assert rig.loop.position == 2


async def test_draining_a_partition_after_a_drop_returns_without_a_flush(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=10, delay_s=60.0))
    rig.offer(0, 3)
    await until(lambda: rig.loop.in_flight == 3)
    dropping = asyncio.create_task(rig.loop.drop())
    await asyncio.gather(asyncio.create_task(rig.loop.drain()), dropping)
    assert rig.sent == []


async def test_draining_does_not_wait_for_a_partition_that_is_opening(rigs: Make) -> None:
    opening = asyncio.Event()

    class NeverOpenStage(EchoStage):
        async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
            opening.set()
            await asyncio.Event().wait()
            raise AssertionError

    rig = rigs(NeverOpenStage())
    await opening.wait()
    await asyncio.wait_for(rig.loop.drain(), 60)
    assert rig.loop.position is None
    assert not rig.failures


async def test_dropping_a_partition_does_not_flush_its_processor(rigs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "SETTLE_S", 0.01)
    rig = rigs(EchoStage(hold=2, delay_s=60.0))
    rig.offer(0, 3)
    await until(lambda: len(rig.sent) == 2 and rig.loop.in_flight == 3)
    await rig.loop.drop()
    assert rig.loop.position == 0
    assert len(rig.sent) == 2


async def test_dropping_a_partition_finishes_records_already_acknowledged(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=2, delay_s=60.0))
    rig.offer(0, 3)
    await until(lambda: len(rig.sent) == 2 and rig.loop.in_flight == 3)
    rig.member.acknowledge(0)
    rig.member.acknowledge(1)
    await rig.loop.drop()
    assert rig.loop.position == 2


async def test_the_number_of_outputs_in_flight_is_bounded(rigs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "CHUNK_S", 0.0)
    rig = rigs(EchoStage())
    rig.offer(0, partition.IN_FLIGHT_WORKS + 5)
    await until(lambda: len(rig.sent) == partition.IN_FLIGHT_WORKS and rig.loop.queued == 4)
    rig.member.acknowledge(0)
    await until(lambda: len(rig.sent) == partition.IN_FLIGHT_WORKS + 1)


async def test_output_bytes_in_flight_are_bounded_but_one_output_is_always_sent(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "IN_FLIGHT_BYTES", 0)
    monkeypatch.setattr(chunk, "CHUNK_S", 0.0)
    rig = rigs(EchoStage())
    rig.offer(0, 3)
    await until(lambda: len(rig.sent) == 1 and rig.loop.queued == 1)
    rig.member.acknowledge(0)
    await until(lambda: len(rig.sent) == 2)


async def test_fetching_of_a_partition_pauses_at_a_full_queue_and_resumes(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.offer(0, partition.QUEUE_RECORDS)
    assert rig.member.fetching == ["pause"]
    for number in range(partition.QUEUE_RECORDS):
        await until(lambda number=number: len(rig.sent) > number)
        rig.member.acknowledge(number)
    assert rig.member.fetching == ["pause", "resume"]


async def test_fetching_of_a_partition_pauses_at_the_byte_limit_of_its_queue(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "QUEUE_BYTES", 3)
    rig = rigs(EchoStage())
    rig.offer(0, 3)
    assert rig.member.fetching == ["pause"]


async def test_a_partition_is_fetched_from_its_committed_offset(rigs: Make) -> None:
    rig = rigs(EchoStage())
    for _ in range(5):
        await rig.log.produce(Outgoing(*PARTITION, b"x"))
    writer = await rig.log.writer("echo")
    await writer.write((), "echo", {PARTITION: 5})
    await until(lambda: bool(rig.member.begun))
    assert rig.member.begun == [(PARTITION, 5, ASSIGNMENT)]


async def test_records_that_expire_while_a_partition_loop_runs_are_counted_and_reported(rigs: Make) -> None:
    rig = rigs(EchoStage())
    for _ in range(9):
        await rig.log.produce(Outgoing(*PARTITION, b"x"))
    rig.offer(0, 1)
    await until(lambda: len(rig.sent) == 1)
    rig.log.forget(PARTITION, 6)
    rig.offer_one(6, FetchNumber(ASSIGNMENT, 1))
    await until(lambda: len(rig.sent) == 2)
    assert rig.loop._shared.metrics.expired_unread._value.get() == 5
    assert await rig.log.ends(STATUS) == {0: 1}


async def test_the_lower_offsets_of_a_recreated_topic_end_the_process_and_are_read_after_its_restart(
    rigs: Make,
) -> None:
    rig = rigs(EchoStage())
    rig.offer(0, 3)
    await until(lambda: len(rig.sent) == 3)
    rig.offer_one(0, FetchNumber(ASSIGNMENT, 3))
    await until(lambda: bool(rig.failures))
    assert isinstance(rig.failures[0][0], TopicCreatedAgain)
    again = rigs(EchoStage(), log=rig.log)
    await until(lambda: bool(again.member.begun))
    assert again.member.begun == [(PARTITION, 0, ASSIGNMENT)]
    assert again.loop._shared.metrics.topic_recreated._value.get() == 1
    assert await rig.log.committed("echo", PARTITION) == 0


async def test_a_lost_record_fails_the_partition_loop_and_no_commit_passes_the_record(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.offer(0, 2)
    rig.offer_one(64, FetchNumber(ASSIGNMENT, 64))
    assert [(type(error), tp) for error, tp, _ in rig.failures] == [(RecordsLost, PARTITION)]
    await until(lambda: len(rig.sent) == 2)
    rig.member.acknowledge(0)
    rig.member.acknowledge(1)
    await until(lambda: rig.loop.position == 2)
    assert rig.loop.queued == 0


async def test_the_commit_position_passes_gaps_between_offsets(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.offer_one(3, FetchNumber(ASSIGNMENT, 0))
    rig.offer_one(9, FetchNumber(ASSIGNMENT, 1))
    await until(lambda: len(rig.sent) == 2)
    rig.member.acknowledge(0)
    rig.member.acknowledge(1)
    await until(lambda: rig.loop.position == 10)
    assert not rig.failures


async def test_a_record_of_an_earlier_partition_assignment_is_not_processed(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.offer_one(64, FetchNumber(ASSIGNMENT - 1, 64))
    rig.offer(0, 1)
    await until(lambda: len(rig.sent) == 1)
    assert [int(r.value) for r, _ in rig.sent] == [0]
    assert not rig.failures


async def test_a_partition_of_another_group_member_is_not_opened(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.member.owned = False
    await until(lambda: bool(rig.member.begun))
    await rig.loop.drain()
    assert rig.loop.position is None
    assert not rig.failures


async def test_a_failure_to_begin_fetching_a_partition_is_reported(rigs: Make) -> None:
    rig = rigs(EchoStage())
    rig.member.begin_error = OSError("no broker")
    await until(lambda: bool(rig.failures))
    assert rig.failures[0][:2] == (rig.member.begin_error, PARTITION)
    assert rig.loop.position is None


async def test_a_suspended_partition_loop_processes_no_record_and_still_writes_due_output(rigs: Make) -> None:
    rig = rigs(EchoStage(hold=10, delay_s=0.05))
    rig.offer(0, 1)
    await until(lambda: rig.loop.fed == 1)
    rig.loop.hold(True)
    rig.offer(1, 2)
    await until(lambda: len(rig.sent) == 1)
    assert (rig.loop.held, rig.loop.fed, rig.loop.queued) == (True, 1, 1)
    rig.loop.hold(False)
    await until(lambda: rig.loop.fed == 2)
