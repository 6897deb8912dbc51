"""Which rules look at a result, and how much of the past they need. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.site import LineRule, ZoneRule
from stream.readback import Place

TAIL_S = 120.0
"""How much of its past a rule without times of its own needs. A track lives as long as its object is in the picture:
a vehicle for seconds, somebody who waits for a minute or two."""
MARGIN_S = 60.0
"""Beside a rule's own times: what an object that is seen now and then needs to be followed again."""


class RuleSet:
    """The rules of a site by what they look at."""

    def __init__(self, rules: Iterable[LineRule | ZoneRule]) -> None:
        by_view: defaultdict[tuple[str, str], list[LineRule | ZoneRule]] = defaultdict(list)
        for rule in rules:
            by_view[rule.camera, rule.pipeline].append(rule)
        self._rules = {view: tuple(found) for view, found in by_view.items()}
        self._tail_s = {view: max(map(_tail_s, found)) for view, found in self._rules.items()}

    @property
    def longest_s(self) -> float:
        """The longest past that is needed, in seconds; 0 without rules."""
        return max(self._tail_s.values(), default=0.0)

    def of(self, result: Result) -> tuple[LineRule | ZoneRule, ...]:
        """Return the rules that look at a result's camera and pipeline."""
        return self._rules.get((result.camera, result.pipeline), ())

    def place(self, record: LogRecord) -> Place | None:
        """Return where a result stands in its camera's past, None when no rule looks at it or it cannot be read."""
        try:
            result = decode(Result, record.value)
        except CodecError:
            return None
        wanted_s = self._tail_s.get((result.camera, result.pipeline))
        if wanted_s is None:
            return None
        key = f"{result.camera}/{result.lane}/{result.pipeline}"
        return Place(key, result.epoch, result.captured_ns, wanted_s)


def _tail_s(rule: LineRule | ZoneRule) -> float:
    """Return the past that a rule needs.

    Twice its times, because an object that was there before the tail begins is taken for a new one: by half of it,
    that one has stayed as long as the rule asks for, and by the end of it, what it did then keeps it quiet no more.
    """
    dwell_s = rule.dwell_s if isinstance(rule, ZoneRule) else 0.0
    return max(TAIL_S, 2 * max(dwell_s, rule.cooldown_s) + MARGIN_S)
