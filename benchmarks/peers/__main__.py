"""Compares Sightline with its peers: ``python -m benchmarks.peers frames``. README.md has the rules of the
comparison.

``benchmarks/peers/setup.sh`` creates the environments of the peers.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.peers.edge import EDGE_SYSTEMS, EdgeLoad, measure_edge
from benchmarks.peers.frames import FrameBench, FrameLoads, Step, measure_bare
from benchmarks.peers.operators import OPERATORS, OperatorBench
from benchmarks.peers.operators import SYSTEMS as OPERATOR_SYSTEMS
from benchmarks.peers.systems import CANDIDATES, SYSTEMS, FrameSystem
from benchmarks.peers.tables import BARE, Run, append_run, markdown, read_runs, summary, to_bare, to_peer, turns
from benchmarks.pipeline import PipelineCase, fresh_broker, shipped_case, yolox_case
from benchmarks.report import ROOT, KeepIt, keep, log_progress
from deploy.local.kafka.broker import Broker
from ingest.runtime import eventloop

app = typer.Typer(no_args_is_help=True, add_completion=False)

CASES = {"yolox": yolox_case, "regions": shipped_case}
LOADS = {"yolox": FrameLoads(1200, 900, 36.0), "regions": FrameLoads(4000, 900, 100.0)}
"""Loads by case. Each rate is about a third of the slowest system's throughput on two cores. Of 900 frames at a fixed
rate, the first twentieth does not count, and nine frames are slower than the 99th percentile."""
BROKER_WARM_UPS = {"yolox": FrameLoads(3000, 1000, 36.0), "regions": FrameLoads(16_000, 2000, 100.0)}
"""Load before the first round, by case: about half a minute in a burst, and 20 to 30 s at the fixed rate.
Sightline's transactions use more of the broker's code than the peers' requests."""
EDGE_WARM_UP = EdgeLoad(16_000, 40_000)
"""Records that the agent sends before the first round."""
PICTURES = 300
"""Number of different frames, which the benchmark sends again and again."""
BARE_DENOISE = "bare-denoise"
TUNE_PARTITIONS = 4
SLOW_OPERATORS = {"columns", "line"}
"""Operators whose records take about ten times as long as a record with one reading."""
FRAME_KEYS = ("case", "partitions", "system")
FRAME_TITLES = {
    "fps": "frames/s",
    "to_bare": "÷ bare",
    "cpu_ms": "CPU ms/frame",
    "cpu_to_bare": "CPU ÷ bare",
    "broker_cpu_ms": "broker CPU ms/frame",
    "broker_stored_kb": "stored kB/frame",
    "broker_moved_kb": "broker I/O kB/frame",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "first_result_s": "first result s",
    "pss_mb": "PSS MB",
    "broker_pss_mb": "broker PSS MB",
}
OPERATOR_TITLES = {
    "per_core_s": "records/s per core",
    "to_peer": "Sightline ÷ this",
    "records_per_s": "records/s",
    "cpu_us": "CPU µs/record",
    "broker_cpu_us": "broker CPU µs/record",
    "first_result_s": "first result s",
    "pss_mb": "PSS MB",
}
EDGE_TITLES = {"mb_per_s": "MB/s", "cpu_us": "CPU µs/record", "broker_cpu_us": "broker CPU µs/record"}
TABLES = {
    "frames": (FRAME_KEYS, FRAME_TITLES),
    "tune": (FRAME_KEYS, FRAME_TITLES),
    "operators": (("operator", "system"), OPERATOR_TITLES),
    "edge": (("system",), EDGE_TITLES),
}

PlannedRun = tuple[dict[str, Any], Callable[[Broker, Step], dict[str, Any]]]
"""The key of a measurement in the report, and the function that makes the measurement."""


Plan = Callable[[int], Iterable[PlannedRun]]
"""Function that returns the measurements of a round in their order, given the number of the round."""


@app.callback()
def silence_clients() -> None:
    """Compare Sightline with its peers."""
    # Clients retry, and log each try, while the broker does not yet know a topic.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


Rounds = Annotated[int, typer.Option(min=1, help="Rounds of all systems, which take turns.")]
Partitions = Annotated[str, typer.Option(help="Numbers of partitions, separated by commas.")]
RunsFile = Annotated[
    Path | None,
    typer.Option("--runs", help="Append each run to this file, and report on all runs in it.", show_default=False),
]


def _commit() -> str:
    """Return the commit of this checkout, or an empty text outside of a repository."""
    argv = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


class RunSession:
    """The runs of a command, with a display of the progress on stderr."""

    def __init__(self, total: int, file: Path | None) -> None:
        self._file = file
        self._commit = _commit()
        self.runs = read_runs(file) if file else []
        self.first_round = 1 + max((run["round"] for run in self.runs), default=-1)
        columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> RunSession:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def run(self, key: dict[str, Any], measure: Callable[[Step], dict[str, Any]]) -> None:
        """Make one measurement, and note its figures. A measurement that fails is noted with its error."""
        label = " ".join(str(value) for name, value in key.items() if name != "round")

        def step(text: str) -> None:
            self._progress.update(self._task, description=f"round {key['round']}, {label}: {text}")
            if not self._progress.console.is_terminal:
                log_progress(f"round {key['round']}, {label}: {text}")

        step("prepare")
        started_s = time.perf_counter()
        try:
            figures = measure(step)
        except Exception as error:
            figures = {"error": repr(error)[-3000:]}
            self._progress.console.print(f"{label}: {error}", markup=False)
        took_s = round(time.perf_counter() - started_s, 1)
        run = {**key, **figures, "took_s": took_s, "load": round(os.getloadavg()[0], 2), "commit": self._commit}
        self.runs.append(run)
        if self._file:
            append_run(self._file, run)
        self._progress.advance(self._task)


def _report(name: str, runs: Sequence[Run], *, keep_it: bool) -> None:
    """Print the table of a command's runs, and write all runs to benchmarks/results if ``keep_it``."""
    keys, titles = TABLES[name]
    good = [run for run in to_peer(to_bare(runs)) if "error" not in run]
    rows = summary(good, keys, list(titles))
    typer.echo(markdown(rows, keys, titles))
    if keep_it:
        settings = {system: setting.label for system, setting in SYSTEMS.items()} if name == "frames" else {}
        keep(f"peers-{name}", {"settings": settings, "table": rows, "runs": runs})
    if len(good) < len(runs):
        typer.echo(f"{len(runs) - len(good)} measurements failed", err=True)
        raise typer.Exit(1)


def _compare(
    name: str,
    plan: Plan,
    rounds: int,
    file: Path | None,
    *,
    warm_up: Callable[[Broker], object] = lambda _: None,
    keep_it: bool = False,
) -> None:
    """Measure a plan in each round on a broker without earlier data, and report on all runs.

    ``warm_up`` puts the load on the new broker that its JVM needs until it has compiled the broker's code.
    """
    total = rounds * sum(1 for _ in plan(0))
    with fresh_broker("peers-kafka") as broker, RunSession(total, file) as session:
        warm_up(broker)
        for number in range(session.first_round, session.first_round + rounds):
            for key, measure in plan(number):
                session.run({"round": number, **key}, partial(measure, broker))
    _report(name, session.runs, keep_it=keep_it)


def _bare_run(case: PipelineCase, name: str, system: str, _: Broker, step: Step) -> dict[str, Any]:
    step("run")
    return measure_bare(case, LOADS[name].burst, denoise=system == BARE_DENOISE)


def _frame_run(
    case: PipelineCase, name: str, system: FrameSystem, partitions: int, broker: Broker, step: Step
) -> dict[str, Any]:
    return eventloop.run(FrameBench(broker, case, system, partitions).measure(LOADS[name], step))


def _operator_run(name: str, system: str, records: int, broker: Broker, step: Step) -> dict[str, Any]:
    return eventloop.run(OperatorBench(broker, name, system, OPERATORS[name](records)).measure(step))


@app.command()
def frames(
    cases: Annotated[str, typer.Option(help="Cases, separated by commas: yolox, regions.")] = "yolox,regions",
    systems: Annotated[str, typer.Option(help="Systems, separated by commas.")] = ",".join(
        (BARE, BARE_DENOISE, *SYSTEMS)
    ),
    partitions: Partitions = "4",
    rounds: Rounds = 3,
    runs: RunsFile = None,
    keep_it: KeepIt = False,
) -> None:
    """Classify frames: throughput, latency, CPU time, broker traffic and memory of all systems and the bare loop."""
    chosen, counts = systems.split(","), [int(number) for number in partitions.split(",")]
    loaded = {name: CASES[name](PICTURES) for name in cases.split(",")}

    def plan(number: int) -> Iterator[PlannedRun]:
        for (name, case), system in product(loaded.items(), turns(chosen, number)):
            key = {"case": name, "system": system}
            if system.startswith(BARE):
                yield {**key, "partitions": None}, partial(_bare_run, case, name, system)
                continue
            for count in counts:
                yield {**key, "partitions": count}, partial(_frame_run, case, name, SYSTEMS[system], count)

    def warm_up(broker: Broker) -> None:
        log_progress("warm-up of the broker")
        name, case = next(iter(loaded.items()))
        bench = FrameBench(broker, case, SYSTEMS["sightline"], counts[0])
        eventloop.run(bench.measure(BROKER_WARM_UPS[name], lambda _: None))

    _compare("frames", plan, rounds, runs, warm_up=warm_up, keep_it=keep_it)


@app.command()
def operators(
    names: Annotated[str, typer.Option("--operators", help="Operators, separated by commas.")] = ",".join(OPERATORS),
    systems: Annotated[str, typer.Option(help="Systems, separated by commas.")] = ",".join(OPERATOR_SYSTEMS),
    records: Annotated[
        int, typer.Option(min=3200, help="Records of each run; a tenth of it for columns and lines.")
    ] = 64_000,
    rounds: Rounds = 3,
    runs: RunsFile = None,
    keep_it: KeepIt = False,
) -> None:
    """Apply one operator to records: windows, a threshold, a line count. Sightline, Quix Streams and FastStream."""

    def plan(number: int) -> Iterator[PlannedRun]:
        for name, system in product(names.split(","), turns(systems.split(","), number)):
            count = records // 10 if name in SLOW_OPERATORS else records
            yield {"operator": name, "system": system}, partial(_operator_run, name, system, count)

    _compare("operators", plan, rounds, runs, keep_it=keep_it)


@app.command()
def edge(
    systems: Annotated[str, typer.Option(help="Systems, separated by commas.")] = ",".join(EDGE_SYSTEMS),
    records: Annotated[int, typer.Option(min=64, help="Records in each run.")] = 16_000,
    size: Annotated[int, typer.Option(min=200, help="Size of a record in bytes.")] = 40_000,
    rounds: Rounds = 3,
    runs: RunsFile = None,
    keep_it: KeepIt = False,
) -> None:
    """Send records to Kafka: the agent's spool and sender, and Kafka's own producer performance test."""

    def plan(number: int) -> Iterator[PlannedRun]:
        for system in turns(systems.split(","), number):
            yield {"system": system}, partial(measure_edge, system, EdgeLoad(records, size))

    def warm_up(broker: Broker) -> None:
        log_progress("warm-up of the broker")
        measure_edge("agent", EDGE_WARM_UP, broker, lambda _: None)

    _compare("edge", plan, rounds, runs, warm_up=warm_up, keep_it=keep_it)


@app.command()
def tune(
    case: Annotated[str, typer.Option(help="Case: yolox or regions.")] = "yolox",
    systems: Annotated[str, typer.Option(help="Peers, separated by commas.")] = "faststream,quixstreams,aiokafka",
    rounds: Rounds = 1,
    runs: RunsFile = None,
) -> None:
    """Compare the settings of each peer. The best setting of each peer must then be entered in SYSTEMS by hand."""
    chosen = [system for system in CANDIDATES if system.name in systems.split(",")]
    loaded = CASES[case](PICTURES)

    def plan(_: int) -> Iterator[PlannedRun]:
        for system in chosen:
            key = {"case": case, "system": system.label, "partitions": TUNE_PARTITIONS}
            yield key, partial(_frame_run, loaded, case, system, TUNE_PARTITIONS)

    _compare("tune", plan, rounds, runs)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Command whose runs the file has: frames, operators, edge or tune.")],
    file: Annotated[Path, typer.Argument(help="File that --runs named.")],
    keep_it: KeepIt = False,
) -> None:
    """Report on the runs in a file without further measurements."""
    _report(name, read_runs(file), keep_it=keep_it)


if __name__ == "__main__":
    app()
