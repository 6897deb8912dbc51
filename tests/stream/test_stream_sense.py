"""Readings: every one that counts is in one window, however they were cut into columns."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ingest.codec import decode_json, encode
from ingest.configstore import Config
from ingest.log import Outgoing, Slot
from ingest.memorylog import MemoryLog
from ingest.records import GOOD, SUSPECT, Event, Readings
from ingest.site import SensorConfig, ThresholdRule
from ingest.topics import EVENTS, READINGS
from stream.sense.clean import Cleaner
from stream.sense.stage import SenseStage
from stream.sense.windows import Windows

SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="Cel", low=-40, high=100)
RULE = ThresholdRule(name="hot", sensor="t", window_s=1.0, above=50.0)
CONFIG = Config({entry.key: entry for entry in (SENSOR, RULE)})
STEP_NS = 100_000_000


def readings(seq: int, values: list[float], quality: list[int] | None = None, epoch: int = 1) -> Readings:
    return Readings(
        sensor="t",
        epoch=epoch,
        seq=seq,
        quantity="temperature",
        unit="Cel",
        times_ns=tuple((seq + i) * STEP_NS for i in range(len(values))),
        values=tuple(values),
        quality=tuple(quality or [GOOD] * len(values)),
    )


@given(
    values=st.lists(st.floats(-30, 90), min_size=1, max_size=120),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_windows_do_not_depend_on_how_readings_are_cut(values: list[float], cuts: list[int]) -> None:
    rows = [(i * STEP_NS, v) for i, v in enumerate(values)]
    whole = Windows(1.0).add(rows)
    edges = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    windows, parts = Windows(1.0), []
    for a, b in itertools.pairwise(edges):
        parts += windows.add(rows[a:b])
    assert parts == whole
    assert [w.count for w in whole] == [10] * len(whole)
    assert windows.late == 0


def test_what_cannot_be_is_dropped_and_counted() -> None:
    cleaner = Cleaner(SENSOR)
    kept = cleaner.clean(readings(0, [20.0, 999.0, float("nan"), 21.0, 22.0], [GOOD, GOOD, GOOD, SUSPECT, GOOD]))
    assert [value for _, value in kept] == [20.0, 22.0]
    assert cleaner.dropped == {"range": 2, "suspect": 1}
    assert cleaner.clean(readings(3, [21.0, 22.0, 23.0])) == [(5 * STEP_NS, 23.0)]
    assert cleaner.dropped["repeat"] == 2


async def events_of(log: MemoryLog, start: int, stop: int) -> dict[str, Event]:
    sensing = await SenseStage(CONFIG, 1).open(Slot(READINGS, 0), start, log)
    found = {}
    async for record in log.read(READINGS, 0, start, stop):
        for work in sensing.process(record):
            for out in work.records:
                assert out.topic == EVENTS
                event = decode_json(Event, out.value)
                found[event.id] = event
    return found


async def test_a_bound_that_is_broken_is_told_once_and_again_after_it_was_kept() -> None:
    log = MemoryLog(partitions=1)
    values = [20.0] * 30 + [70.0] * 30 + [20.0] * 30 + [70.0] * 30 + [20.0] * 30
    for seq in range(0, len(values), 7):
        await log.produce(Outgoing(READINGS, 0, encode(readings(seq, values[seq : seq + 7]))))
    count = -(-len(values) // 7)
    whole = await events_of(log, 0, count)
    assert [e.data.captured_ns for e in whole.values()] == [3_000_000_000, 9_000_000_000]
    event = next(iter(whole.values()))
    assert event.data.value == 70.0
    assert "above 50" in event.data.summary
    for cut in range(count):  # a restart anywhere, with its tail, tells the same
        first, second = await events_of(log, 0, cut), await events_of(log, max(0, cut - 2), count)
        assert {**first, **second} == whole
