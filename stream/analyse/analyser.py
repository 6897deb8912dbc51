"""Tracks objects and applies rules for the results of one camera, lane (live, late or replay) and pipeline.

Pure: the events depend only on the results and on the order of the results.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from ingest.contract.records import Box, Detection, Event, JoinCandidate, JoinSignal, Result
from ingest.site import AppearanceConfig, CameraConfig, MeasureConfig
from stream.analyse.frameevents import FrameEvents
from stream.analyse.geometry import Scale
from stream.analyse.ground import GroundPlane
from stream.analyse.measures.meters import MeasureMeter, make_meter
from stream.analyse.measures.minute import ClosedMinute
from stream.analyse.reported import ReportedEvents, subjects
from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneTrack
from stream.analyse.tracking.appearance import AppearanceMemory
from stream.analyse.tracking.ends import TrackEnd
from stream.analyse.tracking.overlaps import one_per_object
from stream.analyse.tracking.paths import TrackPaths
from stream.analyse.tracking.stationary import FrameView, StationaryTracks
from stream.analyse.tracking.tracker import BEGIN_SCORE, Track, Tracker
from stream.analyse.tracking.tracktime import TrackTime
from stream.analyse.tracking.waiting import EarlierFrame, WaitingTracks
from stream.epochs import Admission, EpochGate
from stream.join.rule import SIGNAL_NS, JoinRule


class Analyser:
    """The tracks and rules of one camera, lane and pipeline. A new epoch (a new run of the camera's capture) begins
    without tracks.

    Results of an epoch lower than the present epoch make no events until the present epoch has ended: see
    ``EpochGate``.

    A detection begins a track if the detection's score reaches ``BEGIN_SCORE`` or the lowest ``min_score`` of the
    rules. ``reported`` has the events that an earlier owner of the partition has written; the analyser does not
    return these events again.
    """

    def __init__(
        self,
        rules: Iterable[CameraRule],
        camera: CameraConfig | None,
        make_tracker: Callable[[float], Tracker],
        reported: ReportedEvents | None = None,
        measures: Iterable[MeasureConfig] = (),
        appearance: AppearanceConfig | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._appearance = appearance
        self._measures = tuple(measures)
        self._meters: tuple[MeasureMeter, ...] = ()
        self._closed: list[ClosedMinute] = []
        self._signals: list[JoinSignal] = []
        self._candidates: defaultdict[str, list[JoinCandidate]] = defaultdict(list)
        """Candidate events by the name of the rule, until the next signals. Those of earlier frames of waiting tracks
        may go out with the first frame of a new epoch."""
        self._camera = camera
        self._make_tracker = make_tracker
        self._begin_score = _begin_score([*self._rules, *self._measures])
        self._reported = reported or {}
        self._gate = EpochGate()
        self.scene: Scene | None = None
        """The frame of the last result, with its tracks; None if the result was shed, or had been processed
        before."""
        self.ended: list[TrackEnd] = []
        """The tracks that ended with the last result, with the reasons."""
        self._begin_epoch()

    def step(self, result: Result) -> list[Event]:
        """Process the next result and return its events. Return no events for a result that was processed before.

        Raise ValueError, or another error of the tracker, for detections that cannot be tracked.
        """
        self.scene = None
        self.ended = []
        before = self._gate.last(result.epoch)
        admission = self._gate.admit(
            result.epoch, result.seq, result.finished_ns, camera=result.camera, lane=result.lane
        )
        if admission in (Admission.REPEAT, Admission.LOWER):
            return []
        late: list[Event] = []
        if admission is Admission.BEGIN:
            late = list(self._catch_up(()))
            self._begin_epoch()
        else:
            missing = result.seq - before - 1
            if missing > 0 or result.withheld:
                unknown = missing - sum(result.withheld.values())
                self._missing.update(result.withheld, unknown=max(unknown, 0))
        at_s = self._time.advance(result)
        if result.outcome == "classified":
            return [*late, *self._classified(result, at_s)]
        if result.motion == ():  # the agent looked at the frame, and saw no motion
            return [*late, *self._still(result, at_s)]
        self._missing[result.reason or result.outcome] += 1
        return late

    @property
    def begin_score(self) -> float:
        """The minimum score of a detection that begins a track."""
        return self._begin_score

    @property
    def watches(self) -> tuple[RuleWatch[CameraRule], ...]:
        """The states of the rules in the present epoch; empty before the first classified frame of the epoch."""
        return self._watches

    @property
    def waiting_names(self) -> frozenset[str]:
        """The present names of the new tracks that wait for a better view, with or without a detection in the last
        frame."""
        return self._waits.names

    def in_frame(self, result: Result, box: Box) -> Box:
        """Convert a track's box from pixels of the epoch's first picture to pixels of the result's frame."""
        return self._scale((result.width, result.height)).back(box)

    def take_signals(self) -> list[JoinSignal]:
        """Return and clear the signals collected so far: candidate events and times of the rules that also need a
        sensor's readings."""
        taken, self._signals = self._signals, []
        return taken

    def closed_minutes(self) -> list[ClosedMinute]:
        """Return the minutes of measures that were completed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def _begin_epoch(self) -> None:
        for meter in self._meters:
            self._closed += meter.clock.close(meter.clock.last_frame)
        self._meters = ()
        self._tracker = self._make_tracker(self._begin_score)
        self._memory = AppearanceMemory(self._appearance, self._has_left) if self._appearance else None
        self._waits = WaitingTracks()
        self._time = TrackTime()
        self._size: tuple[int, int] | None = None
        self._ground: GroundPlane | None = None
        self._watches: tuple[RuleWatch[CameraRule], ...] = ()
        self._paths = TrackPaths(0, 0)
        self._stationary = StationaryTracks()
        self._missing: Counter[str] = Counter()
        self._scene_s = 0.0
        self._interval = -1

    def use(
        self,
        rules: Iterable[CameraRule],
        camera: CameraConfig | None,
        measures: Iterable[MeasureConfig] = (),
        appearance: AppearanceConfig | None = None,
    ) -> None:
        """Use other rules and measures, and other configurations of the camera and of the re-identification, from the
        next result on.

        Unchanged rules and measures keep their state. If the score at which a track begins has changed, all tracks
        are dropped and tracking begins again. If the score at which a track begins has not changed, the present
        tracks continue. If the configuration of the re-identification has changed, all embeddings are dropped.
        """
        if appearance != self._appearance:
            self._appearance = appearance
            self._memory = AppearanceMemory(appearance, self._has_left) if appearance else None
        before_score, self._rules, self._camera = self._begin_score, tuple(rules), camera
        self._measures = tuple(measures)
        self._begin_score = _begin_score([*self._rules, *self._measures])
        if self._begin_score != before_score:
            self._tracker = self._make_tracker(self._begin_score)
            self._stationary = StationaryTracks()
        if self._size is None:
            return
        self._ground = _ground_plane(camera, self._size)
        size, before = self._size, self._watches
        kept = ([watch for watch in before if watch.rule.same_as(rule)] for rule in self._rules)
        self._watches = tuple(
            found[0] if found else rule.watch(*size) for rule, found in zip(self._rules, kept, strict=True)
        )
        meters = {_unshared(meter.config): meter for meter in self._meters}
        self._meters = tuple(meters.get(_unshared(one)) or make_meter(one, *size) for one in self._measures)

    def _classified(self, result: Result, at_s: float) -> Iterator[Event]:
        scale = self._scale((result.width, result.height))
        view = FrameView.of(result, scale)
        lived_ns = self._time.lived_ns
        found = one_per_object(result)
        detections = self._stationary.merged(scale.detections(found), view)
        held = self._stationary.held(view, at_s, lived_ns, detections)
        tracks = self._tracker.step(detections, at_s, f"{result.epoch}-{result.seq}", held)
        waits: list[Track] = []
        if self._memory:
            tracks, waits = self._reidentified(self._memory, tracks, detections, lived_ns)
        yield from self._catch_up(self._memory.pending if self._memory else ())
        seen = [track for track in tracks if not track.held]
        for track in (*seen, *waits):
            self._paths.note(track.name, track.box, at_s)
        moving = [self._paths.shown(track, self._stationary.seen(track, view, at_s, lived_ns)) for track in seen]
        self._stationary.missed(view, {track.name for track in seen}, lived_ns)
        resting = self._hold([track.name for track in tracks if track.held], at_s)
        waiting = [self._paths.shown(track, view.is_at_rest(track.box)) for track in waits]
        yield from self._apply_rules(result, at_s, scale, [*moving, *resting], waiting)
        if self.scene and waiting:
            for track, shown in zip(waits, waiting, strict=True):
                scene = self.scene._replace(tracks=(shown,), waiting=())
                self._waits.note(track, EarlierFrame(result, scene, at_s))
        self._forget(at_s)

    def _reidentified(
        self, memory: AppearanceMemory, tracks: list[Track], detections: Sequence[Detection], lived_ns: int
    ) -> tuple[list[Track], list[Track]]:
        """Give new tracks of objects that were lost before the names of their earlier tracks. Return the tracks with
        final names, and the tracks that wait for a better view of their objects."""
        found = memory.step(tracks, detections, self._tracker.followed(), lived_ns, self._paths.is_at_edge)
        for name in found.returned:
            self._paths.resume(name)
            for watch in self._watches:
                watch.resume(name)
        decided = [track for track in tracks if track.name not in found.waiting]
        if found.returned:
            decided.sort(key=lambda track: track.name)
        return decided, [track for track in tracks if track.name in found.waiting]

    def _catch_up(self, pending: Collection[str]) -> Iterator[Event]:
        """Let the rules and measures process the frames of the tracks that no longer wait, under their final names.
        ``pending`` has the names of the tracks that still wait.

        The events have the frames in which they happened, so they come up to 1 s later than others, or up to
        ``LOST_S`` more for an object that is no longer seen.
        """
        for track, first_name, frames in self._waits.end(pending):
            self._paths.drop(first_name)
            for result, scene, at_s in frames:
                (shown,) = scene.tracks
                self._paths.note_earlier(track.name, shown.box, at_s)
                final = self._paths.shown(track, shown.at_rest)._replace(box=shown.box, score=shown.score)
                scene = scene._replace(tracks=(final,))
                for meter in self._meters:
                    meter.catch_up(scene)
                frame = FrameEvents(result, self._scale((result.width, result.height)), self._camera)
                yield from self._events(frame, scene, is_earlier=True)

    def _still(self, result: Result, at_s: float) -> Iterator[Event]:
        """Process a frame in which nothing moved: stationary tracks stay in place."""
        if self._memory:
            self._memory.pass_time(self._time.lived_ns)
            yield from self._catch_up(self._memory.pending)
        if self._size is None and not (result.width and result.height):
            return
        scale = self._scale((result.width, result.height))
        held = self._stationary.held(FrameView.of(result, scale), at_s, self._time.lived_ns)
        yield from self._apply_rules(result, at_s, scale, self._hold([one.track for one in held], at_s))

    def _hold(self, names: Sequence[str], at_s: float) -> list[SceneTrack]:
        """Keep stationary tracks without a detection alive, and return the tracks whose objects have certainly not
        moved."""
        self._paths.keep(names, at_s)
        return [self._paths.shown(track, at_rest=True) for track in self._stationary.hold(names, at_s)]

    def _scale(self, size: tuple[int, int]) -> Scale:
        """Return the factors that convert pixels of a picture to pixels of the epoch's first picture.

        The shapes of the rules are in pixels of the epoch's first picture.
        """
        scale = Scale.between(size, self._size or size)
        if self._size is None:
            self._size = size
            self._paths = TrackPaths(*size)
            self._ground = _ground_plane(self._camera, size)
            self._watches = tuple(rule.watch(*size) for rule in self._rules)
            self._meters = tuple(make_meter(measure, *size) for measure in self._measures)
        return scale

    def _apply_rules(
        self,
        result: Result,
        at_s: float,
        scale: Scale,
        tracks: Sequence[SceneTrack],
        waiting: Sequence[SceneTrack] = (),
    ) -> Iterator[Event]:
        width, height = self._size or (result.width, result.height)
        scene = Scene(
            frame=f"{result.epoch}-{result.seq}",
            at_ns=self._time.lived_ns,
            captured_ns=result.captured_ns,
            width=width,
            height=height,
            outcome=result.outcome,
            tracks=tuple(tracks),
            gap_s=at_s - self._scene_s,
            missing=+self._missing if self._missing else {},
            ground=self._ground,
            view=result.view,
            waiting=tuple(waiting),
        )
        if self._missing:
            self._missing = Counter()
        self._scene_s, self.scene = at_s, scene
        self._paths.scene(tracks, scene.gap_s)
        for meter in self._meters:
            self._closed += meter.step(scene)
        frame = FrameEvents(result, scale, self._camera)
        yield from self._events(frame, scene)
        before, self._interval = self._interval, scene.captured_ns // SIGNAL_NS
        for watch in self._watches:
            if not isinstance(watch.rule, JoinRule):
                continue
            candidates = self._candidates.pop(watch.rule.name, [])
            if candidates or before != self._interval:
                self._signals.append(frame.signal(watch.rule, candidates))
        self._candidates.clear()  # those left are of rules that were removed

    def _events(self, frame: FrameEvents, scene: Scene, *, is_earlier: bool = False) -> Iterator[Event]:
        """Let the rules process a frame, and yield their events. Collect the candidate events of the rules that also
        need a sensor's readings.

        ``is_earlier`` says whether the frame is an earlier frame of a track that waited.
        """
        result = frame.result
        sightings = self._reported.get((result.epoch, result.seq), set())
        for watch in self._watches:
            process = watch.catch_up if is_earlier else watch.observe
            if isinstance(watch.rule, JoinRule):
                self._candidates[watch.rule.name] += frame.candidates(watch.rule, process(scene, ()))
                continue
            written = subjects(watch.rule.name, scene, frame.scale, sightings) if sightings else ()
            yield from frame.events(watch.rule, process(scene, written))

    def _forget(self, now_s: float) -> None:
        memory, now_ns = self._memory, self._time.lived_ns
        for name in self._paths.idle(now_s):
            if memory and memory.may_return(name, now_ns):
                continue
            if memory:
                memory.end(name)
            self._stationary.forget(name)
            end = self._paths.forget(name)
            self.ended.append(end)
            for watch in self._watches:
                watch.forget(name)
            for meter in self._meters:
                meter.forget(name, end.reason)

    def _has_left(self, name: str) -> bool:
        return self._paths.has_left(name)


def _ground_plane(camera: CameraConfig | None, size: tuple[int, int]) -> GroundPlane | None:
    if camera is None or camera.ground is None:
        return None
    return GroundPlane.of(camera.ground, *size, camera.lens.lens(*size) if camera.lens else None)


def _unshared(config: MeasureConfig) -> str:
    """Return a measure as text, without the names of the sites that share it."""
    return config.model_copy(update={"sites": ()}).model_dump_json()


def _begin_score(rules: Iterable[CameraRule | MeasureConfig]) -> float:
    """Return the score at which a track begins: at most the ``min_score`` of every rule and measure."""
    return min([BEGIN_SCORE, *(rule.min_score for rule in rules)])
