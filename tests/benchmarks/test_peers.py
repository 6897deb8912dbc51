"""Tests of the figures, tables and loads of the comparison with the peers."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from threading import BrokenBarrierError

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.peers import __main__ as peers
from benchmarks.peers import series
from benchmarks.peers.bareloop import FrameLoop
from benchmarks.peers.edge import EdgeLoad, records_per_s
from benchmarks.peers.framejob import FrameJob
from benchmarks.peers.frames import Step
from benchmarks.peers.jobs.operations import SensorWindows, exceeds, single, sums
from benchmarks.peers.load import ResultArrivals
from benchmarks.peers.operators import OPERATORS, PARTITIONS
from benchmarks.peers.tables import append_run, markdown, read_runs, summary, to_bare, to_peer, turns
from benchmarks.peers.usage import cpu_s, pss_mb, stored_bytes
from benchmarks.pipeline import shipped_case
from ingest.contract.topics import EVENTS, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.stage import AnalyseStage
from stream.rules import validated
from stream.runner.memory import MemoryRunner
from stream.sense.stage import SenseStage

RUNS = [
    {"case": "a", "round": 0, "system": "bare", "fps": 100.0, "cpu_ms": 10.0},
    {"case": "a", "round": 0, "system": "x", "fps": 80.0, "cpu_ms": 15.0, "p99_ms": 9.0},
    {"case": "a", "round": 1, "system": "bare", "fps": 50.0, "cpu_ms": 20.0},
    {"case": "a", "round": 1, "system": "x", "fps": 45.0, "cpu_ms": 22.0},
    {"case": "b", "round": 0, "system": "x", "fps": 7.0, "cpu_ms": 1.0},
]


def test_each_result_is_a_ratio_to_the_bare_loop_baseline_of_the_same_case_and_round() -> None:
    ratios = [(run.get("to_bare"), run.get("cpu_to_bare")) for run in to_bare(RUNS)]
    assert ratios == [(1.0, 1.0), (0.8, 1.5), (1.0, 1.0), (0.9, 1.1), (None, None)]


def test_a_failed_run_has_no_ratio_to_the_bare_loop_baseline() -> None:
    assert "to_bare" not in to_bare([*RUNS, {"case": "a", "round": 0, "system": "y", "error": "gone"}])[-1]


def test_a_summary_has_the_median_and_the_range_of_each_figure_over_all_runs() -> None:
    rows = summary(RUNS, ("case", "system"), ("fps", "p99_ms"))
    assert rows == [
        {"case": "a", "system": "bare", "runs": 2, "fps": [75.0, 50.0, 100.0]},
        {"case": "a", "system": "x", "runs": 2, "fps": [62.5, 45.0, 80.0], "p99_ms": [9.0, 9.0, 9.0]},
        {"case": "b", "system": "x", "runs": 1, "fps": [7.0, 7.0, 7.0]},
    ]


def test_a_table_shows_ranges_and_marks_missing_figures() -> None:
    rows = summary(RUNS, ("system",), ("fps", "p99_ms"))
    assert markdown(rows, ("system",), {"fps": "frames/s", "p99_ms": "p99 ms"}).splitlines() == [
        "| system | frames/s | p99 ms |",
        "| --- | --- | --- |",
        "| bare | 75 (50–100) | – |",
        "| x | 45 (7–80) | 9 |",
    ]


def test_the_order_of_the_compared_systems_rotates_from_round_to_round() -> None:
    assert [turns("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_a_comparison_appends_its_rounds_to_the_file_and_continues_the_rotation_of_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(system: str, load: EdgeLoad, broker: str, step: Step) -> dict[str, float]:
        step(broker)
        return {"mb_per_s": float(load.records)}

    monkeypatch.setattr(peers, "fresh_broker", nullcontext)
    monkeypatch.setattr(peers, "measure_edge", measured)
    options = ["edge", "--systems=agent,link", "--records=100", "--rounds=1", f"--runs={tmp_path / 'runs.jsonl'}"]
    for _ in range(2):
        result = CliRunner().invoke(peers.app, options)
        assert result.exit_code == 0, result.output
    runs = [(run["round"], run["system"], run["mb_per_s"]) for run in read_runs(tmp_path / "runs.jsonl")]
    assert runs == [(0, "agent", 100.0), (0, "link", 100.0), (1, "link", 100.0), (1, "agent", 100.0)]


def test_a_bare_loop_baseline_whose_processes_cannot_load_the_model_ends_with_an_error(tmp_path: Path) -> None:
    pipeline = PipelineConfig(name="p", model="m", width=16, height=16)
    with pytest.raises(BrokenBarrierError):
        FrameLoop([], tmp_path, pipeline).run(1, processes=1)


def test_the_benchmark_code_that_other_systems_run_on_a_frame_finds_a_labelled_object() -> None:
    case = shipped_case(2)
    picture = case.pictures[0]
    job = FrameJob(case.model.folder, case.pipeline)
    (found, *_) = job.detections(picture.jpeg, picture.motion)
    assert found.label in case.model.manifest.labels


def test_benchmark_runs_appended_to_a_file_are_read_from_it_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    assert read_runs(file) == []
    for run in RUNS:
        append_run(file, run)
    assert read_runs(file) == RUNS


def test_a_repeated_result_does_not_change_the_recorded_time_of_its_first_arrival() -> None:
    arrivals = ResultArrivals()
    arrivals.add(b"camera/1/0", b"first", 1.0)
    arrivals.add(b"camera/1/0", b"again", 2.0)
    assert (arrivals.at_s, arrivals.values, arrivals.repeats) == ({b"camera/1/0": 1.0}, [b"first"], 1)


async def test_the_error_of_a_wait_for_results_contains_the_reason_of_a_failed_worker() -> None:
    with pytest.raises(TimeoutError, match=r"0 of 1 results arrived within 60 s\. worker-0: out of memory"):
        await ResultArrivals().wait(1, 60.0, lambda: "worker-0: out of memory")


def test_stored_bytes_counts_log_segments_of_existing_topics_only(tmp_path: Path) -> None:
    partition, deleted = tmp_path / "frames-0", tmp_path / "frames-1.7e-delete"
    partition.mkdir()
    deleted.mkdir()
    (deleted / "0.log").write_bytes(bytes(1000))
    (partition / "0.log").write_bytes(bytes(70))
    (partition / "1.log").write_bytes(bytes(7))
    (partition / "0.index").write_bytes(bytes(1000))
    assert stored_bytes(tmp_path) == 77


def test_the_measured_cpu_time_and_memory_of_a_missing_process_are_zero() -> None:
    gone = 2**22 + 1  # above the largest process id
    assert (cpu_s(gone), pss_mb(gone)) == (0.0, 0.0)
    assert pss_mb(os.getpid()) > 1.0


def test_every_other_window_of_simulated_sensor_readings_is_above_the_limit() -> None:
    windows = np.reshape(series.values(3, 400), (4, 100)).mean(axis=1)
    assert list(windows > series.LIMIT) == [False, True, False, True]


def test_a_sensor_window_closes_with_the_first_reading_after_its_wait_for_late_readings() -> None:
    # the second window ends after 20 s and waits 1 s for late readings
    assert [series.closed_events(count) for count in (0, 200, 210, 211, 410, 411, 650)] == [0, 0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("name", OPERATORS)
async def test_sightline_emits_the_expected_number_of_events_for_each_compared_stream_operator(name: str) -> None:
    operator = OPERATORS[name](160 if name == "columns" else 1)
    config = Config({entry.key: validated(entry) for entry in operator.site()})
    stage = AnalyseStage(config, PARTITIONS) if operator.topic == RESULTS else SenseStage(config, PARTITIONS)
    log = MemoryLog(PARTITIONS)
    runner = MemoryRunner(stage, log, ManualClock())
    for first, stop in ((0, operator.warm_up), (operator.warm_up, operator.count)):
        for one in operator.records(first, stop, peer=False):
            if one.key == b"stream-3":
                await log.produce(Outgoing(operator.topic, one.partition, one.value, key=one.key))
        await runner.run()
        assert sum((await log.ends(EVENTS)).values()) == operator.events(stop)


@pytest.mark.parametrize("name", ["window", "columns"])
def test_the_sensor_windows_for_compared_systems_without_windowing_give_the_expected_number_of_events(
    name: str,
) -> None:
    operator = OPERATORS[name](160)
    windows, events = SensorWindows(), 0
    for one in operator.records(0, operator.count, peer=True):
        value = json.loads(one.value)
        if one.key == b"stream-3":
            events += len(windows.add(sums(value) if name == "columns" else [single(value)]))
    assert events == operator.events(operator.count)


def test_the_threshold_function_for_compared_systems_gives_the_expected_number_of_events() -> None:
    operator = OPERATORS["threshold"](1)
    is_above, events = False, 0
    for one in operator.records(0, operator.count, peer=True):
        if one.key == b"stream-3":
            was_above, is_above = is_above, exceeds(json.loads(one.value)["values"][0], was_above=is_above)
            events += is_above and not was_above
    assert events == operator.events(operator.count)


def test_the_throughput_of_sightline_is_divided_by_that_of_a_compared_system_in_the_same_round() -> None:
    runs = [
        {"operator": "line", "round": 0, "system": "sightline", "per_core_s": 300},
        {"operator": "line", "round": 0, "system": "x", "per_core_s": 200},
        {"operator": "line", "round": 1, "system": "x", "per_core_s": 200},
    ]
    assert [run.get("to_peer") for run in to_peer(runs)] == [1.0, 1.5, None]


def test_simulated_readings_are_split_into_consecutive_records_without_gaps_or_overlaps() -> None:
    assert list(series.columns(650, 900, 100)) == [(650, 750), (750, 850), (850, 900)]


def test_the_rate_of_kafka_s_producer_performance_test_is_read_from_its_last_output_line() -> None:
    output = "10 records sent, 9.0 records/sec (1 MB/sec), 1 ms avg latency\n25000 records sent, 1834.1 records/sec"
    assert records_per_s(output) == 1834.1
