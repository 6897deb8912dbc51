"""Tests that records of a chunk that are processed together give the same events as single records."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import pytest
from prometheus_client import CollectorRegistry

from ingest.contract.codec import decode_json, encode
from ingest.contract.records import GOOD, Event, Readings
from ingest.contract.records.signal import JoinSignal
from ingest.contract.topics import DEADLETTER, EVENTS, READINGS
from ingest.kafka.log import LogRecord
from ingest.runtime.clock import ManualClock
from ingest.site import SensorConfig
from ingest.site.topic.view import Config
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.epochs import RUN_RECORDS
from stream.join.joiner import ConditionTimeline
from stream.metrics import SenseMetrics
from stream.rules import Happening
from stream.runner.processor import Work
from stream.sense.rule import ReadingHappening
from stream.sense.rules.anomaly import AnomalyRule
from stream.sense.rules.gap import GapRule
from stream.sense.rules.limit import LimitRule, LimitWatch
from stream.sense.rules.stuck import StuckRule
from stream.sense.rules.threshold import ThresholdRule, ThresholdWatch
from stream.sense.stage import OutputPartitions, SenseProcessor
from stream.sense.windows import Column, ReadingWindow
from tests.stream.sense.chunks import in_one_chunk

SECOND_NS = 10**9
START_NS, STEP_NS = 1000 * SECOND_NS, SECOND_NS // 5
NAMES = ("t", "u", "late")
UNIT = {"source": "simulated:t", "quantity": "temperature", "unit": "Cel", "rate_hz": 5.0, "high": 90.0}
ENTRIES = [
    entry
    for name in NAMES
    for entry in (
        SensorConfig(name=name, lateness_s=5.0 if name == "late" else 1.0, measure=name == "u", **UNIT),
        ThresholdRule(name=f"hot-{name}", sensor=name, window_s=1.0, min_readings=1, above=50.0),
        ThresholdRule(name=f"hop-{name}", sensor=name, window_s=1.2, hop_s=0.4, min_readings=1, above=50.0),
        StuckRule(name=f"stuck-{name}", sensor=name, for_s=1.0),
        LimitRule(name=f"limit-{name}", sensor=name, above=70.0),
    )
]
CONFIG = Config({entry.key: entry for entry in ENTRIES})
MORE_RULES = [
    rule
    for name in NAMES
    for rule in (
        ThresholdRule(
            name=f"session-{name}", sensor=name, window_s=3.0, session_gap_s=0.5, min_readings=1, above=50.0
        ),
        AnomalyRule(name=f"odd-{name}", sensor=name, window_s=1.0, min_readings=1, min_windows=3, min_deviation=1.0),
        GapRule(name=f"gap-{name}", sensor=name, for_s=1.0),
    )
]
EVERY_RULE = Config({entry.key: entry for entry in (*ENTRIES, *MORE_RULES)})


def record(
    offset: int, sensor: str, seq: int, values: Sequence[float], epoch: int = 1, step: int | None = None
) -> LogRecord:
    """Return a record whose readings begin at ``step`` times ``STEP_NS``, by default at ``seq`` times."""
    step = seq if step is None else step
    readings = Readings(
        sensor=sensor,
        epoch=epoch,
        seq=seq,
        quantity="temperature",
        unit="Cel",
        times_ns=tuple(START_NS + (step + n) * STEP_NS for n in range(len(values))),
        values=tuple(values),
        quality=(GOOD,) * len(values),
    )
    return LogRecord(READINGS, 0, offset, sensor.encode(), encode(readings), {}, offset)


def processor(
    config: Callable[[], Config] = lambda: CONFIG, registry: CollectorRegistry | None = None
) -> SenseProcessor:
    metrics = SenseMetrics(registry or CollectorRegistry())
    return SenseProcessor(config, OutputPartitions(1, 1, 1), metrics, ManualClock())


def outcome(records: list[LogRecord], edges: list[int]) -> tuple[dict[str, list[bytes]], list[int], dict[str, float]]:
    """Process records in chunks that end at ``edges``. Return the events by rule and the measures, the finished
    offsets, and the dropped readings by sensor and reason."""
    registry = CollectorRegistry()
    sense, output = processor(lambda: EVERY_RULE, registry), defaultdict[str, list[bytes]](list)
    done: list[int] = []
    for first, stop in zip([0, *edges], [*edges, len(records)], strict=True):
        for work in in_one_chunk(sense, *records[first:stop]):
            done += work.done
            for out in work.records:
                name = decode_json(Event, out.value).data.rule if out.topic == EVENTS else out.topic
                output[name].append(out.value)
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return output, sorted(done), {str(sorted(one.labels.items())): one.value for one in samples}


def random_records(chance: random.Random) -> list[LogRecord]:
    """Return 300 records in which readings are missing or repeated, pause without a missing reading, or have another
    epoch."""
    records, nexts, pauses = [], Counter[tuple[str, int]](), Counter[str]()
    for offset in range(300):
        sensor, epoch = chance.choice(NAMES), chance.choice([1] * 60 + [2, 3])
        values = chance.choices([20.0, 20.0, 60.0, 80.0, 95.0], k=chance.randint(1, 4))
        seq = max(nexts[sensor, epoch] + chance.choice([0] * 20 + [7, 40, -3]), 0)
        nexts[sensor, epoch] = seq + len(values)
        pauses[sensor] += chance.choice([0] * 8 + [4, 400])
        records.append(record(offset, sensor, seq, values, epoch, step=seq + pauses[sensor]))
    return records


@pytest.mark.parametrize("seed", range(8))
def test_the_events_of_records_do_not_depend_on_the_chunks_that_they_come_in(seed: int) -> None:
    chance = random.Random(seed)
    records = random_records(chance)
    singly = outcome(records, list(range(1, len(records))))
    assert singly[1] == list(range(len(records)))
    assert outcome(records, sorted(chance.sample(range(1, len(records)), 15))) == singly


def test_a_breach_of_a_sensor_with_much_lateness_is_reported_although_its_records_come_in_one_chunk() -> None:
    entries = (
        SensorConfig(name="t", lateness_s=5.0, **UNIT),
        ThresholdRule(name="hop", sensor="t", window_s=6.0, hop_s=2.0, min_readings=1, above=50.0),
    )
    config = Config({entry.key: entry for entry in entries})
    sense = processor(lambda: config)
    readings = [(10, 20.0), (35, 80.0), (60, 20.0), (65, 20.0)]  # numbers are multiples of STEP_NS
    records = [record(n, "t", n, [value], step=step) for n, (step, value) in enumerate(readings)]
    works = in_one_chunk(sense, *records)
    assert [out.topic for work in works for out in work.records] == [EVENTS]


def test_a_join_does_not_count_a_reading_for_longer_than_valid_s_although_its_records_come_in_one_chunk() -> None:
    line = {"camera": "road", "pipeline": "p", "start": (0.5, 1.0), "end": (0.5, 0.0)}
    join = RedLightRule(name="red", sensor="t", above=50.0, valid_s=60.0, **line)
    config = Config({entry.key: entry for entry in (SensorConfig(name="t", **UNIT), join)})
    sense = processor(lambda: config)
    in_one_chunk(sense, record(0, "t", 0, [20.0]))
    pause_steps = 90 * SECOND_NS // STEP_NS
    works = in_one_chunk(sense, *(record(n, "t", n, [80.0], step=n * pause_steps) for n in (1, 2)))
    timeline = ConditionTimeline(join.valid_s)
    for signal in [decode_json(JoinSignal, out.value) for work in works for out in work.records]:
        timeline.add(signal.changes, signal.at_ns)
    begin_ns = START_NS + 90 * SECOND_NS
    assert [timeline.since_ns(begin_ns + after_s * SECOND_NS) for after_s in (50, 70, 90)] == [
        begin_ns,
        None,
        begin_ns + 90 * SECOND_NS,
    ]


def test_consecutive_records_of_a_sensor_in_one_chunk_finish_together() -> None:
    sense = processor()
    in_one_chunk(sense, record(0, "t", 0, [20.0]), record(1, "u", 0, [20.0]))
    parts = [record(2 + n, "tu"[n % 2], 1 + n // 2, [20.0]) for n in range(6)]
    assert [work.done for work in in_one_chunk(sense, *parts)] == [(2, 4, 6), (3, 5, 7)]
    after_gap = [record(8, "t", 4, [20.0]), record(9, "t", 9, [20.0]), record(10, "t", 10, [20.0])]
    assert [work.done for work in in_one_chunk(sense, *after_gap)] == [(8,), (9, 10)]


def test_only_the_records_that_were_processed_together_with_a_failing_one_become_dead_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = ThresholdWatch.step

    def breaks(self: ThresholdWatch, window: ReadingWindow) -> Happening | None:
        if self._sensor == "t":
            raise ArithmeticError("a rule of another package failed")
        return step(self, window)

    sense = processor()
    in_one_chunk(sense, record(0, "t", 0, [20.0]), record(1, "u", 0, [20.0]))
    monkeypatch.setattr(ThresholdWatch, "step", breaks)
    long = [70.0] * 15
    chunk = [
        *(record(2, "t", 1, long), record(3, "u", 1, long), record(4, "t", 16, long)),
        LogRecord(READINGS, 0, 5, b"t", b"no record"),
    ]
    works = in_one_chunk(sense, *chunk)
    topics = {work.done: [out.topic for out in work.records] for work in works}
    assert topics == {(5,): [DEADLETTER], (2,): [DEADLETTER], (4,): [DEADLETTER], (3,): [EVENTS] * 3}


class FragileWatch(LimitWatch):
    def step(self, column: Column) -> Iterator[ReadingHappening]:
        if 66.0 in column.values:
            raise ArithmeticError("the rule failed")
        return super().step(column)


class FragileRule(LimitRule):
    """A rule of another package, which fails on the value 66."""

    TAKES_COLUMNS = False

    def watch(self, sensor: str, config: SensorConfig | None) -> FragileWatch:
        return FragileWatch(self, sensor, config)


FRAGILE = FragileRule(name="fragile", sensor="t", above=99.0)
FRAGILE_CONFIG = Config({entry.key: entry for entry in (*ENTRIES, FRAGILE)})


def test_a_rule_of_another_package_that_fails_on_one_record_spoils_no_other_record() -> None:
    sense = processor(lambda: FRAGILE_CONFIG)
    values = [20.0, 20.0, 66.0, 80.0, 20.0, 80.0]
    works = in_one_chunk(sense, *(record(n, "t", n, [value]) for n, value in enumerate(values)))
    letters = [work.done for work in works if DEADLETTER in [out.topic for out in work.records]]
    events = [out for work in works for out in work.records if out.topic == EVENTS]
    assert letters == [(2,)]
    assert len(events) == 2  # the limit is exceeded twice


def test_a_configuration_that_arrives_while_a_chunk_is_collected_is_used_from_the_next_chunk_on() -> None:
    configs = [CONFIG]
    sense = processor(lambda: configs[-1])
    in_one_chunk(sense, record(0, "t", 0, [20.0]))
    sense.process(record(1, "t", 1, [66.0]))
    sense.process(record(2, "t", 2, [20.0]))
    configs.append(FRAGILE_CONFIG)
    assert sense.end_chunk() == [Work(done=(1, 2))]
    works = in_one_chunk(sense, record(3, "t", 3, [20.0]), record(4, "t", 4, [66.0]))
    assert {work.done: [out.topic for out in work.records] for work in works} == {(3,): [], (4,): [DEADLETTER]}


def test_each_record_of_a_lower_epoch_counts_until_the_lower_epoch_is_accepted() -> None:
    sense = processor()
    in_one_chunk(sense, record(0, "t", 0, [20.0], epoch=7))
    lower = [record(1 + n, "t", n, [70.0]) for n in range(RUN_RECORDS + 30)]
    works = in_one_chunk(sense, *lower)
    assert [work.done for work in works][:RUN_RECORDS] == [(1 + n,) for n in range(RUN_RECORDS)]
    assert [out.topic for work in works for out in work.records] == [EVENTS] * 3
