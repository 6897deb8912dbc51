"""The rules of a site, and the analysers of one partition.

Each combination of camera, lane (live, late or replay) and pipeline that has rules gets an analyser. Pure.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping

from ingest.contract.codec import decode
from ingest.contract.identity import is_replay
from ingest.contract.records import Event, Result
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.site import CameraConfig
from stream.analyse.analyser import Analyser, ReportedEvents
from stream.analyse.rule import CameraRule
from stream.analyse.tracking.tracker import Tracker
from stream.readback import HistoryPoint

MAX_REPLAYED = 64
"""Maximum number of analysers for replayed results, of about 10 kB each. Nothing marks the end of a replay, so above
this number the least recently used analyser is dropped. If a replay continues after its analyser was dropped, a new
analyser begins without tracks."""

Key = tuple[str, str, str]
"""The camera, lane and pipeline of an analyser."""


class RuleSet:
    """The camera rules by ``(camera, pipeline)``, and the cameras by name."""

    def __init__(self, rules: Iterable[CameraRule], cameras: Iterable[CameraConfig] = ()) -> None:
        self.cameras = {camera.name: camera for camera in cameras}
        found: defaultdict[tuple[str, str], list[CameraRule]] = defaultdict(list)
        for rule in rules:
            found[rule.camera, rule.pipeline].append(rule)
        self._rules = {key: tuple(rules) for key, rules in found.items()}
        self._tail_s = {key: max(rule.tail_s for rule in rules) for key, rules in found.items()}

    @property
    def longest_s(self) -> float:
        """Longest time span of past results that a rule needs after a restart, in seconds; 0 without rules."""
        return max(self._tail_s.values(), default=0.0)

    def of(self, camera: str, pipeline: str) -> tuple[CameraRule, ...]:
        """Return the rules of a camera and pipeline."""
        return self._rules.get((camera, pipeline), ())

    def history_point(self, record: LogRecord) -> HistoryPoint | None:
        """Return the epoch and time of a result in its camera's history.

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

    def __len__(self) -> int:
        """Return the number of analysers."""
        return len(self._lasting) + len(self._replayed)

    def remember(self, past: Iterable[LogRecord], reported: Mapping[tuple[str, str], ReportedEvents]) -> None:
        """Store the past results that were read back, in the order of their offsets, and the events that are already
        written.

        An analyser processes its past results again only when its first new result arrives, so that past results do
        not delay the opening of the partition.
        """
        for record in past:
            self._past[_key(decode(Result, record.value))].append(record.value)
        self._reported = reported

    def step(self, result: Result) -> list[Event]:
        """Process the next result and return its events. Errors of the tracker propagate to the caller."""
        self._follow()
        rules = self._rules.of(result.camera, result.pipeline)
        if not rules:
            return []
        key = _key(result)
        analyser = self._lasting.get(key) or self._replayed.get(key) or self._create(key, rules)
        if is_replay(result.lane):
            self._replayed[key] = analyser
            self._replayed.move_to_end(key)
            if len(self._replayed) > MAX_REPLAYED:
                self._replayed.popitem(last=False)
        else:
            self._lasting[key] = analyser
        return analyser.step(result)

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
                if own := rules.of(camera, pipeline):
                    analyser.use(own, rules.cameras.get(camera))
                else:
                    del analysers[key]

    def _create(self, key: Key, rules: Iterable[CameraRule]) -> Analyser:
        camera, lane, _ = key
        reported = self._reported.get((camera, lane))
        analyser = Analyser(rules, self._rules.cameras.get(camera), self._make_tracker, reported)
        for past in self._past.pop(key, ()):
            _replay(analyser, decode(Result, past))
        return analyser


def _replay(analyser: Analyser, past: Result) -> None:
    """Process a past result again.

    Drop the events of the result, which are already written. Ignore an error, because a result that causes an error
    is already parked as a dead letter.
    """
    try:
        analyser.step(past)
    except MemoryError:
        raise
    except Exception:
        return


def _key(result: Result) -> Key:
    return result.camera, result.lane, result.pipeline
