"""The stages prepare, engine and analyse of one partition of frames, as the services run them, without Kafka."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from engines.exceptions import PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.cascade import Cascade
from engines.node.jobs import LIGHTER, HighWaterMarks, Job, accept, results
from engines.node.scheduler import MergedBatch
from engines.node.serving import RepositorySource, SecondModel, ServedModel
from engines.shadow.compare import compare
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import BatchItem, Event, Result
from ingest.contract.topics import DEADLETTER, FRAMES_LATE
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.site import PipelineConfig
from stream.analyse.analysers import Analysers
from stream.analyse.tracking.tracker import ByteTracker
from stream.prepare.stage import PrepareStage
from stream.runner.processor import Work
from training.backtest.figures import BacktestFigures
from training.backtest.plan import BacktestPlan


class ResultKey(NamedTuple):
    """The frame, lane and pipeline of a result."""

    frame: FrameId
    lane: str
    pipeline: str


@dataclass
class RecordClock:
    """A clock that shows the time at which the broker appended the record that is processed. The clock measures no
    delay between two readings of the clock."""

    record_ms: int = 0

    def monotonic(self) -> float:
        """Return 0, so that no batch closes because of its age."""
        return 0.0

    def now_ns(self) -> int:
        """Return the time at which the broker appended the present record, in Unix ns."""
        return self.record_ms * 10**6


class CandidateModels:
    """The open models of the tested pipelines. Several partitions may use the models, one after another."""

    def __init__(self, pipelines: Sequence[PipelineConfig], source: RepositorySource) -> None:
        self._metrics = NodeMetrics(CollectorRegistry())
        self._opened: list[ServedModel | SecondModel] = []
        self._cascades: dict[str, Cascade] = {}
        try:
            for pipeline in pipelines:
                self._cascades[pipeline.name] = self._cascade(pipeline, source)
        except BaseException:
            self.close()
            raise

    def cascade(self, pipeline: str) -> Cascade:
        """Return the open models of a pipeline."""
        return self._cascades[pipeline]

    @property
    def names(self) -> frozenset[str]:
        """Names of the pipelines."""
        return frozenset(self._cascades)

    def close(self) -> None:
        """Release all models."""
        for model in self._opened:
            model.close()
        self._opened = []

    def _cascade(self, pipeline: PipelineConfig, source: RepositorySource) -> Cascade:
        first = self._open(source.make(pipeline))
        rest = [self._open(source.make(one)) for one in pipeline.then]
        seconds = [
            (config, model)
            for config, model in zip(pipeline.then, rest, strict=True)
            if isinstance(model, SecondModel)
        ]
        if not isinstance(first, ServedModel):
            raise PipelineUnknown(f"pipeline {pipeline.name!r} has no model of its own")
        return Cascade(pipeline.name, first, seconds, self._metrics)

    def _open(self, model: ServedModel | SecondModel) -> ServedModel | SecondModel:
        self._opened.append(model)
        model.open()
        return model


@dataclass
class PreparedFrames:
    """The jobs of some frames, and the results that the live pipeline may have for them."""

    records: Sequence[LogRecord]
    jobs: list[Job] = field(default_factory=list)
    failed: int = 0
    took_s: float = 0.0

    @property
    def keys(self) -> list[ResultKey]:
        """The keys of the results of the prepared frames."""
        return [key_of(item, job.pipeline) for job in self.jobs for item in job.items]


class Replayed(NamedTuple):
    """A result of the candidate, the events of the candidate's rules, and the stored result of the frame."""

    result: Result
    events: list[Event]
    live: Result | None


def key_of(item: BatchItem | Result, pipeline: str) -> ResultKey:
    """Return the key of the result of a batch item."""
    return ResultKey(item.id, item.lane, pipeline)


class ReplayCore:
    """Runs the frames of one topic partition through the code of the live stages.

    Frames that the live pipeline shed are shed for the same reason, because the live rules did not see them either.
    The noise filters, high-water marks, trackers and rules begin without state. Raise ConfigError if a rule lacks its
    model.
    """

    def __init__(self, tp: TopicPartition, plan: BacktestPlan, models: CandidateModels) -> None:
        self._plan, self._models, self._clock = plan, models, RecordClock()
        lane_stage = PrepareStage("late" if tp.topic == FRAMES_LATE else "live", plan.site, self._clock)
        self._processor = lane_stage.processor(tp)
        self._marks = HighWaterMarks()
        rules = plan.rule_set
        rules.require()
        self._analysers = Analysers(lambda: rules, ByteTracker)

    def wants(self, record: LogRecord) -> bool:
        """Return whether a record is a frame of a tested camera, and neither a replay nor a single picture."""
        camera = (record.key or b"").decode(errors="replace")
        if camera not in self._plan.camera_names or h.PIPELINE in record.headers:
            return False
        return not is_replay(h.lane_of(record.headers, record.topic))

    def prepare(self, records: Sequence[LogRecord]) -> PreparedFrames:
        """Prepare frames, in the order of their offsets, and return the closed batches as jobs."""
        started_s, prepared = time.perf_counter(), PreparedFrames(records)
        works: list[Work] = []
        for record in records:
            self._clock.record_ms = record.timestamp_ms
            works += self._processor.process(record)
        for work in (*works, *self._processor.flush()):
            for out in work.records:
                if out.topic == DEADLETTER:
                    prepared.failed += 1
                    continue
                batch = LogRecord(out.topic, out.partition, 0, out.key, out.value, out.headers)
                prepared.jobs.append(accept(batch, self._marks, self._models.names))
        prepared.took_s = time.perf_counter() - started_s
        return prepared

    def replay(
        self, prepared: PreparedFrames, live: Mapping[ResultKey, Result], figures: BacktestFigures
    ) -> list[Replayed]:
        """Classify prepared frames, and apply the rules to their results. Add the times and errors to ``figures``.

        Raise DeviceLost or MemoryError.
        """
        found: list[Replayed] = []
        figures.failed += prepared.failed
        total_s = prepared.took_s
        figures.note_stage("prepare", prepared.took_s, len(prepared.records))
        written_ns = max((record.timestamp_ms for record in prepared.records), default=0) * 10**6
        for job in prepared.jobs:
            if job.pipeline not in self._models.names:
                continue  # frames that no tested pipeline wants
            _shed_as_live(job, live)
            total_s += self._classify(job, figures)
            started_s, before = time.perf_counter(), len(found)
            for out in results(job, written_ns):
                if out.topic == DEADLETTER:
                    figures.failed += 1
                    continue
                found.append(self._analyse(decode(Result, out.value), live, figures))
            took_s = time.perf_counter() - started_s
            total_s += took_s
            figures.note_stage("analyse", took_s, len(found) - before)
        figures.frame.add(total_s, len(found))
        return found

    def _classify(self, job: Job, figures: BacktestFigures) -> float:
        """Classify the tasks of a job, and return the time that this took, in s."""
        if not job.tasks:
            return 0.0
        started_s = time.perf_counter()
        merged = MergedBatch(job.pipeline, list(job.tasks.values()), [job])
        self._models.cascade(job.pipeline).classify(merged)
        for stage in ("copy", "compute", "decode", "cascade"):
            if seconds := getattr(merged.took, stage):
                figures.note_stage(stage, seconds, len(job.tasks))
        return time.perf_counter() - started_s

    def _analyse(self, result: Result, live: Mapping[ResultKey, Result], figures: BacktestFigures) -> Replayed:
        stored = live.get(key_of(result, result.pipeline))
        if stored:  # the time of writing decides whether a lower epoch is a new run
            result = result.model_copy(update={"finished_ns": stored.finished_ns})
        try:
            events = self._analysers.step(result)
            self._analysers.take_measures()  # not compared
            self._analysers.take_signals()  # not compared, because `sense` decides about them
        except MemoryError:
            raise
        except Exception:  # the stage analyse parks such a result as a dead letter
            figures.failed += 1
            events = []
        return Replayed(result, events, stored)


def note(figures: BacktestFigures, one: Replayed) -> None:
    """Add the comparison of a result with the stored result of the same frame."""
    result, live = one.result, one.live
    figures.frames += 1
    figures.classified += result.outcome == "classified"
    if live is None:
        figures.missing_live += 1
    elif live.outcome == "shed":
        figures.shed_live += 1
    elif live.reason == LIGHTER:
        figures.lighter_live += 1
    elif live.outcome == result.outcome == "classified":
        second_stage = {each.model for one in live.detections for each in one.attributes if each.model}
        second_stage |= {each.model for one in live.detections for each in one.embeddings if each.model}
        figures.note_comparison({live.model, *second_stage}, compare(live.detections, result.detections))


def _shed_as_live(job: Job, live: Mapping[ResultKey, Result]) -> None:
    shed: dict[ResultKey, str] = {}
    for task in job.tasks.values():
        key = key_of(task.item, job.pipeline)
        stored = live.get(key)
        if stored and stored.outcome == "shed":
            shed[key] = stored.reason
    for reason in Counter(shed.values()):
        job.shed(reason, lambda item, reason=reason: shed.get(key_of(item, job.pipeline)) == reason)  # type: ignore[misc]
