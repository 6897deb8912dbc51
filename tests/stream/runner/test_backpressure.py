"""Tests of back-pressure: which partitions wait while the readers of their output lag behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.topics import BATCHES, RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.site.topic.view import Config
from stream.analyse.stage import AnalyseStage
from stream.prepare.stage import PrepareStage
from stream.runner.backpressure import BackPressure, BackPressured, Downstream, downstream_lags

DOWNSTREAM = Downstream("engines", BATCHES, 2, 10)


def test_a_partition_whose_downstream_lag_exceeds_the_maximum_waits_until_the_lag_has_halved() -> None:
    pressure = BackPressure(10)
    assert pressure.held({0: 10, 1: 11}) == {1}
    assert pressure.held({0: 6, 1: 6}) == {1}
    assert pressure.held({0: 6, 1: 5}) == frozenset()
    assert pressure.held({0: 6, 1: 10}) == frozenset()


def test_back_pressure_forgets_a_partition_that_is_no_longer_assigned() -> None:
    pressure = BackPressure(10)
    assert pressure.held({0: 11}) == {0}
    assert pressure.held({}) == frozenset()
    assert pressure.held({0: 8}) == frozenset()


@given(st.lists(st.integers(0, 30), max_size=30))
def test_back_pressure_bounds_the_lag_and_no_partition_waits_below_half_of_the_maximum(lags: list[int]) -> None:
    pressure = BackPressure(10)
    for lag in lags:
        held = bool(pressure.held({0: lag}))
        assert held or lag <= 10
        assert not held or lag > 5


async def test_the_downstream_lag_counts_retained_records_that_the_group_has_not_committed() -> None:
    log = MemoryLog(3)
    for partition in range(3):
        for number in range(8):
            await log.produce(Outgoing(BATCHES, partition, bytes([number])))
    writer = await log.writer("engines-0")
    await writer.write([Outgoing(RESULTS, 1, b"")], "engines", {TopicPartition(BATCHES, 1): 5})
    log.forget(TopicPartition(BATCHES, 2), 6)
    assert await downstream_lags(log, DOWNSTREAM, [0, 1, 2]) == {0: 8, 1: 3, 2: 2}


def test_back_pressure_of_prepare_follows_the_lag_of_engines_and_analyse_has_no_back_pressure() -> None:
    for lane, topic in (("live", BATCHES), ("late", "batches.late")):
        stage = PrepareStage(lane, Config({}))  # type: ignore[arg-type]
        assert isinstance(stage, BackPressured)
        assert stage.downstream[:2] == ("engines", topic)
    assert not isinstance(AnalyseStage(Config({}), 1), BackPressured)
