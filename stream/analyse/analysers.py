"""The analysers of one partition: one per camera, lane and pipeline that a rule looks at. Pure."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping

from ingest.contract.codec import decode
from ingest.contract.identity import is_replay
from ingest.contract.records import Event, Result
from ingest.kafka.log import LogRecord
from stream.analyse.analyser import Analyser
from stream.analyse.reported import ReportedEvents
from stream.analyse.ruleset import RuleSet
from stream.analyse.tracking.tracker import Tracker

MAX_REPLAYED = 64
"""Analysers of replays that are remembered, of some 10 kB each. A replay has an end and does not tell of it, so those
that were used least lately are let go; one that goes on afterwards begins with nothing tracked."""

Key = tuple[str, str, str]


class Analysers:
    """Feeds each result to the analyser of its camera, lane and pipeline."""

    def __init__(self, rules: RuleSet, sites: Mapping[str, str], make_tracker: Callable[[], Tracker]) -> None:
        self._rules = rules
        self._sites = sites
        self._make_tracker = make_tracker
        self._lasting: dict[Key, Analyser] = {}
        self._replayed: OrderedDict[Key, Analyser] = OrderedDict()
        self._past: defaultdict[Key, list[bytes]] = defaultdict(list)
        self._reported: Mapping[tuple[str, str], ReportedEvents] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._lasting) + len(self._replayed)

    def remember(self, past: Iterable[LogRecord], reported: Mapping[tuple[str, str], ReportedEvents]) -> None:
        """Take the results before the first one that is fed, in order, and what has been told of them and since.

        Each analyser takes its own when it is first needed, so that opening a partition does not wait for them.
        """
        for record in past:
            self._past[_key(decode(Result, record.value))].append(record.value)
        self._reported = reported

    def step(self, result: Result) -> list[Event]:
        """Take the next result and return the events that it makes. Raise what the tracker raises."""
        rules = self._rules.of(result)
        if not rules:
            return []
        key = _key(result)
        analyser = self._lasting.get(key) or self._replayed.get(key) or self._begin(key, result)
        if is_replay(result.lane):
            self._replayed[key] = analyser
            self._replayed.move_to_end(key)
            if len(self._replayed) > MAX_REPLAYED:
                self._replayed.popitem(last=False)
        else:
            self._lasting[key] = analyser
        return analyser.step(result)

    def _begin(self, key: Key, result: Result) -> Analyser:
        reported = self._reported.get((result.camera, result.lane))
        site = self._sites.get(result.camera, "")
        analyser = Analyser(self._rules.of(result), site, self._make_tracker, reported)
        for past in self._past.pop(key, ()):
            _step_again(analyser, decode(Result, past))
        return analyser


def _step_again(analyser: Analyser, past: Result) -> None:
    """Feed a result of the past: its events are out, and if it cannot be followed it has been parked."""
    try:
        analyser.step(past)
    except MemoryError:
        raise
    except Exception:
        return


def _key(result: Result) -> Key:
    return result.camera, result.lane, result.pipeline
