"""Export a data set: read candidate frames, choose examples, split them into training, validation and test, and write
the files and the datasheet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ingest.contract.identity import FrameId
from ingest.contract.records import LabelDecision
from ingest.kafka.log import Log
from ingest.site import CameraConfig
from ingest.site.topic.view import Config
from stream.events import rfc3339
from stream.exceptions import NoResults
from stream.labels.candidates import CandidateExample, CandidateFrame, CandidateObject, decided_example
from stream.labels.decisions import read_decisions
from stream.labels.preference import RANDOM, Pick, Selection
from stream.labels.reader import CandidateScope, read_candidates
from training.datasets.choice import AnyCandidate, ChosenExamples, ExampleChooser
from training.datasets.datasheet import datasheet, markdown
from training.datasets.folder import ExportFolder
from training.datasets.frames import StoredFrames
from training.datasets.layout import Placed, write_layout
from training.datasets.request import SPLITS, DatasetExample, DatasetRequest
from training.datasets.split import TimeBlock, assign, block_of, near_border

Steps = Callable[[str, int, int], None]
"""A callback that gets the name of the export's present step, the finished part of the step, and the whole of the
step."""
REVIEWED = "review"
"""Reason for choosing an example that a person has labelled."""
SHEET = "DATASHEET.md"


@dataclass
class FoundCandidates:
    """The frames or objects that an export can choose, the decisions of people on objects, and counts for the
    datasheet."""

    candidates: Sequence[AnyCandidate]
    decisions: dict[str, LabelDecision] = field(default_factory=dict)
    seen: int = 0
    kept_share: float = 1.0
    left_out: Counter[str] = field(default_factory=Counter)


async def export(
    log: Log,
    request: DatasetRequest,
    config: Config,
    out: Path,
    *,
    by: str,
    at_ns: int,
    on_step: Steps = lambda *_: None,
) -> dict[str, Any]:
    """Write a data set to the folder ``out``, and return the data set's datasheet.

    ``by`` is the user who exports the data set, and ``at_ns`` the present time in Unix ns. If the process is killed,
    the next call with the same arguments continues the export. Raise ConfigError for an unusable folder, NoResults if
    there is nothing to export, or LogUnavailable.
    """
    folder = ExportFolder(out, request)
    try:
        request = folder.request
        stored = StoredFrames(log, folder.frames)
        found = await _found(log, request, config, on_step)
        await _leave_out_expired(found, stored)
        cameras = {camera.name: camera for camera in config.of(CameraConfig)}
        chooser = ExampleChooser(request, folder, stored, cameras)
        shares = {RANDOM: 1.0} if request.review else request.prefer
        chosen = await chooser.choose(
            Selection(found.candidates, shares),
            lambda pick: _example(pick, request, found.decisions),
            lambda done, wanted: on_step("choosing pictures", done, wanted),
        )
        placed = split_examples(chosen, request)
        chosen.left_out.update(found.left_out)
        if not any(placed.values()):
            raise NoResults(f"no example is left of {len(found.candidates)} candidates: {dict(chosen.left_out)}")
        on_step("writing files", 0, 1)
        others = write_layout(folder, request, placed)
        sheet = datasheet(request, found, chosen, placed, cameras)
        sheet = {"by": by, "created": rfc3339(at_ns), **sheet}
        (folder.whole / SHEET).write_text(markdown(sheet), encoding="utf-8")
        sheet = folder.seal(sheet, [*others, SHEET])
        folder.publish()
        on_step("writing files", 1, 1)
        return sheet
    finally:
        folder.close()


def split_examples(chosen: ChosenExamples, request: DatasetRequest) -> Placed:
    """Return the examples of each split, in the order of their capture times. Examples near the border of two splits
    are left out and counted."""
    blocks = [block_of(one.place, one.frame.captured_ns, request.block_s) for one in chosen.examples]
    labels: defaultdict[TimeBlock, Counter[str]] = defaultdict(Counter)
    for block, example in zip(blocks, chosen.examples, strict=True):
        labels[block].update(example.labels or [""])
    pairs = [(blocks[one], blocks[other]) for one, other in chosen.pairs]
    places = {one.place for one in chosen.examples if one.frame.id.camera in request.hold_out}
    held_out = {block for block in labels if block.place in places}
    assigned = assign(labels, request.split, pairs, held_out)
    placed: dict[str, list[DatasetExample]] = {split: [] for split in SPLITS}
    for block, example in zip(blocks, chosen.examples, strict=True):
        if near_border(example.frame.captured_ns, block, assigned, request.block_s, request.gap_s):
            chosen.left_out["near the border of two splits (--gap)"] += 1
        else:
            placed[assigned[block]].append(example)
    for examples in placed.values():
        examples.sort(key=lambda one: (one.frame.captured_ns, one.file))
    return placed


async def _found(log: Log, request: DatasetRequest, config: Config, on_step: Steps) -> FoundCandidates:
    """Return what the export can choose: the decisions of people for a review, else the objects or frames of
    results."""
    scope = CandidateScope(
        frozenset(request.cameras), request.since_ns, request.until_ns, request.pipeline, request.model
    )
    decisions = await _decisions(log, scope) if request.review else {}
    if request.review and request.layout == "folders":
        decided = [decided_example(one) for one in decisions.values() if one.decided]
        return FoundCandidates([one for one in decided if _is_wanted(one, request)], decisions, len(decisions))
    pool = await read_candidates(log, scope, config, lambda done, total: on_step("reading results", done, total))
    if request.layout == "folders":
        objects = [CandidateExample(frame, one) for frame in pool for one in frame.served]
        wanted = [one for one in objects if one.score >= request.min_score and _is_wanted(one, request)]
        return FoundCandidates(wanted, {}, pool.seen, pool.kept_share)
    found = FoundCandidates(list(pool), decisions, pool.seen, pool.kept_share)
    return _reviewed(found, request) if request.review else found


async def _decisions(log: Log, scope: CandidateScope) -> dict[str, LabelDecision]:
    """Return the valid decisions on objects of the scope, by the id of the object. Raise NoResults."""
    found = {
        one.object: one
        for one in await read_decisions(log)
        if one.camera in scope.cameras
        and scope.since_ns <= one.captured_ns < scope.until_ns
        and scope.pipeline in ("", one.pipeline)
        and scope.has_model(one.model)
    }
    pipelines = sorted({one.pipeline for one in found.values()})
    if len(pipelines) > 1:
        raise NoResults(f"people have labelled objects of several pipelines: name one of {', '.join(pipelines)}")
    if not found:
        raise NoResults("nobody has labelled an object of these cameras in the period: see the console's page Labels")
    return found


def _reviewed(found: FoundCandidates, request: DatasetRequest) -> FoundCandidates:
    """Return only the candidate frames of which people have decided on every object."""
    by_frame: defaultdict[FrameId, list[LabelDecision]] = defaultdict(list)
    for decision in found.decisions.values():
        by_frame[decision.frame].append(decision)
    complete: list[AnyCandidate] = []
    for frame in found.candidates:
        assert isinstance(frame, CandidateFrame)  # noqa: S101  (the candidates of the layout coco are frames)
        if frame.id not in by_frame:
            continue
        if any(one.id not in found.decisions for one in frame.served if one.score >= request.min_score):
            found.left_out["frames with objects that nobody has labelled yet"] += 1
            continue
        complete.append(frame)
    return replace(found, candidates=complete)


def _example(
    pick: Pick[AnyCandidate], request: DatasetRequest, decisions: dict[str, LabelDecision]
) -> DatasetExample:
    """Return the example of a picked candidate; the labels are those of people if the request asks for reviewed
    labels."""
    candidate = pick.candidate
    objects: tuple[CandidateObject, ...]
    if isinstance(candidate, CandidateExample):
        frame, objects = candidate.frame, (candidate.object,)
    elif request.review:
        frame = candidate
        own = (decisions.get(one.id) for one in frame.objects)
        objects = tuple(decided_example(one).object for one in own if one and one.decided)
    else:
        frame = candidate
        objects = tuple(one for one in frame.served if one.score >= request.min_score)
    if request.labels:
        objects = tuple(one for one in objects if one.label in request.labels)
    people = {decisions[one.id].by for one in objects if one.id in decisions}
    reason = REVIEWED if request.review else pick.reason
    return DatasetExample(candidate.key, frame, objects, reason, decided_by=tuple(sorted(people)))


def _is_wanted(one: CandidateExample, request: DatasetRequest) -> bool:
    return not request.labels or one.object.label in request.labels


async def _leave_out_expired(found: FoundCandidates, stored: StoredFrames) -> None:
    """Remove and count the candidates whose frames the log's retention has deleted."""
    expired = await stored.expired({frame.id: frame for frame in map(_frame, found.candidates)}.values())
    if expired:
        left = [one for one in found.candidates if _frame(one).id not in expired]
        found.left_out["no longer in the log"] += len(found.candidates) - len(left)
        found.candidates = left


def _frame(candidate: AnyCandidate) -> CandidateFrame:
    return candidate if isinstance(candidate, CandidateFrame) else candidate.frame
