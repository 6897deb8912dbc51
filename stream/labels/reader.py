"""Read candidate frames for a data set from the log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

from ingest.contract.codec import decode
from ingest.contract.headers import frames_of
from ingest.contract.records import Detection, Result, ShadowRecord
from ingest.contract.topics import RESULTS, SHADOW
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.ledger.missrate import MissCounter
from ingest.site import CameraConfig, to_pixels
from ingest.site.topic.view import Config
from stream.analyse.geometry import inside
from stream.exceptions import NoResults
from stream.labels.candidates import CandidatePool, Disagreements

Progress = Callable[[int, int], None]
"""A callback that gets the number of offsets read so far and the total number of offsets to read."""
_EARLIER_MS = 60_000
"""Time in ms before the wanted period at which reading begins. A camera's clock may be ahead, and the frame before
the period is needed to find out whether the motion gate missed a frame."""
_REPORT_EVERY = 500


@dataclass(frozen=True, slots=True)
class CandidateScope:
    """The results from which a data set is made: by camera, capture time in Unix ns, pipeline and model.

    Results captured at ``until_ns`` or later are excluded. An empty ``pipeline`` stands for the only pipeline with
    results in the period. ``model`` is ``NAME`` or ``NAME@VERSION``; empty for all models.
    """

    cameras: frozenset[str]
    since_ns: int
    until_ns: int
    pipeline: str = ""
    model: str = ""

    def has(self, result: Result) -> bool:
        """Return whether a result lies in the scope's period and is of a classified frame; camera, pipeline and model
        are not checked."""
        return self.since_ns <= result.captured_ns < self.until_ns and result.outcome == "classified"

    def has_model(self, model: str) -> bool:
        """Return whether results of ``model``, given as ``NAME@VERSION``, are wanted."""
        return not self.model or model == self.model or model.startswith(f"{self.model}@")


def hides(config: Config) -> Callable[[Result, Detection], bool]:
    """Return a function that tells whether a detection lies in a masked area of its camera's motion gate."""
    masks = {camera.name: camera.gate.masks for camera in config.of(CameraConfig) if camera.gate.masks}

    def hidden(result: Result, found: Detection) -> bool:
        shapes = masks.get(result.camera, ())
        return any(inside(to_pixels(mask, result.width, result.height), found.box.centre) for mask in shapes)

    return hidden


async def read_candidates(
    log: Log, scope: CandidateScope, config: Config, on_progress: Progress = lambda *_: None
) -> CandidatePool:
    """Return the candidate frames of a scope.

    Raise NoResults if the log has no results of the scope, or has results of several pipelines while the scope names
    no pipeline. Raise LogUnavailable.
    """
    pool = CandidatePool(MissCounter(hides(config)), await read_disagreements(log, scope))
    pipelines, models = set[str](), set[str]()
    async with aclosing(_results(log, scope, on_progress)) as results:
        async for result in results:
            if scope.pipeline not in ("", result.pipeline):
                pipelines.add(result.pipeline)
                continue
            is_wanted = scope.has(result)
            if is_wanted:
                pipelines.add(result.pipeline)
                models.add(result.model)
            pool.add(result, wanted=is_wanted and scope.has_model(result.model))
    if not scope.pipeline and len(pipelines) > 1:
        raise NoResults(f"the cameras have results of several pipelines: name one of {', '.join(sorted(pipelines))}")
    if not len(pool):
        raise NoResults(_reason(scope, pipelines, models))
    return pool


async def read_disagreements(log: Log, scope: CandidateScope) -> Disagreements:
    """Return the differences between served and candidate models in the frames of a scope. Raise LogUnavailable."""
    found = Disagreements()
    tp = TopicPartition(SHADOW, 0)
    async with aclosing(log.read(*tp, await _begin(log, tp, scope), (await log.ends(SHADOW))[0])) as records:
        async for record in records:
            try:
                one = decode(ShadowRecord, record.value)
            except CodecError:
                continue  # `sightline models compare` reports unreadable comparisons
            if one.camera in scope.cameras:
                found.add(one)
    return found


async def _results(log: Log, scope: CandidateScope, on_progress: Progress) -> AsyncGenerator[Result, None]:
    """Yield the results of the wanted cameras that were written since ``_EARLIER_MS`` before the period.

    Late frames are written long after their capture, so each partition is read to its end.
    """
    parts = {}
    for partition, end in (await log.ends(RESULTS)).items():
        tp = TopicPartition(RESULTS, partition)
        parts[tp] = min(await _begin(log, tp, scope), end), end
    total, done = sum(end - start for start, end in parts.values()), 0
    for tp, (start, end) in parts.items():
        async with aclosing(log.read(*tp, start, end)) as records:
            async for record in records:
                if (record.offset - start) % _REPORT_EVERY == 0:
                    on_progress(done + record.offset - start, total)
                if result := _result(record, scope.cameras):
                    yield result
        done += end - start
    on_progress(total, total)


async def _begin(log: Log, tp: TopicPartition, scope: CandidateScope) -> int:
    return await log.offset_at(tp, max(0, scope.since_ns // 1_000_000 - _EARLIER_MS))


def _result(record: LogRecord, cameras: Collection[str]) -> Result | None:
    """Decode a record, and return its result if the result is of a wanted camera, else None. The record's headers
    name the camera, so that the records of other cameras are not decoded."""
    frames = frames_of(record.headers)
    if frames and all(one.camera not in cameras for one in frames):
        return None
    try:
        found = decode(Result, record.value)
    except CodecError:
        return None  # `sightline audit` counts unreadable results
    return found if found.camera in cameras else None


def _reason(scope: CandidateScope, pipelines: Collection[str], models: Collection[str]) -> str:
    if scope.pipeline and scope.pipeline not in pipelines:
        others = ", ".join(sorted(pipelines)) or "none"
        return f"pipeline {scope.pipeline} has no results of these cameras in the period: the log has {others}"
    if scope.model and models:
        return f"no result is by model {scope.model}: the results of the period are by {', '.join(sorted(models))}"
    cameras = ", ".join(sorted(scope.cameras))
    return f"the log has no result of {cameras} that was captured in the period: expected results of 7 days at most"
