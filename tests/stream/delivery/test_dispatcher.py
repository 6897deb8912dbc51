"""Tests of the dispatcher on a real Kafka: restarts, rebalances, and receivers that come and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Alert, Delivery
from ingest.contract.topics import ALERTS, DELIVERIES
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline, ManualClock
from ingest.site import ReceiverConfig
from ingest.site.topic.store import publish
from ingest.site.topic.view import ConfigView
from stream.alerts.alert import make_alert
from stream.delivery.clients.webhook import Deliverer
from stream.delivery.dispatcher import Dispatcher
from stream.delivery.schedule import AttemptResult
from stream.delivery.throttle import FAILURES
from stream.metrics import DispatchMetrics
from tests.stream.alerts.test_alerts import event

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

PARTITIONS = 2
WAIT_S = 60.0


class CountedPosts:
    """Receivers that count the posts of each alert. Posts to the receivers in ``down`` fail."""

    def __init__(self) -> None:
        self.posts: Counter[tuple[str, str]] = Counter()
        self.down: set[str] = set()

    def deliverer(self, config: ReceiverConfig) -> Deliverer:
        counted = self

        class Counting:
            async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
                if config.name in counted.down:
                    return AttemptResult(503)
                counted.posts[config.name, alert.id] += 1
                await asyncio.sleep(0)
                return AttemptResult(204)

            async def close(self) -> None:
                pass

        return Counting()

    def of(self, receiver: str) -> int:
        return sum(count for (name, _), count in self.posts.items() if name == receiver)


def config(name: str, **fields: object) -> ReceiverConfig:
    return ReceiverConfig.model_validate(
        {"name": name, "url": "http://receiver/", "secret_file": "secret", "retry_s": (0, 3600)} | fields
    )


async def until(done: Callable[[], bool], goal: str) -> None:
    deadline = Deadline.after(WAIT_S)
    while not done():
        assert not deadline.passed, f"{goal} was not reached"
        await asyncio.sleep(0.02)


@pytest.fixture
async def log(kafka: str, prefix: str) -> AsyncIterator[KafkaLog]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=PARTITIONS)
    async with KafkaLog(settings, "test-dispatch") as log:
        yield log


async def raise_alerts(log: KafkaLog, numbers: range) -> None:
    for number in numbers:
        alert = make_alert(event(number), ())
        await log.produce(Outgoing(ALERTS, number % PARTITIONS, encode_json(alert), key=alert.id.encode()))


@asynccontextmanager
async def dispatching(
    log: KafkaLog,
    receivers: Sequence[ReceiverConfig],
    posts: CountedPosts,
    *,
    kill: bool = False,
    **options: Any,
) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher during the ``with`` block. With ``kill``, the dispatcher ends without its last commit."""
    await publish(log, receivers)
    dispatcher, stop = Dispatcher(log.settings, receivers, posts.deliverer, **options), asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))
    try:
        yield dispatcher
    finally:
        if kill:
            running.cancel()
        stop.set()
        await asyncio.wait({running})
    if not kill:
        await running


async def receipts(log: KafkaLog, receiver: str) -> int:
    found = [
        decode_json(Delivery, record.value).receiver
        for partition, end in (await log.ends(DELIVERIES)).items()
        async for record in log.read(DELIVERIES, partition, 0, end)
    ]
    return found.count(receiver)


async def test_restarts_of_the_dispatcher_repeat_no_delivered_alert(log: KafkaLog) -> None:
    posts, receivers = CountedPosts(), [config("r"), config("down")]
    posts.down = {"down"}
    await raise_alerts(log, range(30))
    for start in range(3):
        kill = start == 1
        async with dispatching(log, receivers, posts, kill=kill):
            await until(lambda wanted=30 + start: posts.of("r") >= wanted, "delivery")  # type: ignore[misc]
            await raise_alerts(log, range(30 + start, 31 + start))
            await until(lambda wanted=31 + start: posts.of("r") >= wanted, "delivery")  # type: ignore[misc]
            written = asyncio.Event()
            while not written.is_set():  # a kill between an answer and its receipt would repeat a post
                if await receipts(log, "r") >= 31 + start:
                    written.set()
                await asyncio.sleep(0.02)
    assert set(posts.posts.values()) == {1}
    assert await receipts(log, "r") == 33
    assert await receipts(log, "down") >= FAILURES  # the circuit is open after these


async def test_the_dispatcher_reads_no_receipts_of_finished_alerts_when_it_starts(log: KafkaLog) -> None:
    posts, receivers = CountedPosts(), [config("r")]
    await raise_alerts(log, range(40))
    async with dispatching(log, receivers, posts):
        await until(lambda: posts.of("r") == 40, "delivery")
    async with dispatching(log, receivers, posts) as dispatcher:
        await until(lambda: len(dispatcher._owned) == PARTITIONS, "take-over")
        assert sum(owned.alerts_next for owned in dispatcher._owned.values()) == 40
        await raise_alerts(log, range(40, 41))
        await until(lambda: posts.of("r") == 41, "delivery")
    assert set(posts.posts.values()) == {1}


async def test_a_rebalance_of_dispatchers_repeats_no_delivered_alert(log: KafkaLog) -> None:
    posts, receivers = CountedPosts(), [config("r")]
    await raise_alerts(log, range(40))
    async with dispatching(log, receivers, posts) as first:
        await until(lambda: posts.of("r") > 0, "the first delivery")
        async with dispatching(log, receivers, posts) as second:
            await until(lambda: len(first._owned) == len(second._owned) == 1, "a shared group")
            await raise_alerts(log, range(40, 60))
            await until(lambda: posts.of("r") >= 60, "delivery")
        await raise_alerts(log, range(60, 70))
        await until(lambda: posts.of("r") >= 70, "delivery")
    assert len(posts.posts) == 70
    assert set(posts.posts.values()) == {1}


async def test_alerts_that_exceed_the_memory_limit_are_read_from_the_log_and_delivered_once(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.delivery.pending.HELD_ALERTS", 3)
    posts, registry, clock = CountedPosts(), CollectorRegistry(), ManualClock()
    await raise_alerts(log, range(20))
    receivers = [config("r", retry_s=(60, 60))]
    async with dispatching(log, receivers, posts, metrics=DispatchMetrics(registry), clock=clock) as dispatcher:
        await until(lambda: bool(dispatcher._senders) and len(dispatcher._senders["r"].pending) == 20, "intake")
        clock.advance(61.0)
        await until(lambda: posts.of("r") == 20, "delivery")
    assert len(posts.posts) == 20
    assert set(posts.posts.values()) == {1}
    assert registry.get_sample_value("sightline_dispatch_read_again_total", {"receiver": "r"}) == 17.0


async def test_the_dispatcher_adds_and_removes_receivers_as_the_configuration_changes(log: KafkaLog) -> None:
    posts = CountedPosts()
    await raise_alerts(log, range(10))
    async with dispatching(log, [config("old")], posts) as dispatcher:
        await until(lambda: posts.of("old") == 10, "delivery")
        await dispatcher.apply([config("old"), config("new"), config("all", history=True)])
        await until(lambda: posts.of("all") == 10, "the history")
        await raise_alerts(log, range(10, 20))
        await until(lambda: (posts.of("old"), posts.of("new"), posts.of("all")) == (20, 10, 20), "delivery")
        await dispatcher.apply([config("new"), config("all", history=True)])
        await raise_alerts(log, range(20, 30))
        await until(lambda: (posts.of("new"), posts.of("all")) == (20, 30), "delivery")
    await publish(log, [], ["receiver/old"])
    receivers = [config("new"), config("all", history=True), config("newest")]
    async with dispatching(log, receivers, posts) as dispatcher:
        await until(lambda: len(dispatcher._owned) == PARTITIONS, "take-over")
        await raise_alerts(log, range(30, 40))
        await until(lambda: (posts.of("new"), posts.of("all")) == (30, 40), "delivery")
        await until(lambda: posts.of("newest") == 10, "delivery")
    assert (posts.of("old"), posts.of("newest")) == (20, 10)
    assert set(posts.posts.values()) == {1}


async def test_the_dispatcher_keeps_its_initial_receivers_until_the_config_topic_has_a_receiver_record(
    log: KafkaLog, tmp_path: Path
) -> None:
    posts = CountedPosts()
    async with dispatching(log, [config("r")], posts) as dispatcher:
        await dispatcher._on_config(ConfigView())
        await raise_alerts(log, range(1))
        await until(lambda: posts.of("r") == 1, "delivery")
        removed = ConfigView()
        removed.apply("receiver/r", b"")
        await dispatcher._on_config(removed)
        assert dispatcher._senders == {}
