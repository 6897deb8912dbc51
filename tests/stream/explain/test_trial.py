"""Tests of rules on stored results: events gained, lost and equal, on the log in memory."""

from __future__ import annotations

import gc
from pathlib import Path

import cv2
import pytest

from deploy.cli.common import unix_ms_of, unix_ns_of
from deploy.cli.tools.rules import _write_pictures
from ingest.contract import headers as h
from ingest.contract.codec import encode, encode_json
from ingest.contract.identity import LIVE, FrameId
from ingest.contract.records import Event, JoinSignal
from ingest.contract.topics import EVENTS, FRAMES, RESULTS, TOPICS
from ingest.exceptions import ConfigError
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.analyse.analysers import RuleSet
from stream.analyse.rule import CameraRule
from stream.analyse.rules.security.unattended import UnattendedRule
from stream.analyse.rules.zone import ZoneRule
from stream.exceptions import TooManyEvents
from stream.explain import comparison
from stream.explain.trial import TrialReport, try_rules
from tests.stream.explain import history
from tests.stream.explain.history import BEGIN_NS, CAMERA, CROSSING, EPOCH, FPS, LINE, MEASURE, ZONE, config

BEGIN_MS = BEGIN_NS // 10**6
RIGHT = ZoneRule(name="right", camera="road", pipeline="p", polygon=((0.7, 0.0), (1.0, 0.0), (1.0, 1.0), (0.7, 1.0)))


async def driven() -> tuple[MemoryLog, list[Event]]:
    """Return a log in which each result is written at its capture time, and its emitted events."""
    clock = ManualClock(started_ns=BEGIN_NS)
    log = MemoryLog(partitions=1, clock=clock)
    for seq in range(30):
        clock.seconds = seq / FPS
        await history.write_drive(log, seq, seq)
    return log, await history.analyse(log, config())


async def tried(log: MemoryLog, *rules: CameraRule, first: int = 0, stop: int = 100) -> TrialReport:
    """Run rules over the results of the frames from ``first`` up to but not including ``stop``."""
    since_ms, until_ms = (BEGIN_MS + seq * 1000 // FPS for seq in (first, stop))
    return await try_rules(log, RuleSet(rules, [CAMERA]), {"road"}, since_ms, until_ms)


def counts(report: TrialReport) -> dict[str, tuple[int, int, int]]:
    return {name: (one.equal, one.gained, one.lost) for name, one in report.rules.items()}


def pictures_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.jpg"))


async def test_a_trial_of_unchanged_rules_finds_only_equal_events() -> None:
    log, events = await driven()
    assert {one.data.rule for one in events} == {"line", "left"}
    assert counts(await tried(log, LINE, ZONE)) == {"line": (1, 0, 0), "left": (1, 0, 0)}


async def test_a_trial_reports_lost_events_of_a_stricter_rule_and_gained_events_of_a_new_rule() -> None:
    log, events = await driven()
    report = await tried(log, LINE.model_copy(update={"min_score": 0.95}), ZONE, RIGHT)
    assert counts(report) == {"line": (0, 0, 1), "left": (1, 0, 0), "right": (0, 1, 0)}
    assert report.rules["line"].lost_events == [one for one in events if one.data.rule == "line"]
    assert [one.data.rule for one in report.rules["right"].gained_events] == ["right"]


async def test_events_of_a_moved_line_keep_their_ids_and_count_as_moved() -> None:
    log, _ = await driven()
    report = await tried(log, LINE.model_copy(update={"start": (0.6, 1.0), "end": (0.6, 0.0)}), ZONE)
    line = report.rules["line"]
    assert (line.equal, line.moved, line.gained, line.lost) == (0, 1, 0, 0)


async def test_a_trial_reports_the_events_of_a_removed_rule_as_lost() -> None:
    log, _ = await driven()
    assert counts(await tried(log, ZONE)) == {"line": (0, 0, 1), "left": (1, 0, 0)}


async def test_a_trial_counts_only_events_of_its_period_and_replays_earlier_results_to_restore_rule_state() -> None:
    log, _ = await driven()
    assert counts(await tried(log, LINE, ZONE, first=CROSSING)) == {"line": (1, 0, 0)}
    assert counts(await tried(log, LINE, ZONE, first=CROSSING + 1)) == {}
    assert counts(await tried(log, LINE, ZONE, stop=CROSSING)) == {"left": (1, 0, 0)}
    report = await tried(log, LINE, ZONE, first=10, stop=15)
    assert report.results == 5


async def test_an_event_that_was_written_twice_counts_once() -> None:
    log, events = await driven()
    one = events[-1]
    frame = FrameId("road", EPOCH, one.data.seq)
    await log.produce(Outgoing(EVENTS, 0, encode_json(one), headers=h.frame_headers([frame], LIVE)))
    assert counts(await tried(log, LINE, ZONE)) == {"line": (1, 0, 0), "left": (1, 0, 0)}


async def test_a_trial_matches_equal_events_whose_tracks_have_different_names() -> None:
    log, events = await driven()
    log.create_again(TopicPartition(EVENTS, 0))
    for one in events:
        renamed = one.model_copy(update={"id": one.id[::-1], "data": one.data.model_copy(update={"track": "other"})})
        frame = FrameId("road", EPOCH, one.data.seq)
        await log.produce(Outgoing(EVENTS, 0, encode_json(renamed), headers=h.frame_headers([frame], LIVE)))
    assert counts(await tried(log, LINE, ZONE)) == {"line": (1, 0, 0), "left": (1, 0, 0)}


async def test_a_configured_measure_lowers_the_minimum_score_of_tracks_in_a_trial() -> None:
    clock = ManualClock(started_ns=BEGIN_NS)
    log = MemoryLog(partitions=1, clock=clock)
    for seq in range(30):  # the car is faint until it has crossed the line
        clock.seconds = seq / FPS
        result = history.result(seq, history.car(64.0 + 16.0 * seq, 0.2 if seq < 25 else 0.9))
        await log.produce(Outgoing(RESULTS, 0, encode(result), headers=h.frame_headers([result.id], LIVE)))
    assert len(await history.analyse(log, config(LINE, MEASURE))) == 1
    until_ms = BEGIN_MS + 60_000
    for measures, expected in (([MEASURE], (1, 0, 0)), ([], (0, 0, 1))):
        rules = RuleSet([LINE], [CAMERA], measures)
        assert counts(await try_rules(log, rules, {"road"}, BEGIN_MS, until_ms)) == {"line": expected}


async def test_a_trial_writes_nothing_to_the_log() -> None:
    log, _ = await driven()
    before = {topic: await log.ends(topic) for topic in TOPICS}
    await tried(log, RIGHT)
    assert {topic: await log.ends(topic) for topic in TOPICS} == before


async def test_a_trial_with_too_many_events_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = await driven()
    monkeypatch.setattr(comparison, "MAX_EVENTS", 1)
    with pytest.raises(TooManyEvents, match="more than 1 events"):
        await tried(log, LINE, ZONE)


async def test_the_progress_of_a_trial_ends_at_the_total_number_of_records() -> None:
    log, _ = await driven()
    seen: list[tuple[int, int]] = []
    await try_rules(log, RuleSet([LINE], [CAMERA]), {"road"}, 0, 2 * BEGIN_MS, lambda *each: seen.append(each))
    assert seen[-1] == (29, 29)


async def test_a_trial_keeps_no_signals_of_a_rule_that_joins_a_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = await driven()
    rule = UnattendedRule(name="door", camera="road", pipeline="p", sensor="s", above=0.5, labels=("boat",))
    monkeypatch.setattr("stream.explain.trial._REPORT_EVERY", 1)
    kept: list[int] = []

    def count(*_: int) -> None:
        kept.append(sum(isinstance(one, JoinSignal) for one in gc.get_objects()))

    gc.collect()  # so that no signals of other tests disappear during the trial
    await try_rules(log, RuleSet([rule], [CAMERA]), {"road"}, 0, 2 * BEGIN_MS, count)
    assert len(kept) == 30
    assert max(kept) == min(kept)


async def test_pictures_of_gained_and_lost_events_are_written_and_expired_pictures_are_counted(
    tmp_path: Path,
) -> None:
    log, _ = await driven()
    report = await tried(log, ZONE, RIGHT)
    assert await _write_pictures(log, report, tmp_path) == 0
    files = pictures_in(tmp_path)
    assert [file.split("-")[0] for file in files] == ["gained/right", "lost/line"]
    assert all(cv2.imread(str(tmp_path / file)) is not None for file in files)
    log.forget(TopicPartition(FRAMES, 0), 29)
    assert await _write_pictures(log, report, tmp_path) == 2


def test_a_time_without_an_offset_is_in_the_time_zone_of_the_site() -> None:
    utc = unix_ms_of("rules test", "2026-11-30T02:00:00Z", "Europe/Berlin", "--from")
    assert unix_ms_of("rules test", "2026-11-30T03:00", "Europe/Berlin", "--from") == utc
    assert unix_ms_of("rules test", "2026-11-30 03:00:00+01:00", "UTC", "--from") == utc
    with pytest.raises(ConfigError, match="--from"):
        unix_ms_of("rules test", "yesterday", "UTC", "--from")


def test_the_time_options_of_commands_are_exact_to_the_microsecond() -> None:
    assert unix_ns_of("evidence", "2026-11-30T02:00:00.123457", "UTC", "--from") == 1_796_004_000_123_457_000
    assert unix_ns_of("evidence", "1960-01-01", "UTC", "--from") == 0
    with pytest.raises(ConfigError, match="--from"):
        unix_ns_of("evidence", "tomorrow", "UTC", "--from")
