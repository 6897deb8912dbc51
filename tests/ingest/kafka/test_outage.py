"""Tests of outages of Kafka: they are logged once, and requests of a PatientLog wait for their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.contract.topics import FRAMES
from ingest.exceptions import ConfigError, LogUnavailable, StoppedInOutage, TopicMismatch
from ingest.kafka import outage
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import GroupCommit, LogRecord, Outgoing, TopicPartition
from ingest.kafka.outage import WARN_AGAIN_S, KafkaWatch, Patience, PatientLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import ManualClock

WAIT_S = 60.0


class FakeBroker:
    """A broker that answers while ``up`` is set. ``silent`` makes it accept requests without a response."""

    def __init__(self) -> None:
        self.up, self.silent, self.asked, self.closed = asyncio.Event(), False, 0, 0
        self.up.set()

    async def partitions(self) -> Mapping[str, int]:
        self.asked += 1
        if self.silent:
            await self.up.wait()
        elif not self.up.is_set():
            raise LogUnavailable("no Kafka")
        return {}

    async def close(self) -> None:
        self.closed += 1


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not done():
            await asyncio.sleep(0)


def make_silent(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a broker give no response until ``up`` is set, and shorten the time that a response may take."""
    monkeypatch.setattr(outage, "ANSWER_S", 0.001)
    broker.silent = True
    broker.up.clear()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "CHECK_S", 0.0)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
async def watch(broker: FakeBroker) -> AsyncIterator[KafkaWatch]:
    watch = KafkaWatch(ManualClock())
    async with watch.watching(lambda: broker, asyncio.Event()):
        await watch.answer()
        yield watch


@pytest.fixture
def log(watch: KafkaWatch) -> PatientLog:
    return PatientLog(KafkaSettings(), "test", watch, timeout_s=0.001)


async def checks(broker: FakeBroker, count: int = 3) -> None:
    """Wait until the watch has asked the broker ``count`` times more."""
    wanted = broker.asked + count
    await until(lambda: broker.asked >= wanted)


async def test_an_outage_is_logged_when_it_begins_and_when_it_ends_and_gives_the_reason_meanwhile(
    broker: FakeBroker,
) -> None:
    clock = ManualClock()
    watch = KafkaWatch(clock)
    with capture_logs() as lines:
        async with watch.watching(lambda: broker, asyncio.Event()):
            await watch.answer()
            assert (watch.out, watch.unready_reason()) == (False, "")
            broker.up.clear()
            await until(lambda: watch.out)
            clock.advance(60.0)
            await checks(broker)
            assert watch.unready_reason() == "Kafka has been unavailable for 60 s: no Kafka"
            broker.up.set()
            await watch.answer()
    assert [(line["event"], line["out_s"]) for line in lines] == [
        ("kafka_unavailable", 0.0),
        ("kafka_available_again", 60.0),
    ]
    assert (watch.out, watch.unready_reason()) == (False, "")


async def test_an_answer_for_a_caller_comes_without_the_pause_between_requests(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "CHECK_S", 100 * WAIT_S)
    broker.silent = True
    broker.up.clear()
    watch = KafkaWatch(ManualClock())
    async with watch.watching(lambda: broker, asyncio.Event()), asyncio.timeout(WAIT_S):
        await until(lambda: broker.asked == 1)
        answer = asyncio.create_task(watch.answer())  # the first request began before the call
        await asyncio.sleep(0)
        broker.up.set()
        assert await answer
        assert await watch.answer()
    assert broker.asked == 3


async def test_the_warnings_of_a_long_outage_become_less_frequent(broker: FakeBroker) -> None:
    clock = ManualClock()
    broker.up.clear()
    with capture_logs() as lines:
        async with KafkaWatch(clock).watching(lambda: broker, asyncio.Event()):
            for _ in range(40):
                await checks(broker)
                clock.advance(WARN_AGAIN_S / 4)
    assert [line["out_s"] / WARN_AGAIN_S for line in lines] == [0.0, 1.0, 2.0, 4.0, 8.0]


async def test_a_broker_that_does_not_respond_is_unavailable_until_it_responds(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_silent(broker, monkeypatch)
    watch = KafkaWatch()
    async with watch.watching(lambda: broker, asyncio.Event()):
        await until(lambda: watch.out)
        assert "no response for 0.001 s" in watch.unready_reason()
        broker.up.set()
        await watch.answer()
        assert not watch.out


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("partitions", (), {FRAMES: 1}),
        ("ends", (FRAMES,), {0: 7}),
        ("settled_ends", (FRAMES, [0]), {0: 7}),
        ("beginnings", (FRAMES,), {0: 7}),
        ("offset_at", (TopicPartition(FRAMES, 0), 0), 7),
        ("commit_of", ("group", TopicPartition(FRAMES, 0)), GroupCommit(7, "")),
        ("_new", (None,), "client"),
        ("_require_writable", (None, Outgoing(FRAMES, 0, b"")), None),
    ],
)
async def test_a_request_that_fails_in_an_outage_is_repeated_after_the_outage(
    broker: FakeBroker,
    log: PatientLog,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: tuple[object, ...],
    answer: object,
) -> None:
    async def request(self: KafkaLog, *given: object) -> object:
        assert given == arguments
        if not broker.up.is_set():
            raise LogUnavailable("no Kafka")
        return answer

    monkeypatch.setattr(KafkaLog, name, request)
    broker.up.clear()
    asking = asyncio.create_task(getattr(log, name)(*arguments))
    await checks(broker)
    assert not asking.done()
    broker.up.set()
    assert await asyncio.wait_for(asking, WAIT_S) == answer


async def test_failures_of_a_request_count_only_while_kafka_answers(broker: FakeBroker, watch: KafkaWatch) -> None:
    error = LogUnavailable("no topic")

    async def raises_at_the_second_failure(patience: Patience) -> None:
        await patience.wait(error)
        with pytest.raises(LogUnavailable, match="no topic"):
            await patience.wait(error)

    patience = Patience(watch)
    await patience.wait(error)
    broker.up.clear()
    waiting = asyncio.create_task(patience.wait(error))  # the outage begins after the failure
    await until(lambda: watch.out)
    broker.up.set()
    await asyncio.wait_for(waiting, WAIT_S)
    await raises_at_the_second_failure(patience)
    await raises_at_the_second_failure(Patience(watch))
    broker.up.clear()
    await until(lambda: watch.out)
    patience = Patience(watch)
    broker.up.set()
    await patience.wait(error)  # the outage ends after the failure
    await raises_at_the_second_failure(patience)


async def test_a_request_that_fails_although_kafka_answers_raises_its_error_at_the_second_failure(
    log: PatientLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = []

    async def ends(self: KafkaLog, topic: str) -> Mapping[int, int]:
        failures.append(topic)
        raise LogUnavailable("no topic")

    monkeypatch.setattr(KafkaLog, "ends", ends)
    with pytest.raises(LogUnavailable, match="no topic"):
        await log.ends(FRAMES)
    assert len(failures) == 2
    with pytest.raises(LogUnavailable):
        await PatientLog(KafkaSettings(), "test", KafkaWatch()).ends(FRAMES)
    assert len(failures) == 3  # a watch that does not ask Kafka makes no request wait


async def test_a_read_continues_after_an_outage_at_the_record_after_the_last_one(
    broker: FakeBroker, log: PatientLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(
        self: KafkaLog, topic: str, partition: int, start: int, stop: int
    ) -> AsyncGenerator[LogRecord, None]:
        for offset in range(start, stop):
            if offset == 2 and not broker.up.is_set():
                raise LogUnavailable("no record")
            yield LogRecord(topic, partition, offset, None, b"", {}, 0)

    async def all_offsets() -> list[int]:
        return [record.offset async for record in log.read(FRAMES, 0, 0, 5)]

    monkeypatch.setattr(KafkaLog, "read", read)
    broker.up.clear()
    reading = asyncio.create_task(all_offsets())
    await checks(broker)
    broker.up.set()
    assert await asyncio.wait_for(reading, WAIT_S) == [0, 1, 2, 3, 4]


async def test_an_acknowledgement_is_awaited_through_an_outage_and_times_out_without_one(
    broker: FakeBroker, log: PatientLog, watch: KafkaWatch
) -> None:
    sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await log._acknowledged(asyncio.shield(sent))
    broker.up.clear()
    await until(lambda: watch.out)
    waiting = asyncio.create_task(log._acknowledged(sent))
    await asyncio.wait({waiting}, timeout=10 * log._timeout_s)
    assert not waiting.done()
    sent.set_result("written")
    assert await waiting == "written"


async def test_an_acknowledgement_times_out_if_the_watch_no_longer_asks_kafka() -> None:
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    log = PatientLog(KafkaSettings(), "test", KafkaWatch(), timeout_s=0.001)
    log._watch._since_s = 0.0  # the watch ended in an outage
    waiting = asyncio.create_task(log._acknowledged(never))
    await asyncio.wait({waiting}, timeout=WAIT_S)
    assert isinstance(waiting.exception(), TimeoutError)


@pytest.mark.parametrize("error", [ConfigError("secrets", "password", "", "a value"), OSError("no file")])
async def test_secrets_that_cannot_be_read_count_as_an_outage(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def partitions() -> Mapping[str, int]:
        raise error

    monkeypatch.setattr(broker, "partitions", partitions)
    watch = KafkaWatch()
    async with watch.watching(lambda: broker, asyncio.Event()):
        await until(lambda: watch.out)
        monkeypatch.undo()
        monkeypatch.setattr(outage, "CHECK_S", 0.0)
        assert await asyncio.wait_for(watch.answer(), WAIT_S)


async def test_each_request_after_a_failed_one_opens_a_new_connection(broker: FakeBroker) -> None:
    """A client keeps its first password, so only a new client finds a broker whose passwords have changed."""
    changed, made = FakeBroker(), list[FakeBroker]()
    broker.up.clear()

    def make() -> FakeBroker:
        made.append(broker if not made else changed)
        return made[-1]

    watch = KafkaWatch()
    async with watch.watching(make, asyncio.Event()):
        assert await asyncio.wait_for(watch.answer(), WAIT_S)
        assert await asyncio.wait_for(watch.answer(), WAIT_S)
    assert (made, broker.closed, changed.closed) == ([broker, changed], 1, 1)


async def test_a_failed_check_of_the_topics_after_an_outage_stops_the_service_and_ends_all_waits(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the error, a request would wait for ever for an answer to a watch that has ended."""

    def check(partitions: Mapping[str, int]) -> None:
        raise TopicMismatch(["frames is missing"])

    async def ends(self: KafkaLog, topic: str) -> Mapping[int, int]:
        raise LogUnavailable("no Kafka")

    monkeypatch.setattr(KafkaLog, "ends", ends)
    stop, watch = asyncio.Event(), KafkaWatch()

    async def outage() -> None:
        async with watch.watching(lambda: broker, stop, check):
            assert await watch.answer()
            broker.up.clear()
            await until(lambda: watch.out)
            asking = asyncio.create_task(PatientLog(KafkaSettings(), "test", watch).ends(FRAMES))
            broker.up.set()
            await asyncio.wait_for(stop.wait(), WAIT_S)
            with pytest.raises(LogUnavailable, match="no Kafka"):
                await asyncio.wait_for(asking, WAIT_S)

    with capture_logs() as lines, pytest.raises(TopicMismatch, match="frames is missing"):
        await outage()
    assert [line["event"] for line in lines] == ["kafka_unavailable", "kafka_watch_failed"]
    assert not watch.running


async def test_an_unexpected_error_of_the_watch_stops_the_service(broker: FakeBroker) -> None:
    async def partitions() -> Mapping[str, int]:
        raise AssertionError("an error in the client")

    broker.partitions = partitions  # type: ignore[method-assign]
    stop, watch = asyncio.Event(), KafkaWatch()

    async def watching() -> None:
        async with watch.watching(lambda: broker, stop):
            assert not await asyncio.wait_for(watch.answer(), WAIT_S)
            await asyncio.wait_for(stop.wait(), WAIT_S)

    with capture_logs() as lines, pytest.raises(AssertionError, match="an error in the client"):
        await watching()
    assert [line["event"] for line in lines] == ["kafka_watch_failed"]


async def test_the_failures_of_a_silent_broker_grow_within_one_request(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog counts an outage as progress only while the number of failures grows."""
    make_silent(broker, monkeypatch)
    watch = KafkaWatch()
    async with watch.watching(lambda: broker, asyncio.Event()):
        await until(lambda: watch.failures >= 3)
        assert broker.asked == 1


@pytest.mark.parametrize("stopped_first", [False, True])
async def test_a_wait_for_kafka_ends_only_if_a_stop_is_requested_and_kafka_is_unavailable(
    broker: FakeBroker, watch: KafkaWatch, monkeypatch: pytest.MonkeyPatch, stopped_first: bool
) -> None:
    """A service that waits for its configuration when Kafka fails must obey a stop."""
    monkeypatch.setattr(outage, "STOP_IN_OUTAGE_S", 0.0)
    stop, answer = asyncio.Event(), asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(watch.unless_stopped(stop, answer))
    first, second = (stop.set, broker.up.clear) if stopped_first else (broker.up.clear, stop.set)
    first()
    await checks(broker, 20)
    assert not waiting.done()
    second()
    with pytest.raises(StoppedInOutage, match="Kafka has been unavailable"):
        await asyncio.wait_for(waiting, WAIT_S)
    assert answer.cancelled()


async def test_work_that_ends_without_a_stop_returns_its_result_or_raises_its_own_error(watch: KafkaWatch) -> None:
    """A time limit inside the work is no outage of Kafka."""

    async def work(error: Exception | None) -> str:
        if error:
            raise error
        return "written"

    assert await watch.unless_stopped(asyncio.Event(), work(None)) == "written"
    with pytest.raises(TimeoutError, match="of the work"):
        await watch.unless_stopped(asyncio.Event(), work(TimeoutError("of the work")))


async def test_a_stop_waits_for_work_while_kafka_answers(
    broker: FakeBroker, watch: KafkaWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "STOP_IN_OUTAGE_S", 0.0)
    receipt: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    finishing = asyncio.create_task(watch.finish(receipt))
    await checks(broker, 20)
    receipt.set_result("written")
    assert await finishing == "written"
    broker.up.clear()
    with pytest.raises(StoppedInOutage, match="Kafka has been unavailable"):
        await asyncio.wait_for(watch.finish(asyncio.Event().wait()), WAIT_S)
