"""Tests of the join of a camera with a sensor, against constructed truth and against computations over all
signals."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract.records import Change, Event, JoinCandidate, JoinSignal
from stream.analyse.rules.security.unattended import UnattendedRule
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.events import make_event
from stream.join.joiner import MAX_LANES, ConditionTimeline, Joiner
from stream.join.rule import JoinRule
from stream.rules import Happening
from stream.sense.windows import Column

SECOND_NS = 10**9
COMMON: dict[str, Any] = {"name": "r", "camera": "c", "pipeline": "p", "sensor": "s", "above": 0.5}
LINE: dict[str, Any] = {**COMMON, "start": (0.1, 0.5), "end": (0.9, 0.5)}
DOOR = UnattendedRule(**COMMON, for_s=5.0)
RED = RedLightRule(**LINE, grace_s=0.0)


def sensor(rule: JoinRule, times_s: list[float], values: list[float], seq: int = 0, epoch: int = 1) -> JoinSignal:
    return rule.sensor_signal(epoch, seq, Column([round(at_s * SECOND_NS) for at_s in times_s], values))


def camera(
    rule: JoinRule, at_s: float, since_s: float | None = None, *, track: str = "", lane: str = "live", epoch: int = 1
) -> JoinSignal:
    """Return the signal of the frame at a time. Its number is the time in tenths of seconds."""
    at_ns, seq = round(at_s * SECOND_NS), round(at_s * 10)
    event = make_event(
        rule, Happening(summary="car crossed"), "c", (lane, track or seq), at_ns, site="", camera="c", lane=lane,
        track=track, epoch=epoch, seq=seq,
    )  # fmt: skip
    found = () if since_s is None else (JoinCandidate(since_ns=round(since_s * SECOND_NS), event=event),)
    return JoinSignal(rule=rule.name, camera="c", lane=lane, epoch=epoch, seq=seq, at_ns=at_ns, candidates=found)


def joined(rule: JoinRule, signals: list[JoinSignal]) -> list[float]:
    """Return the capture times in s of the events."""
    joiner = Joiner(rule)
    return [event.data.captured_ns / SECOND_NS for signal in signals for event in joiner.step(signal)]


def empty(begin: int, end: int, **fields: Any) -> list[JoinSignal]:
    """Return the signals of a zone that is empty from ``begin`` to ``end``, in seconds."""
    return [camera(DOOR, at_s, begin, **fields) for at_s in range(begin, end)]


def door(*states: tuple[int, float], until: int) -> list[JoinSignal]:
    """Return one signal per second of a door whose state changes at given times."""
    values = dict(states)
    found, value = [], 0.0
    for at_s in range(until):
        value = values.get(at_s, value)
        found.append(sensor(DOOR, [at_s], [value], at_s))
    return found


def merged(*streams: list[JoinSignal]) -> list[JoinSignal]:
    return sorted((one for stream in streams for one in stream), key=lambda one: one.at_ns)


def test_an_open_door_with_nobody_in_view_is_reported_once_after_the_configured_duration() -> None:
    assert joined(DOOR, merged(door((20, 1.0), (40, 0.0), until=60), empty(0, 60))) == [25]


def test_the_duration_of_an_unattended_door_restarts_when_a_person_appears_or_the_door_closes() -> None:
    visits = [*empty(0, 23), *[camera(DOOR, at_s) for at_s in range(23, 26)], *empty(26, 60)]
    assert joined(DOOR, merged(door((20, 1.0), until=60), visits)) == [31]
    assert joined(DOOR, merged(door((20, 1.0), (23, 0.0), (24, 1.0), until=60), empty(0, 60))) == [29]
    assert joined(DOOR, merged(door((20, 1.0), (30, 0.0), (40, 1.0), until=60), empty(0, 60))) == [25, 45]


def test_an_event_names_both_sources_and_says_how_long_both_conditions_have_held() -> None:
    joiner = Joiner(DOOR)
    found = [event for one in merged(door((20, 1.0), until=30), empty(0, 30)) for event in joiner.step(one)]
    data = found[0].data
    assert (found[0].type, data.camera, data.sensor, data.seq) == ("sightline.zone.unattended", "c", "s", 250)
    assert data.summary == "car crossed while s is above 0.5, for 5.0 s"
    assert data.details == {"held_s": 5.0}


def test_only_crossings_while_the_signal_is_red_are_reported() -> None:
    """The second crossing is seen at 16.0 s, but the vehicle passed the line at 14.9 s, when the signal was green."""
    rule = RedLightRule(**LINE, grace_s=1.0)
    light = [sensor(rule, [at_s], [float(15 <= at_s < 30)], at_s) for at_s in range(60)]
    crossings = [(14.0, 13.5), (16.0, 14.9), (15.9, 15.5), (20.0, 19.6), (29.4, 29.2), (31.0, 30.2)]
    cars = [camera(rule, at_s, passed_s, track=f"t{n}") for n, (at_s, passed_s) in enumerate(crossings)]
    found = joined(rule, merged(light, cars))
    assert found == [20.0, 29.4]


def test_each_track_has_its_own_cooldown_which_begins_with_an_event() -> None:
    rule = RedLightRule(**LINE, grace_s=0.0, cooldown_s=10.0)
    light = [sensor(rule, [at_s], [float(at_s >= 5)], at_s) for at_s in range(60)]
    cars = [
        camera(rule, at_s, at_s, track=track) for at_s, track in ((4, "a"), (6, "a"), (9, "a"), (10, "b"), (17, "a"))
    ]
    assert joined(rule, merged(light, cars)) == [6, 10, 17]


def silent(rule: JoinRule, at_s: float) -> JoinSignal:
    return rule.silent_signal(1, 0, round(at_s * SECOND_NS))


def test_a_candidate_event_waits_until_a_sensor_reading_covers_its_time_or_the_sensor_is_silent() -> None:
    early = [sensor(RED, [0.0], [1.0])]
    assert joined(RED, [*early, camera(RED, 10.0, 10.0), camera(RED, 90.0)]) == []
    assert joined(RED, [*early, camera(RED, 10.0, 10.0), silent(RED, 9.9)]) == []
    assert joined(RED, [*early, camera(RED, 10.0, 10.0), silent(RED, 10.0)]) == [10.0]
    assert joined(RED, [*early, camera(RED, 10.0, 10.0), sensor(RED, [9.0, 11.0], [1.0, 0.0], 1)]) == [10.0]
    assert joined(RED, [*early, camera(RED, 10.0, 10.0), sensor(RED, [9.0, 11.0], [0.0, 1.0], 1)]) == []


def test_a_sensor_reading_is_valid_for_at_most_the_setting_valid_s() -> None:
    rule = RedLightRule(**LINE, grace_s=0.0, valid_s=60.0)
    later = [sensor(rule, [0.0], [1.0]), camera(rule, 59.0, 59.0, track="a"), camera(rule, 61.0, 61.0, track="b")]
    assert joined(rule, [*later, silent(rule, 90.0)]) == [59.0]
    gap = [sensor(rule, [0.0], [1.0]), sensor(rule, [100.0], [1.0], 1)]
    assert joined(rule, [*gap, camera(rule, 59.0, 59.0, track="a"), camera(rule, 61.0, 61.0, track="b")]) == [59.0]


def test_late_frames_are_joined_with_the_readings_of_their_own_time() -> None:
    """The backlog of an outage comes after live frames, and before the backlog of the sensor."""
    live = [sensor(RED, [0.0], [0.0]), camera(RED, 100.0), silent(RED, 100.0)]
    late = [camera(RED, 50.0, 50.0, lane="late"), camera(RED, 80.0, lane="late")]
    backlog = [sensor(RED, [40.0, 60.0, 99.0], [1.0, 0.0, 0.0], 3)]
    assert joined(RED, [*live, *late, *backlog]) == [50.0]


def test_signals_that_a_restarted_stage_writes_again_change_nothing() -> None:
    signals = merged(door((20, 1.0), (40, 0.0), (45, 1.0), until=60), empty(0, 60))
    again = [
        one for n in range(0, len(signals), 30) for one in [*signals[n : n + 30], *signals[max(0, n - 5) : n + 30]]
    ]
    assert joined(DOOR, again) == joined(DOOR, signals) == [25, 50]


def test_an_analyser_restart_during_a_join_condition_does_not_report_the_condition_again() -> None:
    visible = [*empty(0, 30), *[camera(DOOR, at_s, 28) for at_s in range(30, 60)]]
    assert joined(DOOR, merged(door((20, 1.0), until=60), visible)) == [25]


@settings(max_examples=50)
@given(
    changes=st.lists(st.tuples(st.integers(0, 80), st.booleans()), max_size=12),
    visits=st.lists(st.tuples(st.integers(0, 80), st.integers(1, 6)), max_size=5),
    seed=st.integers(0, 99),
)
def test_events_of_a_join_do_not_depend_on_the_order_of_camera_and_sensor_in_the_log(
    changes: list[tuple[int, bool]], visits: list[tuple[int, int]], seed: int
) -> None:
    """Each source is in order. A loop over seconds, which looks at both at once, is the reference."""
    chance = random.Random(seed)
    seen = {second for begin, length in visits for second in range(begin, begin + length)}
    readings = door(*[(at, float(is_open)) for at, is_open in sorted(changes)], until=100)
    frames, since = list[JoinSignal](), 0
    for second in range(100):
        since = second + 1 if second in seen else since
        frames.append(camera(DOOR, second, None if second in seen else since))
    states = [one.changes[0].holds for one in readings]
    expected, both, reported = [], 0, False
    for second in range(95):
        if second in seen or not states[second]:
            both, reported = second + 1, False
        elif second - both >= 5 and not reported:
            reported = True
            expected.append(float(second))
    late, timely = (frames, readings) if seed % 2 else (readings, frames)
    delayed = [(one.at_ns + chance.uniform(0, 30) * SECOND_NS, one) for one in late]
    order = sorted([*((one.at_ns, one) for one in timely), *_in_order(delayed)], key=lambda pair: pair[0])
    found = [at_s for at_s in joined(DOOR, [one for _, one in order]) if at_s < 95]
    assert found == expected


def _in_order(found: list[tuple[float, JoinSignal]]) -> list[tuple[float, JoinSignal]]:
    latest, ordered = 0.0, []
    for at_ns, one in found:
        latest = max(latest, at_ns)
        ordered.append((latest, one))
    return ordered


@given(rows=st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=40))
def test_the_condition_timeline_finds_the_same_start_of_a_condition_as_a_search_in_all_readings(
    rows: list[tuple[int, bool]],
) -> None:
    valid = 20
    timeline, readings = ConditionTimeline(valid), dict(sorted(rows))
    for at_s, holds in readings.items():
        timeline.add((Change(at_s * SECOND_NS, holds),), at_s * SECOND_NS)
    times = list(readings)
    for at_s in range(0, 540, 3):
        before = [one for one in times if one <= at_s]
        expected = None
        if before and at_s - before[-1] <= valid and readings[before[-1]]:
            run = [before[-1]]
            for earlier in reversed(before[:-1]):
                if not readings[earlier] or run[-1] - earlier > valid:
                    break
                run.append(earlier)
            expected = run[-1] * SECOND_NS
        if not before or at_s - before[-1] != valid:  # at this very moment, the state depends on the next reading
            assert timeline.since_ns(at_s * SECOND_NS) == expected


def test_readings_after_a_clock_was_set_back_replace_those_of_the_same_time() -> None:
    timeline = ConditionTimeline(300.0)
    timeline.add((Change(0, False), Change(50 * SECOND_NS, True)), 100 * SECOND_NS)
    timeline.add((Change(40 * SECOND_NS, False),), 60 * SECOND_NS)
    assert timeline.through_ns == 60 * SECOND_NS
    assert timeline.since_ns(70 * SECOND_NS) is None


def test_a_rule_without_a_condition_of_its_sensor_is_refused() -> None:
    with pytest.raises(ValueError, match="a condition of the sensor in above, in below, or in both"):
        UnattendedRule(**{**COMMON, "above": None})


def test_a_cooldown_longer_than_half_of_the_history_is_refused() -> None:
    """After a restart, the join reads back 30 minutes. It would not know that a longer cooldown still runs."""
    assert RedLightRule(**LINE, cooldown_s=900.0).cooldown_s == 900.0
    with pytest.raises(ValueError, match="a cooldown_s of at most 900"):
        RedLightRule(**LINE, cooldown_s=901.0)


def test_lanes_of_replays_are_forgotten_above_their_maximum_but_live_and_late_lanes_are_kept() -> None:
    joiner = Joiner(RED)
    joiner.step(sensor(RED, [30.0, 50.0], [1.0, 1.0]))
    found = [camera(RED, 40.0, 40.0, track=lane, lane=lane) for lane in ("live", "late")]
    replayed = [camera(RED, 40.0, lane=f"replay-{n}") for n in range(2 * MAX_LANES)]
    first = camera(RED, 40.0, 40.0, lane="replay-first")
    assert [event.data.lane for event in events_of(joiner, [*found, first, first])] == [
        "live",
        "late",
        "replay-first",
    ]
    assert [event.data.lane for event in events_of(joiner, [*replayed, *found, first])] == ["replay-first"]


def events_of(joiner: Joiner, signals: list[JoinSignal], past: set[str] | None = None) -> list[Event]:
    return [event for one in signals for event in joiner.step(one, past)]


def test_a_new_owner_that_reads_the_earlier_signals_again_emits_the_same_events() -> None:
    rule = UnattendedRule(**COMMON, for_s=5.0, cooldown_s=30.0)
    states = [(at_s, float(at_s // 9 % 2)) for at_s in range(0, 200, 9)]
    signals = merged(door(*states, until=200), empty(0, 200))
    whole = events_of(Joiner(rule), signals)
    assert len(whole) > 3
    for cut in range(0, len(signals), 23):
        first = events_of(Joiner(rule), signals[:cut])
        second = Joiner(rule)
        events_of(second, signals[:cut], {event.id for event in first})
        assert [*first, *events_of(second, signals[cut:])] == whole
