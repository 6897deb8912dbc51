"""The trial of a draft on stored results, in a process of its own: it uses one core for up to minutes.

The process reads a TrialRequest as JSON from its standard input, and prints its progress and a DraftReport. The
process also writes the pictures of gained and lost events into a folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from console.child import compute
from console.editor.request import DraftReport, TrialRequest, TriedEvent, TriedRule
from ingest.contract.records import Event
from ingest.kafka.log import Log
from ingest.site import Site
from ingest.site.file import UNNAMED
from stream.analyse.analysers import RuleSet
from stream.analyse.rule import CameraRule
from stream.explain.comparison import RuleDifference
from stream.explain.trial import try_rules
from stream.rules import parse_rule

MAX_PICTURES = 40
"""Maximum number of pictures of events that one trial writes."""
MAX_EVENTS = 20
"""Maximum number of gained and of lost events of one rule that a report lists."""


async def try_draft(
    log: Log, request: TrialRequest, on_progress: Callable[[int, int], None] = lambda *_: None
) -> DraftReport:
    """Run the rules of a draft over stored results. Raise LogUnavailable or TooManyEvents."""
    from stream.silent import silent_rules  # imports OpenCV, which takes 35 MB

    rules = [parse_rule(rule.model_dump(), "draft", rule.key) for rule in request.rules]
    camera_rules = [rule for rule in rules if isinstance(rule, CameraRule)]
    used = RuleSet(camera_rules, (request.camera,), request.measures, request.pipelines)
    found = await try_rules(log, used, {request.camera.name}, request.since_ms, request.until_ms, on_progress)
    for rule in rules:
        found.rules[rule.name]  # a rule without events is listed too
    pictures = _Pictures(log, request.folder)
    name = request.camera.site or UNNAMED
    site = Site(name=name, cameras=(request.camera,), pipelines=request.pipelines, rules=tuple(rules))
    return DraftReport(
        results=found.results,
        failed=found.failed,
        rules=[await _tried(name, one, pictures) for name, one in sorted(found.rules.items())],
        warnings=[f"rule {one.rule} cannot fire as intended: {one.key}: {one.reason}" for one in silent_rules(site)],
    )


async def _tried(name: str, one: RuleDifference, pictures: _Pictures) -> TriedRule:
    return TriedRule(
        rule=name,
        equal=one.equal,
        moved=one.moved,
        gained=one.gained,
        lost=one.lost,
        gained_events=[await pictures.described(event) for event in one.gained_events[:MAX_EVENTS]],
        lost_events=[await pictures.described(event) for event in one.lost_events[:MAX_EVENTS]],
    )


class _Pictures:
    """Writes the pictures of events, numbered from 0, up to ``MAX_PICTURES``."""

    def __init__(self, log: Log, folder: Path) -> None:
        self._log, self._folder = log, folder
        self._count = 0

    async def described(self, event: Event) -> TriedEvent:
        """Return a gained or lost event for the report, and write the event's picture if there is one."""
        from stream.explain.picture import event_picture

        jpeg = await event_picture(self._log, event) if self._count < MAX_PICTURES else None
        number = None
        if jpeg is not None:
            number, self._count = self._count, self._count + 1
            (self._folder / f"{number}.jpg").write_bytes(jpeg)
        return TriedEvent(id=event.id, time=event.time, summary=event.data.summary, picture=number)


def main() -> None:
    """Run one trial."""
    request = TrialRequest.model_validate_json(sys.stdin.read())

    async def tried(log: Log, on_progress: Callable[[int, int], None]) -> dict[str, object]:
        return (await try_draft(log, request, on_progress)).model_dump()

    compute("console-trial", tried)


if __name__ == "__main__":
    main()
