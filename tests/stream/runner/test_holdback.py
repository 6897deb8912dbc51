"""A stage waits while its reader is behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.topics import BATCHES, RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.site.topic.view import Config
from stream.analyse.stage import AnalyseStage
from stream.prepare.stage import PrepareStage
from stream.runner.holdback import HeldBack, HoldBack, Reader, behind

READER = Reader("engines", BATCHES, 10)


def test_a_partition_is_held_above_the_limit_until_half_is_done() -> None:
    hold = HoldBack(10)
    assert hold.held({0: 10, 1: 11}) == {1}
    assert hold.held({0: 6, 1: 6}) == {1}
    assert hold.held({0: 6, 1: 5}) == frozenset()
    assert hold.held({0: 6, 1: 10}) == frozenset()


def test_a_partition_that_has_gone_is_forgotten() -> None:
    hold = HoldBack(10)
    assert hold.held({0: 11}) == {0}
    assert hold.held({}) == frozenset()
    assert hold.held({0: 8}) == frozenset()


@given(st.lists(st.integers(0, 30), max_size=30))
def test_what_waits_is_bounded_and_nothing_is_held_for_ever(waiting: list[int]) -> None:
    hold = HoldBack(10)
    for count in waiting:
        held = bool(hold.held({0: count}))
        assert held or count <= 10
        assert not held or count > 5


async def test_behind_is_what_the_reader_has_not_committed_and_retention_has_left() -> None:
    log = MemoryLog(3)
    for partition in range(3):
        for number in range(8):
            await log.produce(Outgoing(BATCHES, partition, bytes([number])))
    writer = await log.writer("engines-0")
    await writer.write([Outgoing(RESULTS, 1, b"")], "engines", {TopicPartition(BATCHES, 1): 5})
    log.forget(TopicPartition(BATCHES, 2), 6)
    assert await behind(log, READER, [0, 1, 2]) == {0: 8, 1: 3, 2: 2}


def test_prepare_waits_for_the_engines_and_analyse_for_nobody() -> None:
    for lane, topic in (("live", BATCHES), ("late", "batches.late")):
        stage = PrepareStage(lane, Config({}))  # type: ignore[arg-type]
        assert isinstance(stage, HeldBack)
        assert stage.reader[:2] == ("engines", topic)
    assert not isinstance(AnalyseStage(Config({}), 1), HeldBack)
