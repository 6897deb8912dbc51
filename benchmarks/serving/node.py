"""Benchmark of the engine node against a bare loop, which calls the node's ONNX Runtime session on the same prepared
pixels.

``python -m benchmarks.serving.node --keep`` measures the shipped model, and YOLOX-nano if its model file exists, in
batches of 1, 4 and 16 pictures.

Node: a complete engine node runs in the benchmark's process, with the consumer, transactional writers and limits of
production, on a Kafka broker that only the benchmark uses. Before each round, a producer writes the batches of the
round in one Kafka transaction. The measured time begins before the commit of this transaction, and ends with the
commit of the last result. A record of the topic ``batches`` has at most 8 frames, so the node merges two records into
a batch of 16.

Bare loop: the loop runs the same number of batches through the node's session object, in as many threads as the
node's engine has. The bare loop's pixels are already padded to the model's input. The bare loop decodes no outputs
and writes nothing.

Fairness: each round measures the bare loop and the node, in the opposite order of the previous round. The ratio of a
round is the node's rows per second divided by the bare loop's rows per second; a row is one picture. The command line
sets the batch size; the node does not choose a batch size during warm-up. While the bare loop runs, the node only
polls Kafka. ``cpu_ms_per_row`` is the CPU time of the benchmark's process, without the broker's CPU time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import typer
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from benchmarks.pipeline import CAMERAS, PipelineCase, cases, until
from benchmarks.report import KeepIt, conclude, log_progress
from benchmarks.serving.inputs import BatchPlace, PreparedRow, batch_record, padded, prepared_rows
from deploy.local.kafka.broker import Broker
from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.engine import Images
from engines.metrics import NodeMetrics
from engines.node.intake import BatchIntake
from engines.node.node import Node
from engines.node.pipelines import LiveModels
from engines.node.serving import RepositorySource
from engines.repository.manifest import Model
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import SESSION_TIMEOUT_MS, KafkaSettings
from ingest.kafka.writer import arguments
from ingest.runtime import eventloop
from ingest.runtime.clock import SystemClock

PICTURES = 240
"""Number of different pictures. The pixels of all pictures exceed the CPU caches, so node and bare loop read from
memory."""
RECORD_ROWS = 8
"""Maximum number of frames per record: the default of a pipeline's ``max_items``."""
GOAL_S = 600.0
"""Latency goal of the pipeline in seconds: so long that the node never makes a batch smaller to meet the goal."""
LEAST = 0.95
"""Minimum ratio of the node's rows per second to the bare loop's rows per second."""
WRITTEN = "sightline_engine_records_total"


class FixedBatchEngine(OnnxRuntimeEngine):
    """An ONNX Runtime engine with a fixed batch size, instead of the size that warm-up would choose."""

    def __init__(self, workers: int, size: int) -> None:
        super().__init__(workers)
        self._size = size

    def load(self, model: Model) -> None:
        """Load a model with slots that hold at least a batch of the fixed size."""
        most = max(self._size, model.manifest.max_batch)
        super().load(replace(model, manifest=model.manifest.model_copy(update={"max_batch": most})))

    def begin_warm_up(self) -> None:
        """Time one batch of the fixed size."""
        self._batch_size = self._size
        self.warm_up_s = {self._size: self._timed_run(self._size)}

    def finish_warm_up(self) -> None:
        """Do nothing, because only the fixed batch size is used."""

    def call(self, images: Images) -> None:
        """Run the session on a batch in the calling thread."""
        assert self._session is not None
        self._session.run(self._names, {self._input: images})


class RoundFigures(NamedTuple):
    """Rows per second, and CPU time per row in ms."""

    rows_per_s: float
    cpu_ms_per_row: float


@dataclass
class BareLoop:
    """The loop without Kafka to which the node is compared: batches of padded pixels, and the engine whose session
    processes the batches."""

    engine: FixedBatchEngine
    batches: Sequence[Images]
    threads: int

    def measure(self, calls: int) -> RoundFigures:
        """Run ``calls`` batches, and return rows per second and CPU time per row."""

        def work(number: int) -> None:
            for call in range(number, calls, self.threads):
                self.engine.call(self.batches[call % len(self.batches)])

        cpu_s, started_s = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, range(self.threads)))
        return _figures(calls * len(self.batches[0]), started_s, cpu_s)


@dataclass
class NodeInProcess:
    """Context manager of a running engine node and of the producer that writes batches for the node."""

    case: PipelineCase
    settings: KafkaSettings
    size: int
    threads: int
    engine: FixedBatchEngine = field(init=False)

    async def __aenter__(self) -> Self:
        """Start the node, and wait until it owns all partitions."""
        self._registry, self._stop = CollectorRegistry(), asyncio.Event()
        metrics = NodeMetrics(self._registry)
        self.engine = FixedBatchEngine(self.threads, self.size)
        models = LiveModels(
            RepositorySource(self.case.repository, lambda _: self.engine), metrics, SystemClock().monotonic
        )
        models.want([self.case.pipeline.model_copy(update={"latency_goal_s": GOAL_S})])
        await models.update()
        self._models = models
        node = Node(
            KafkaLog(self.settings, "node"),
            BatchIntake(self.settings, "node", self.threads, SESSION_TIMEOUT_MS),
            models,
            concurrency=models.slot_count,
            metrics=metrics,
        )
        self._running = asyncio.create_task(node.run(self._stop))
        self._producer = kafka.producer(self.settings, "bench", transactional_id="bench")
        await self._producer.start()
        await until(lambda: self._running.done() or node.figures()["partitions"] == 2 * CAMERAS)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the producer and the node."""
        await self._producer.stop()
        self._stop.set()
        with suppress(asyncio.CancelledError):
            await self._running
        await self._models.close()

    async def measure(self, records: Sequence[Outgoing], rows: int) -> RoundFigures:
        """Write all records in one transaction.

        Return the node's speed, measured from the commit of ``records`` to the commit of the last result.
        """
        wanted = self._written() + rows
        await self._producer.begin_transaction()
        await _send(self._producer, self.settings, records)
        cpu_s, started_s = time.process_time(), time.perf_counter()
        await self._producer.commit_transaction()
        await until(lambda: self._running.done() or self._written() >= wanted)
        if self._running.done():
            self._running.result()
        return _figures(rows, started_s, cpu_s)

    def _written(self) -> float:
        return self._registry.get_sample_value(WRITTEN) or 0.0


async def _send(producer: AIOKafkaProducer, settings: KafkaSettings, records: Sequence[Outgoing]) -> None:
    sent = [await producer.send(**arguments(settings, record)) for record in records]
    await asyncio.gather(*sent)


def _figures(rows: int, started_s: float, cpu_s: float) -> RoundFigures:
    took_s, used_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    return RoundFigures(round(rows / took_s, 1), round(1000 * used_s / rows, 3))


def records_of(case: PipelineCase, rows: Sequence[PreparedRow], size: int, calls: int, epoch: int) -> list[Outgoing]:
    """Return the Kafka records of ``calls`` batches, for the partitions in turn; each partition has one camera."""
    per_record = min(size, RECORD_ROWS)
    pictures, seqs, records = itertools.cycle(rows), [0] * CAMERAS, []
    for number in range(calls * size // per_record):
        partition = number % CAMERAS
        place = BatchPlace(partition, f"camera-{partition}", epoch, seqs[partition], time.time_ns())
        records.append(batch_record(case.pipeline, list(itertools.islice(pictures, per_record)), place))
        seqs[partition] += per_record
    return records


def summary(bare: Sequence[RoundFigures], node: Sequence[RoundFigures]) -> dict[str, Any]:
    """Return the median figures of all rounds, and the ratio of node to bare loop in each round."""
    ratios = [n.rows_per_s / b.rows_per_s for b, n in zip(bare, node, strict=True)]
    return {
        "bare_rows_per_s": statistics.median(b.rows_per_s for b in bare),
        "node_rows_per_s": statistics.median(n.rows_per_s for n in node),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio_median": round(statistics.median(ratios), 3),
        "bare_cpu_ms_per_row": statistics.median(b.cpu_ms_per_row for b in bare),
        "node_cpu_ms_per_row": statistics.median(n.cpu_ms_per_row for n in node),
    }


async def measure(
    case: PipelineCase, broker: Broker, size: int, threads: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure node and bare loop alternately, each for ``seconds``, with one model and batch size."""
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"node-{time.time_ns() // 1_000_000}.")
    await topicadmin.create(settings, partitions=CAMERAS)
    rows = prepared_rows(case)
    bare: list[RoundFigures] = []
    piped: list[RoundFigures] = []
    async with NodeInProcess(case, settings, size, threads) as node:
        pictures = padded(case, rows)
        batches = [pictures[first : first + size] for first in range(0, len(rows) - size + 1, size)]
        loop = BareLoop(node.engine, batches, threads)
        trial = await asyncio.to_thread(loop.measure, max(2 * threads, 64 // size))
        calls = max(4 * threads, round(trial.rows_per_s * seconds / size))
        await node.measure(records_of(case, rows, size, calls, 1), calls * size)  # fills caches on both sides
        for number in range(rounds):
            records = records_of(case, rows, size, calls, 2 + number)
            if number % 2:
                piped.append(await node.measure(records, calls * size))
            bare.append(await asyncio.to_thread(loop.measure, calls))
            if not number % 2:
                piped.append(await node.measure(records, calls * size))
    await topicadmin.remove(settings, prefix=settings.prefix)
    return {"batch": size, "threads": threads, "batches_per_turn": calls, **summary(bare, piped)}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds per turn.")] = 3.0,
    threads: Annotated[str, typer.Option(help="Numbers of engine threads, separated by commas.")] = "1",
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,4,16",
    model: Annotated[str, typer.Option(help="Only the model with this name.")] = "",
    keep_it: KeepIt = False,
) -> None:
    """Print the speed of the engine node divided by the speed of a bare inference loop, per model and batch size.

    Exit with 1 if a ratio is below 0.95.
    """
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        for case in cases(PICTURES):
            if model in ("", case.model.manifest.name):
                for count, size in itertools.product(map(int, threads.split(",")), map(int, batch.split(","))):
                    figures = eventloop.run(measure(case, broker, size, count, rounds, seconds))
                    measured.append({"case": case.name, **figures, "load": round(os.getloadavg()[0], 2)})
                    log_progress(f"{case.name}, batch {size}, {count} threads: ratio {figures['ratio_median']}")
    low = [
        f"{one['case']}, batch {one['batch']}, {one['threads']} threads: {one['ratio_median']}"
        for one in measured
        if one["ratio_median"] < LEAST
    ]
    conclude("node", {"rounds": rounds, "seconds": seconds, "cases": measured}, low, keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
