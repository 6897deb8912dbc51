"""Choose the examples of a data set: pick candidates in order, read their frames, and leave out near-duplicates."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ingest.contract.records import Redacted
from ingest.runtime.files import write_private
from ingest.site import CameraConfig
from stream.labels.candidates import CandidateExample, CandidateFrame
from stream.labels.preference import Pick, Selection
from training.datasets.duplicates import NearDuplicates, fingerprint
from training.datasets.folder import ExportFolder
from training.datasets.frames import StoredFrames
from training.datasets.pictures import PictureUnfit, picture_of, require_private
from training.datasets.request import DatasetExample, DatasetRequest

AnyCandidate = CandidateFrame | CandidateExample
Report = Callable[[int, int], None]
"""A callback that gets the number of examples chosen so far and the wanted number of examples."""
_ROUND = 2000
"""Maximum number of candidates whose frames are read before their pictures are compared."""
_FEW = 0.02
"""The choice ends if a smaller share than ``_FEW`` of the pictures of a full round (``_FULL_ROUND``) was new, because
the remaining pictures are mostly repeats."""
_FULL_ROUND = 200
_ENOUGH = "more examples of its label than wanted (--per-label)"


@dataclass
class ChosenExamples:
    """The chosen examples of a data set, and the number of candidates that were left out for each reason.

    ``pairs`` has the near-duplicates that are kept, as pairs of indexes into ``examples``. ``redacted`` counts the
    frames by camera and by a description of their redaction.
    """

    examples: list[DatasetExample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    redacted: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


class ExampleChooser:
    """Chooses the examples of a data set from picked candidates. ``cameras`` maps a camera's name to its present
    configuration."""

    def __init__(
        self, request: DatasetRequest, folder: ExportFolder, stored: StoredFrames, cameras: Mapping[str, CameraConfig]
    ) -> None:
        self._request, self._folder, self._stored, self._cameras = request, folder, stored, cameras
        self._seen = NearDuplicates()
        self._times: defaultdict[str, list[int]] = defaultdict(list)
        self._per_label: Counter[str] = Counter()
        self._margin = request.margin if request.layout == "folders" else None
        self.chosen = ChosenExamples()

    async def choose(
        self,
        selection: Selection[AnyCandidate],
        example_of: Callable[[Pick[AnyCandidate]], DatasetExample],
        on_progress: Report = lambda *_: None,
    ) -> ChosenExamples:
        """Choose up to ``limit`` examples for the data set. ``example_of`` makes the example of a picked candidate.

        Raise LogUnavailable.
        """
        limit = self._request.limit
        while picked := self._picks(selection, example_of, limit - len(self.chosen.examples) if limit else _ROUND):
            await self._stored.fetch({one.frame.id: one.frame for _, one in picked}.values())
            before = len(self.chosen.examples)
            for pick, example in picked:
                if limit and len(self.chosen.examples) >= limit:
                    break
                try:
                    self._take(example)
                except PictureUnfit as unfit:
                    self._times[example.frame.id.camera].remove(example.frame.captured_ns)
                    self.chosen.left_out[str(unfit)] += 1
                    selection.refuse(pick)
                on_progress(len(self.chosen.examples), limit)
            if len(picked) >= _FULL_ROUND and len(self.chosen.examples) - before < _FEW * len(picked):
                rest = sum(1 for _ in iter(selection.next, None))
                self.chosen.left_out["not examined, because the pictures before them were near-duplicates"] += rest
                break
        return self.chosen

    def _picks(
        self,
        selection: Selection[AnyCandidate],
        example_of: Callable[[Pick[AnyCandidate]], DatasetExample],
        missing: int,
    ) -> list[tuple[Pick[AnyCandidate], DatasetExample]]:
        """Return the next picked candidates with their examples, and reserve the capture time of each.

        Some candidates will be left out, so more candidates than the missing number are returned.
        """
        count = min(missing + missing // 4 + 16, _ROUND) if missing > 0 else 0
        found: list[tuple[Pick[AnyCandidate], DatasetExample]] = []
        while len(found) < count and (pick := selection.next()):
            example = example_of(pick)
            try:
                self._require_room(example)
            except PictureUnfit as unfit:
                self.chosen.left_out[str(unfit)] += 1
                selection.refuse(pick)
                continue
            bisect.insort(self._times[example.frame.id.camera], example.frame.captured_ns)
            found.append((pick, example))
        return found

    def _take(self, example: DatasetExample) -> None:
        """Add an example with its picture to the chosen examples. Raise PictureUnfit."""
        request = self._request
        if any(self._has_enough(label) for label in example.labels):
            raise PictureUnfit(_ENOUGH)
        frame = self._stored.frame(example.frame.id)
        if frame is None:
            raise PictureUnfit("no longer in the log")
        config = self._cameras.get(frame.camera)
        require_private(frame, config.redact if config else None)
        picture = picture_of(example, frame, self._margin)
        known = fingerprint(picture.pixels, example.objects if self._margin is None else None)
        twins = list(self._seen.of(known))
        if twins and request.duplicates == "drop":
            raise PictureUnfit("near-duplicate of another example")
        number = self._seen.add(known)
        self.chosen.pairs += [(twin, number) for twin in twins]
        name = f"{frame.camera}-{frame.epoch}-{frame.seq}"
        file = f"{name}.{picture.ending}" if self._margin is None else f"{name}-{example.key[:8]}.{picture.ending}"
        write_private(self._folder.pictures / file, picture.data)
        place = config.full_place if config else frame.camera
        self.chosen.examples.append(replace(example, file=file, place=place))
        self.chosen.redacted[frame.camera][in_words(frame.redacted)] += 1
        self._per_label.update(example.labels)

    def _require_room(self, example: DatasetExample) -> None:
        """Raise PictureUnfit if an example of the same camera was chosen whose time differs by less than
        ``every_s``, or if there are enough examples of a label of ``example``."""
        request, at_ns = self._request, example.frame.captured_ns
        every_ns = round(request.every_s * 1e9)
        times = self._times[example.frame.id.camera]
        place = bisect.bisect_left(times, at_ns - every_ns + 1)
        if every_ns and any(one != at_ns for one in times[place : bisect.bisect_left(times, at_ns + every_ns)]):
            raise PictureUnfit("too close in time to another example (--every)")
        if any(self._has_enough(label) for label in example.labels):
            raise PictureUnfit(_ENOUGH)

    def _has_enough(self, label: str) -> bool:
        """Return whether the data set has as many examples of ``label`` as the option ``per_label`` allows."""
        return bool(self._request.per_label) and self._per_label[label] >= self._request.per_label


def in_words(done: Redacted | None) -> str:
    """Return a description of the redaction that the agent applied to a frame."""
    if done is None:
        return "none"
    parts = [f"{done.masks} masks"] if done.masks else []
    parts += [f"{done.method} by {', '.join(done.models)}"] if done.models else []
    return "; ".join(parts) or "none"
