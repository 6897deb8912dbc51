"""Camera rules by camera and pipeline, and the past results that they need. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from stream.analyse.rule import CameraRule
from stream.readback import HistoryPoint


class RuleSet:
    """The camera rules of a site."""

    def __init__(self, rules: Iterable[CameraRule]) -> None:
        found: defaultdict[tuple[str, str], list[CameraRule]] = defaultdict(list)
        for rule in rules:
            found[rule.camera, rule.pipeline].append(rule)
        self._rules = {key: tuple(rules) for key, rules in found.items()}
        self._tail_s = {key: max(rule.tail_s for rule in rules) for key, rules in found.items()}

    @property
    def longest_s(self) -> float:
        """Longest past that a rule needs, in seconds; 0 without rules."""
        return max(self._tail_s.values(), default=0.0)

    def of(self, result: Result) -> tuple[CameraRule, ...]:
        """Return the rules for a result's camera and pipeline."""
        return self._rules.get((result.camera, result.pipeline), ())

    def place(self, record: LogRecord) -> HistoryPoint | None:
        """Return the place of a result in its camera's past; None if it is unreadable or has no rules."""
        try:
            result = decode(Result, record.value)
        except CodecError:
            return None
        wanted_s = self._tail_s.get((result.camera, result.pipeline))
        if wanted_s is None:
            return None
        key = f"{result.camera}/{result.lane}/{result.pipeline}"
        return HistoryPoint(key, result.epoch, result.captured_ns, wanted_s)
