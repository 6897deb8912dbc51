"""Tests of the watch for a group member that is left without partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from prometheus_client import CollectorRegistry, Gauge
from structlog.testing import capture_logs

from ingest.contract.topics import EVENTS, FRAMES
from ingest.exceptions import LogUnavailable, MemberIdle
from ingest.kafka import settings as kafka_clients
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.membership import IDLE_LIMIT_S, IdleMemberDetector, MemberGuard
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import ManualClock

Members = Sequence[tuple[str, int]]


@pytest.mark.parametrize(
    ("partitions", "members", "idle"),
    [
        (4, [("me", 1), ("a", 3)], False),
        (2, [("me", 0), ("a", 1), ("b", 1)], False),
        (2, [("me", 0), ("a", 2)], True),
        (2, [("me", 0), ("a", 0)], True),
        (2, [("me", 0), ("a", 1)], True),
        (0, [("me", 0)], False),
    ],
    ids=["has one", "spare", "another has two", "nobody has one", "one is not held", "no topic"],
)
def test_a_group_member_without_partitions_is_idle_unless_each_partition_has_a_member(
    partitions: int, members: Members, idle: bool
) -> None:
    assert (IdleMemberDetector("me").check(5.0, partitions, members) == 0.0) == idle


def test_idle_time_of_a_group_member_continues_over_rebalances_until_it_gets_a_partition() -> None:
    detector = IdleMemberDetector("me")
    assert detector.check(0.0, 2, None) is None
    assert detector.check(1.0, 2, [("me", 0)]) == 0.0
    assert detector.check(5.0, 2, None) == 4.0
    assert detector.check(6.0, 2, [("me", 0)]) == 5.0
    assert detector.check(7.0, 2, [("me", 2)]) is None
    assert detector.check(8.0, 2, [("me", 0)]) == 0.0


class Answers:
    """A fake of the broker's answers about the members of a group.

    Each request takes 30 s and gets the next answer; the last answer is repeated.
    """

    def __init__(self, *answers: Members | LogUnavailable | None) -> None:
        self.answers, self.clock, self.asked = list(answers), ManualClock(), asyncio.Event()

    async def partitions(self) -> Mapping[str, int]:
        return {FRAMES: 2, EVENTS: 7}

    async def members(self, group: str) -> Members | None:
        self.clock.advance(30.0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if len(self.answers) == 1:
            self.asked.set()
        if isinstance(answer, LogUnavailable):
            raise answer
        return answer


def guard(answers: Answers) -> tuple[MemberGuard, Gauge]:
    gauge = Gauge("idle", "", registry=CollectorRegistry())
    return MemberGuard(answers, "prepare-live", (FRAMES,), "me", gauge, clock=answers.clock, check_s=0.0), gauge


async def test_an_idle_group_member_has_a_metric_and_one_log_line_and_is_stopped_at_the_idle_limit() -> None:
    answers, stop = Answers([("me", 0), ("a", 2)]), asyncio.Event()
    watch, gauge = guard(answers)
    with capture_logs() as logs, pytest.raises(MemberIdle, match=f"for {IDLE_LIMIT_S:.0f} s"):
        async with watch.watching(stop):
            await asyncio.wait_for(stop.wait(), 60)
    assert gauge._value.get() == 1
    assert [(line["event"], line["members"]) for line in logs] == [("member_without_partitions", {"me": 0, "a": 2})]


async def test_a_group_member_that_gets_a_partition_again_continues_reading() -> None:
    answers = Answers([("me", 0), ("a", 2)], LogUnavailable("gone"), [("me", 0), ("a", 2)], [("me", 1), ("a", 1)])
    watch, gauge = guard(answers)
    stop = asyncio.Event()
    with capture_logs() as logs:
        async with watch.watching(stop):
            await asyncio.wait_for(answers.asked.wait(), 60)
            while gauge._value.get():
                await asyncio.sleep(0)
    assert not stop.is_set()
    assert [line["event"] for line in logs if line["log_level"] != "debug"] == [
        "member_without_partitions",
        "member_has_partitions",
    ]


@pytest.mark.kafka
async def test_members_of_a_group_and_their_partitions_are_read_from_the_broker(kafka: str, prefix: str) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=2)
    async with KafkaLog(settings, "test") as log:
        assert await log.members("prepare-live") == []
        consumer = kafka_clients.consumer(settings, "one", group="prepare-live")
        consumer.subscribe([settings.topic(FRAMES)])
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                while not consumer.assignment():
                    await asyncio.sleep(0.05)
            assert await log.members("prepare-live") == [("one", 2)]
        finally:
            await consumer.stop()
            await topicadmin.remove(settings, prefix)
