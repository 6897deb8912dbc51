"""A test of the dispatcher during an outage of the broker.

``python -m benchmarks.console outages`` runs the whole stack through an outage.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from deploy.local.kafka.broker import Broker
from ingest.contract.records import Alert
from ingest.kafka import outage, topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.outage import KafkaWatch
from ingest.kafka.settings import KafkaSettings
from ingest.site import ReceiverConfig
from stream.delivery.clients.webhook import Deliverer
from stream.delivery.dispatcher import Dispatcher
from stream.delivery.schedule import AttemptResult
from tests.stream.delivery.test_dispatcher import WAIT_S, CountedPosts, config, raise_alerts, receipts, until

pytestmark = [pytest.mark.chaos, pytest.mark.kafka, pytest.mark.timeout(480)]

TIMEOUT_S = 0.2
"""Time limit of a request of the dispatcher, in seconds, so that a short outage is longer than several limits."""


class CountedWatch(KafkaWatch):
    """A watch that counts how often a request asks it whether Kafka is unavailable."""

    asked = 0

    @property
    def out(self) -> bool:
        self.asked += 1
        return super().out


class HeldPosts(CountedPosts):
    """A receiver that responds to posts only while ``open`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    def deliverer(self, config: ReceiverConfig) -> Deliverer:
        held, counting = self, super().deliverer(config)

        class Holding:
            async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
                await held.open.wait()
                return await counting.deliver(alert, now_s)

            async def close(self) -> None:
                await counting.close()

        return Holding()


def taken(dispatcher: Dispatcher) -> int:
    """Return how many alerts the dispatcher has read."""
    return sum(owned.alerts_next for owned in dispatcher._owned.values())


def unfinished(dispatcher: Dispatcher) -> int:
    """Return how many of the alerts that the dispatcher has read have no final receipt."""
    return sum(len(sender.pending._known) for sender in dispatcher._senders.values())


async def test_the_dispatcher_outlives_a_killed_broker_and_writes_each_receipt_once(
    own_broker: Broker, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "CHECK_S", 0.1)
    monkeypatch.setattr(outage, "ANSWER_S", 2.0)
    settings, posts, watch = KafkaSettings(bootstrap=own_broker.bootstrap, prefix=prefix), HeldPosts(), CountedWatch()
    await topicadmin.create(settings, partitions=2)
    stop = asyncio.Event()
    async with KafkaLog(settings, "test") as log, watch.watching(lambda: KafkaLog(settings, "watch"), stop):
        await watch.answer()
        dispatcher = Dispatcher(settings, [config("r")], posts.deliverer, watch=watch)
        running = asyncio.create_task(dispatcher.run(stop))
        posts.open.set()
        await raise_alerts(log, range(2))
        await until(lambda: taken(dispatcher) == 2 and not unfinished(dispatcher), "the first receipts")
        posts.open.clear()
        await raise_alerts(log, range(2, 10))
        await until(lambda: taken(dispatcher) == 10, "intake")
        with capture_logs() as lines:
            own_broker.kill()
            await until(lambda: watch.out, "the outage")
            dispatcher._log._timeout_s = TIMEOUT_S
            posts.open.set()  # the receiver accepts the posts whose receipts cannot be written now
            before = watch.asked
            await until(lambda: watch.asked > before + 50 or running.done(), "several time limits")
            assert not running.done()
            assert "Kafka has been unavailable" in watch.unready_reason()
            await asyncio.to_thread(own_broker.start)
            await until(lambda: not watch.out, "the end of the outage")
        dispatcher._log._timeout_s = outage.TIMEOUT_S
        await raise_alerts(log, range(10, 12))
        await until(lambda: posts.of("r") == 12 or running.done(), "delivery")
        assert set(posts.posts.values()) == {1}
        await until(lambda: not unfinished(dispatcher), "the receipts")
        assert await receipts(log, "r") == 12
        posts.open.clear()
        await raise_alerts(log, range(12, 13))
        await until(lambda: any(dispatcher._senders["r"]._attempts.values()), "the attempt")
        stop.set()
        own_broker.kill()
        await until(lambda: watch.out, "the second outage, which begins after the stop")
        posts.open.set()
        await asyncio.wait_for(running, WAIT_S)  # although a receipt cannot be written
    events = [line["event"] for line in lines]
    assert [event for event in events if event.startswith("kafka_")] == ["kafka_unavailable", "kafka_available_again"]
