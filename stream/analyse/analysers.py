"""The rules of a site, and the analysers of one partition.

Each combination of camera, lane (live, late or replay) and pipeline that has rules gets an analyser. Pure.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping

from ingest.contract.codec import decode
from ingest.contract.identity import is_replay
from ingest.contract.records import Event, JoinSignal, Measure, Result
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.site import AppearanceConfig, CameraConfig, MeasureConfig, PipelineConfig
from stream.analyse.analyser import Analyser
from stream.analyse.measures.book import MeasureBook
from stream.analyse.reported import ReportedEvents
from stream.analyse.rule import TAIL_S, CameraRule
from stream.analyse.tracking.appearance import RIVAL_WINDOWS
from stream.analyse.tracking.tracker import Tracker
from stream.readback import HistoryPoint

MAX_REPLAYED = 64
"""Maximum number of analysers for replayed results, of about 10 kB each. Nothing marks the end of a replay, so above
this number the least recently used analyser is dropped. If a replay continues after its analyser was dropped, a new
analyser begins without tracks."""

Key = tuple[str, str, str]
"""The camera, lane and pipeline of an analyser."""


class RuleSet:
    """The camera rules and measures by ``(camera, pipeline)``, the cameras by name, and the settings of the
    re-identification by pipeline."""

    def __init__(
        self,
        rules: Iterable[CameraRule],
        cameras: Iterable[CameraConfig] = (),
        measures: Iterable[MeasureConfig] = (),
        pipelines: Iterable[PipelineConfig] = (),
    ) -> None:
        self._appearances = {one.name: one.appearance for one in pipelines if one.appearance}
        self.cameras = {camera.name: camera for camera in cameras}
        self.measures = {measure.name: measure for measure in measures}
        self._measures: defaultdict[tuple[str, str], list[MeasureConfig]] = defaultdict(list)
        for measure in self.measures.values():
            self._measures[measure.camera, measure.pipeline].append(measure)
        found: defaultdict[tuple[str, str], list[CameraRule]] = defaultdict(list)
        for rule in rules:
            found[rule.camera, rule.pipeline].append(rule)
        self._rules = {key: tuple(rules) for key, rules in found.items()}
        self._tail_s = {key: max(rule.tail_s for rule in rules) for key, rules in found.items()}
        for key in self._measures:
            self._tail_s[key] = max(self._tail_s.get(key, 0.0), TAIL_S)
        for key in self._tail_s:
            if appearance := self._appearances.get(key[1]):
                self._tail_s[key] += RIVAL_WINDOWS * appearance.window_s

    @property
    def longest_s(self) -> float:
        """Longest time span of past results that a rule needs after a restart, in seconds; 0 without rules."""
        return max(self._tail_s.values(), default=0.0)

    @property
    def watched(self) -> frozenset[str]:
        """Names of the cameras with a rule or a measure."""
        return frozenset(camera for camera, _ in self._tail_s)

    def require(self) -> None:
        """Raise ConfigError if this process lacks something that a rule needs, such as the file of a model."""
        for rules in self._rules.values():
            for rule in rules:
                rule.require()

    def of(self, camera: str, pipeline: str) -> tuple[CameraRule, ...]:
        """Return the rules of a camera and pipeline."""
        return self._rules.get((camera, pipeline), ())

    def measures_of(self, camera: str, pipeline: str) -> tuple[MeasureConfig, ...]:
        """Return the measures of a camera and pipeline."""
        return tuple(self._measures.get((camera, pipeline), ()))

    def appearance_of(self, pipeline: str) -> AppearanceConfig | None:
        """Return the settings of a pipeline's re-identification; None if lost tracks never return."""
        return self._appearances.get(pipeline)

    def wants(self, camera: str, pipeline: str) -> bool:
        """Return whether a camera and pipeline have a rule or a measure."""
        return (camera, pipeline) in self._tail_s

    def history_point(self, record: LogRecord) -> HistoryPoint | None:
        """Return the camera, epoch (capture run) and capture time of a result, and the length of past results that
        its rules need.

        Return None if the result is unreadable or no rule applies to the result.
        """
        try:
            result = decode(Result, record.value)
        except CodecError:
            return None
        wanted_s = self._tail_s.get((result.camera, result.pipeline))
        if wanted_s is None:
            return None
        key = f"{result.camera}/{result.lane}/{result.pipeline}"
        return HistoryPoint(key, result.epoch, result.captured_ns, wanted_s)


class Analysers:
    """The analysers of one partition. An analyser is created when its first result arrives.

    ``rules`` returns the present rules, and is called for each result, because the rules may change at any time.
    """

    def __init__(self, rules: Callable[[], RuleSet], make_tracker: Callable[[float], Tracker]) -> None:
        self._in_force = rules
        self._rules = rules()
        self._make_tracker = make_tracker
        self._lasting: dict[Key, Analyser] = {}
        self._replayed: OrderedDict[Key, Analyser] = OrderedDict()
        self._past: defaultdict[Key, list[bytes]] = defaultdict(list)
        self._reported: Mapping[tuple[str, str], ReportedEvents] = {}
        self._book = MeasureBook()
        self._measured: list[Measure] = []
        self._signals: list[JoinSignal] = []

    def __len__(self) -> int:
        """Return the number of analysers."""
        return len(self._lasting) + len(self._replayed)

    def remember(
        self,
        past: Iterable[LogRecord],
        reported: Mapping[tuple[str, str], ReportedEvents],
        measured: Iterable[LogRecord] = (),
    ) -> None:
        """Store the past results that were read back, in the order of their offsets, and the events and measures that
        are already written.

        An analyser processes its past results again only when its first new result arrives, so that past results do
        not delay the opening of the partition.
        """
        for record in past:
            self._past[_key(decode(Result, record.value))].append(record.value)
        self._reported = reported
        self._book = MeasureBook(measured)

    def step(self, result: Result) -> list[Event]:
        """Process the next result and return its events. Errors of the tracker propagate to the caller."""
        self._follow()
        if not self._rules.wants(result.camera, result.pipeline):
            return []
        key = _key(result)
        analyser = self._lasting.get(key) or self._replayed.get(key) or self._create(key)
        if is_replay(result.lane):
            self._replayed[key] = analyser
            self._replayed.move_to_end(key)
            if len(self._replayed) > MAX_REPLAYED:
                self._replayed.popitem(last=False)
        else:
            self._lasting[key] = analyser
        events = analyser.step(result)
        self._note_minutes(key, analyser)
        self._signals += analyser.take_signals()
        return events

    def take_measures(self) -> list[Measure]:
        """Return and clear the per-minute measures that were completed since the last call."""
        taken, self._measured = self._measured, []
        return taken

    def take_signals(self) -> list[JoinSignal]:
        """Return and clear the signals collected so far for the rules that also need a sensor's readings."""
        taken, self._signals = self._signals, []
        return taken

    def _note_minutes(self, key: Key, analyser: Analyser) -> None:
        camera, lane, _ = key
        for minute in analyser.closed_minutes():
            config, site = self._rules.measures.get(minute.measure), self._rules.cameras.get(camera)
            if config is None or is_replay(lane):
                continue
            measure = self._book.add(minute, lane, config, site.site if site else "")
            if measure:
                self._measured.append(measure)

    def _follow(self) -> None:
        """If the rules have changed, apply the new rules to all analysers.

        Drop each analyser whose camera and pipeline have no rules any more.
        """
        rules = self._in_force()
        if rules is self._rules:
            return
        self._rules = rules
        for analysers in (self._lasting, self._replayed):
            for key, analyser in list(analysers.items()):
                camera, _, pipeline = key
                if rules.wants(camera, pipeline):
                    own, measures = rules.of(camera, pipeline), rules.measures_of(camera, pipeline)
                    analyser.use(own, rules.cameras.get(camera), measures, rules.appearance_of(pipeline))
                else:
                    del analysers[key]

    def _create(self, key: Key) -> Analyser:
        camera, lane, pipeline = key
        rules, measures = self._rules.of(camera, pipeline), self._rules.measures_of(camera, pipeline)
        reported = self._reported.get((camera, lane))
        analyser = Analyser(
            rules,
            self._rules.cameras.get(camera),
            self._make_tracker,
            reported,
            measures,
            self._rules.appearance_of(pipeline),
        )
        for past in self._past.pop(key, ()):
            _replay(analyser, decode(Result, past))
        self._note_minutes(key, analyser)
        analyser.take_signals()  # written by an earlier owner
        return analyser


def _replay(analyser: Analyser, past: Result) -> None:
    """Process a past result again.

    Drop the events of the result, which are already written. Ignore an error, because a result that causes an error
    has already become a dead letter.
    """
    try:
        analyser.step(past)
    except MemoryError:
        raise
    except Exception:
        return


def _key(result: Result) -> Key:
    return result.camera, result.lane, result.pipeline
