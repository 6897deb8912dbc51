"""Tests of the trial of a draft on stored results, on the log in memory."""

from __future__ import annotations

from pathlib import Path

from console.editor.request import TrialRequest
from console.editor.trial import try_draft
from ingest.contract.topics import RESULTS
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from stream.analyse.rules.line import LineRule
from tests.stream.explain import history
from tests.stream.explain.history import BEGIN_NS, CAMERA, FPS, LINE, config

BEGIN_MS = BEGIN_NS // 10**6
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64)


async def driven() -> MemoryLog:
    """Return a log in which each result is written at its capture time, with its emitted events."""
    clock = ManualClock(started_ns=BEGIN_NS)
    log = MemoryLog(partitions=1, clock=clock)
    for seq in range(30):
        clock.seconds = seq / FPS
        await history.write_drive(log, seq, seq)
    await history.analyse(log, config())
    return log


def request(folder: Path, *rules: LineRule, since_ms: int = BEGIN_MS) -> TrialRequest:
    made = TrialRequest(
        camera=CAMERA,
        pipelines=(PIPELINE,),
        measures=(),
        rules=rules,
        since_ms=since_ms,
        until_ms=since_ms + 60_000,
        folder=folder,
    )
    return TrialRequest.model_validate_json(made.model_dump_json())  # as the process of a trial reads it


async def test_a_trial_counts_events_that_the_draft_adds_and_draws_their_pictures(tmp_path: Path) -> None:
    drawn = LINE.model_copy(update={"name": "drawn"})
    seen: list[tuple[int, int]] = []
    log = await driven()
    report = await try_draft(log, request(tmp_path, LINE, drawn), lambda *each: seen.append(each))
    rules = {one.rule: one for one in report.rules}
    assert (rules["line"].equal, rules["line"].gained, rules["drawn"].gained) == (1, 0, 1)
    assert rules["left"].lost == 1
    (event,) = rules["drawn"].gained_events
    assert event.picture is not None
    assert (tmp_path / f"{event.picture}.jpg").read_bytes().startswith(b"\xff\xd8")
    results = (await log.ends(RESULTS))[0]
    assert report.results == results
    assert seen[-1] == (results, results)


async def test_a_trial_lists_rules_without_events_and_warns_of_rules_that_cannot_fire(tmp_path: Path) -> None:
    low = LINE.model_copy(update={"name": "low", "min_score": 0.1})
    report = await try_draft(await driven(), request(tmp_path, low, since_ms=BEGIN_MS + 3_600_000))
    assert [(one.rule, one.gained) for one in report.rules] == [("low", 0)]
    assert any(warning.startswith("rule low cannot fire as intended: min_score") for warning in report.warnings)
