"""The queue of detected objects whose labels people check, and the views that fill the queue while someone labels."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from typing import ClassVar, NamedTuple

from console.live.view import TopicView
from ingest.contract.codec import decode, decode_json
from ingest.contract.records import Box, LabelDecision, Result, ShadowRecord
from ingest.contract.topics import FRAMES, LABELS, RESULTS, SHADOW, TOPICS
from ingest.kafka.log import LogRecord
from ingest.ledger.missrate import MissCounter
from ingest.runtime.clock import Clock
from ingest.site.topic.view import Config
from stream.labels.candidates import CandidateExample, CandidateFrame, CandidatePool, Disagreements, decided_example
from stream.labels.decisions import DecisionView
from stream.labels.preference import USUAL_SHARES, Pick, Selection
from stream.labels.reader import hides

MAX_FRAMES = 5_000
"""Maximum number of frames in the queue of objects to label, which take about 10 MB."""
MAX_COMPARISONS = 20_000
"""Maximum number of comparisons of models in memory, from which the queue takes the objects on which models
disagree."""
MAX_OFFERED = 5_000
MAX_DECISIONS = 100_000
IDLE_S = 600.0
"""Time in seconds after the last use of the labelling page after which the console stops reading results for the
page."""
LEASE_S = 120.0
"""Time in seconds for which an object that is offered to one person for labelling is offered to nobody again. Two
people therefore get different objects, and a skipped object makes room for other objects."""
REPEAT_NS = 60 * 10**9
"""Time in ns within which an object at the same place of a camera's picture counts as the same object."""
_SAME_BOX = 0.8
"""Minimum intersection over union of two boxes that count as the same place."""
_FRAMES_KEPT_NS = TOPICS[FRAMES].retention_ms * 10**6


class OfferedObject(NamedTuple):
    """An object that was offered to a person for labelling, and the time in seconds of the monotonic clock until
    which no other person gets the object."""

    example: CandidateExample
    user_id: int
    until_s: float


class LabelQueue:
    """The detected objects of recent results that nobody has labelled yet, and the decisions of people about
    labels."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hidden: Callable[..., bool] = lambda *_: False
        self._disagreements = Disagreements(MAX_COMPARISONS)
        misses = MissCounter(lambda result, found: self._hidden(result, found))
        self._pool = CandidatePool(misses, self._disagreements, MAX_FRAMES)
        self._offered: OrderedDict[str, OfferedObject] = OrderedDict()
        self._choosing = asyncio.Lock()
        self._used_s: float | None = None
        self.decisions = DecisionView(MAX_DECISIONS)

    @property
    def in_use(self) -> bool:
        """Whether someone has used the labelling page in the last ``IDLE_S`` seconds."""
        return self._used_s is not None and self._clock.monotonic() - self._used_s < IDLE_S

    def use(self) -> None:
        """Note that someone uses the labelling page now."""
        self._used_s = self._clock.monotonic()

    def configure(self, config: Config) -> None:
        """Take the cameras' present configuration: objects in masked areas do not count as missed by the motion
        gate."""
        self._hidden = hides(config)

    def add_result(self, result: Result) -> None:
        """Add the objects of a result; the results must come in the order of the log."""
        self._pool.add(result)

    def add_comparison(self, record: ShadowRecord) -> None:
        """Add a comparison of a candidate model with the served model."""
        self._disagreements.add(record)

    def frames(self) -> Iterator[CandidateFrame]:
        """Yield the frames with objects to label whose pictures are still in the log."""
        self._pool.forget_before(self._clock.now_ns() - _FRAMES_KEPT_NS)
        return iter(self._pool)

    async def offer(
        self, user_id: int, wanted: Callable[[CandidateExample], bool], count: int, *, again: bool = False
    ) -> list[Pick[CandidateExample]]:
        """Return the next objects that a person may label, the most useful ones first, and reserve the objects for
        the person.

        Labelled and reserved objects are left out, and so are objects at the place of an offered or labelled object
        within ``REPEAT_NS``. With ``again``, the reservations of this person do not count, because the person has
        loaded the page again. The choice takes up to a second, so a thread makes it, for one person after the other.
        """
        async with self._choosing:
            now_s = self._clock.monotonic()
            taken = {
                key
                for key, one in self._offered.items()
                if one.until_s >= now_s and not (again and one.user_id == user_id)
            }
            frames, decisions = self.frames(), list(self.decisions)
            found = await asyncio.to_thread(chosen, frames, decisions, wanted, taken, count)
            found = [pick for pick in found if not self.decisions.of(pick.candidate.key)]  # decided meanwhile
            for pick in found:
                self._offered[pick.candidate.key] = OfferedObject(pick.candidate, user_id, now_s + LEASE_S)
                self._offered.move_to_end(pick.candidate.key)
            while len(self._offered) > MAX_OFFERED:
                self._offered.popitem(last=False)
            return found

    def example(self, object_: str) -> CandidateExample | None:
        """Return an object that was offered or labelled; None if the queue does not know the object any more."""
        if offered := self._offered.get(object_):
            return offered.example
        decision = self.decisions.of(object_)
        return original_example(decision) if decision else None

    async def labels(self, pipeline: str, sees: Callable[[str], bool]) -> list[str]:
        """Return the labels that models or people have given in a pipeline, the most frequent label first; in all
        pipelines if ``pipeline`` is empty. Only labels of the cameras that ``sees`` allows are counted, by a thread,
        because there may be 100,000 decisions."""
        frames, decisions = iter(self._pool), list(self.decisions)
        return await asyncio.to_thread(label_names, frames, decisions, pipeline, sees)


def chosen(
    frames: Iterable[CandidateFrame],
    decisions: Iterable[LabelDecision],
    wanted: Callable[[CandidateExample], bool],
    taken: Container[str],
    count: int,
) -> list[Pick[CandidateExample]]:
    """Return the most useful objects of frames that are neither decided nor taken. Pure."""
    seen, decided = _SeenObjects(), set[str]()
    for one in decisions:
        seen.add(one.camera, one.pipeline, one.captured_ns, one.box)
        decided.add(one.object)
    examples = [
        one
        for frame in frames
        for one in frame.examples()
        if one.key not in decided and one.key not in taken and wanted(one)
    ]
    selection, found = Selection(examples, USUAL_SHARES), list[Pick[CandidateExample]]()
    while len(found) < count and (pick := selection.next()):
        frame, box = pick.candidate.frame, pick.candidate.object.box
        place = frame.id.camera, frame.pipeline, frame.captured_ns, box
        if seen.has(*place):
            selection.refuse(pick)
        else:
            seen.add(*place)
            found.append(pick)
    return found


def label_names(
    frames: Iterable[CandidateFrame],
    decisions: Iterable[LabelDecision],
    pipeline: str,
    sees: Callable[[str], bool],
) -> list[str]:
    """Return the labels of frames and decisions, the most frequent label first. Pure."""
    counts: Counter[str] = Counter()
    for frame in frames:
        if pipeline in ("", frame.pipeline) and sees(frame.id.camera):
            counts.update(one.label for one in frame.objects)
    for one in decisions:
        if pipeline in ("", one.pipeline) and one.decided and sees(one.camera):
            counts[one.decided] += 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def original_example(decision: LabelDecision) -> CandidateExample:
    """Return the object that a decision is about, with the label that the model gave."""
    return decided_example(decision.model_copy(update={"verdict": "accept", "corrected": ""}))


class _SeenObjects:
    """The boxes that people have labelled or that are offered now, by camera, pipeline and minute."""

    def __init__(self) -> None:
        self._boxes: defaultdict[tuple[str, str, int], list[tuple[int, Box]]] = defaultdict(list)

    def add(self, camera: str, pipeline: str, captured_ns: int, box: Box) -> None:
        """Note the box of a labelled or offered object in a frame."""
        self._boxes[camera, pipeline, captured_ns // REPEAT_NS].append((captured_ns, box))

    def has(self, camera: str, pipeline: str, captured_ns: int, box: Box) -> bool:
        """Return whether a noted box is at the same place within ``REPEAT_NS`` of a frame."""
        minute = captured_ns // REPEAT_NS
        return any(
            abs(at_ns - captured_ns) < REPEAT_NS and (one == box or one.iou(box) >= _SAME_BOX)
            for number in (minute - 1, minute, minute + 1)
            for at_ns, one in self._boxes.get((camera, pipeline, number), ())
        )


class LabelView(TopicView):
    """Reads the decisions of people about labels."""

    topic: ClassVar[str] = LABELS
    backlog: ClassVar[int] = MAX_DECISIONS

    def __init__(self, queue: LabelQueue) -> None:
        self._queue = queue

    def apply(self, record: LogRecord) -> None:
        """Add a decision."""
        self._queue.decisions.add(decode_json(LabelDecision, record.value))


class ComparisonView(TopicView):
    """Reads comparisons of candidate models with served models while someone labels."""

    topic: ClassVar[str] = SHADOW
    backlog: ClassVar[int] = MAX_COMPARISONS

    def __init__(self, queue: LabelQueue) -> None:
        self._queue = queue

    def wanted(self) -> bool:
        """Return whether someone labels objects."""
        return self._queue.in_use

    def apply(self, record: LogRecord) -> None:
        """Add a comparison."""
        self._queue.add_comparison(decode(ShadowRecord, record.value))


class LabelResultView(TopicView):
    """Reads the results whose objects people label, while someone labels."""

    topic: ClassVar[str] = RESULTS
    backlog: ClassVar[int] = 20_000

    def __init__(self, queue: LabelQueue) -> None:
        self._queue = queue

    def wanted(self) -> bool:
        """Return whether someone labels objects."""
        return self._queue.in_use

    def apply(self, record: LogRecord) -> None:
        """Add a result."""
        self._queue.add_result(decode(Result, record.value))
