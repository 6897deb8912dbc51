"""Tests of the gate: each frame gets one decision, in frame order, to send it or to withhold it for a reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.gate import gate as gate_module
from edge_agent.gate.decision import GateDecision, NumberedFrame
from edge_agent.gate.gate import Gate, Rate, sampled
from ingest.site import GateConfig

FRAME_NS = 100_000_000
QUIET = GateConfig(keep_alive_s=0.0, pre_roll_s=0.0, sample=0.0, open_fps=0.0)


def picture(index: int, *, moving: bool) -> np.ndarray:
    image = np.full((45, 80, 3), 90, np.uint8)
    if moving:
        left = index * 7 % 60
        image[10:25, left : left + 15] = 220
    return image


def play(gate: Gate, moving: Sequence[bool], start: int = 0, step_ns: int = FRAME_NS) -> list[GateDecision]:
    """Pass a sequence of frames to the gate, as the capture process does, and return the decisions."""
    decisions: list[GateDecision] = []
    for index, moves in enumerate(moving, start):
        frame = NumberedFrame(index, index * step_ns, image=picture(index, moving=moves))
        reason = gate.precheck(frame.captured_ns)
        decisions += gate.withhold(frame, reason) if reason else gate.decide(frame)
    return decisions


def kept(decisions: Sequence[GateDecision]) -> list[int]:
    return [decision.frame.seq for decision in decisions if decision.keep]


def reasons(decisions: Sequence[GateDecision]) -> set[str]:
    return {decision.reason for decision in decisions if not decision.keep}


def test_the_gate_sends_only_the_first_frame_and_keep_alives_of_a_still_scene() -> None:
    decisions = play(Gate(QUIET.model_copy(update={"keep_alive_s": 1.0}), "a", 1), [False] * 31)
    assert kept(decisions) == [0, 10, 20, 30]
    assert reasons(decisions) == {"still"}
    assert [decision.motion for decision in decisions if decision.keep] == [()] * 4


def test_the_gate_sends_one_frame_of_a_still_scene_whenever_the_view_state_changes() -> None:
    gate, decisions = Gate(QUIET, "a", 1), list[GateDecision]()
    for index in range(20):
        view = "tampered" if 5 <= index < 12 else ""
        decisions += gate.decide(
            NumberedFrame(index, index * FRAME_NS, image=picture(index, moving=False), view=view)
        )
    assert [(one.frame.seq, one.frame.view) for one in decisions if one.keep] == [(0, ""), (5, "tampered"), (12, "")]


def test_after_motion_ends_the_gate_stays_open_for_the_configured_hold_time() -> None:
    decisions = play(Gate(QUIET.model_copy(update={"hold_s": 0.5}), "a", 1), [False] * 10 + [True] + [False] * 9)
    assert kept(decisions) == [0, 10, 11, 12, 13, 14, 15]
    assert [bool(decision.motion) for decision in decisions if decision.keep] == [False, True, *[False] * 5]


def test_pre_roll_frames_are_sent_before_the_first_frame_with_motion() -> None:
    config = QUIET.model_copy(update={"pre_roll_s": 0.35, "hold_s": 0.0})
    decisions = play(Gate(config, "a", 1), [False] * 10 + [True] + [False] * 3)
    assert [decision.frame.seq for decision in decisions] == list(range(11))
    assert kept(decisions) == [0, 7, 8, 9, 10]
    assert all(decision.frame.image is not None for decision in decisions if decision.keep)


def test_buffered_frames_are_withheld_as_still_if_no_motion_follows() -> None:
    gate = Gate(QUIET.model_copy(update={"pre_roll_s": 0.35}), "a", 1)
    decisions = play(gate, [False] * 10)
    assert [decision.frame.seq for decision in decisions] == list(range(6))
    left = gate.close()
    assert [(decision.frame.seq, decision.reason) for decision in left] == [(seq, "still") for seq in range(6, 10)]


def test_an_open_gate_sends_its_first_frame_at_once_and_later_frames_at_open_fps() -> None:
    config = QUIET.model_copy(update={"open_fps": 2.0, "hold_s": 5.0, "min_change": 1.0})
    decisions = play(Gate(config, "a", 1), [False] * 10 + [True] + [False] * 15)
    assert kept(decisions) == [0, 10, 11, 16, 21]  # the object leaves at frame 11, and a departure is new motion
    assert reasons(decisions[11:]) == {"rate"}


def test_the_gate_sends_a_frame_at_once_for_a_moving_but_not_for_a_trembling_object() -> None:
    gate = Gate(QUIET.model_copy(update={"open_fps": 1.0}), "a", 1)
    decisions = play(gate, [False] * 8)
    lefts = [10, 12, 11, 12, 22, 23, 45, 46]
    for index, left in enumerate(lefts, 8):
        image = picture(index, moving=False)
        image[10:25, left : left + 15] = 220
        decisions += gate.decide(NumberedFrame(index, index * FRAME_NS, image=image))
    assert kept(decisions) == [0, 8, 12, 14]


def test_frames_over_the_rate_limit_are_withheld_if_motion_detection_is_disabled() -> None:
    gate = Gate(QUIET.model_copy(update={"max_fps": 2.0, "motion": False}), "a", 1)
    decisions = play(gate, [False] * 40)
    assert kept(decisions) == list(range(0, 40, 5))
    assert reasons(decisions) == {"rate"}
    assert all(decision.motion is None for decision in decisions)


def test_a_frame_with_motion_only_behind_a_mask_is_withheld_as_masked() -> None:
    everything = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    decisions = play(Gate(QUIET.model_copy(update={"masks": (everything,)}), "a", 1), [False] * 8 + [True] * 4)
    assert kept(decisions) == [0]
    assert [decision.reason for decision in decisions[1:]] == ["still"] * 7 + ["masked"] * 4


def test_the_gate_sends_a_hash_based_random_sample_of_frames_and_marks_them_as_sampled() -> None:
    gate = Gate(QUIET.model_copy(update={"sample": 0.1, "pre_roll_s": 0.3}), "gate-7", 3)
    decisions = play(gate, [False] * 200) + gate.close()
    chosen = [seq for seq in range(1, 200) if sampled("gate-7", 3, seq, 0.1)]
    assert kept(decisions) == [0, *chosen]
    assert [decision.frame.seq for decision in decisions if decision.sampled] == chosen
    assert [decision.frame.seq for decision in decisions] == list(range(200))


def test_the_random_sample_does_not_change_decisions_on_other_frames() -> None:
    config = QUIET.model_copy(update={"keep_alive_s": 1.0, "pre_roll_s": 0.3})
    moving = [index % 70 > 66 for index in range(400)]
    plain = play(Gate(config, "a", 1), moving)
    decisions = play(Gate(config.model_copy(update={"sample": 0.3}), "a", 1), moving)
    assert sum(decision.sampled for decision in decisions) > 50
    assert [decision.frame.seq for decision in decisions if decision.keep and not decision.sampled] == kept(plain)


def test_the_gate_accepts_pictures_of_one_pixel() -> None:
    """A failing camera may send single pixels that are black or white."""
    gate, decisions = Gate(QUIET, "a", 1), list[GateDecision]()
    for index in range(20):
        image = np.full((1, 1 + index // 10, 3), 255 * (index % 2), np.uint8)
        decisions += gate.decide(NumberedFrame(index, index * FRAME_NS, image=image))
    assert [decision.frame.seq for decision in decisions] == list(range(20))


def test_a_sampled_frame_that_is_sent_as_pre_roll_is_not_marked_as_sampled() -> None:
    gate = Gate(QUIET.model_copy(update={"sample": 1.0, "pre_roll_s": 1.0, "hold_s": 0.0}), "a", 1)
    decisions = play(gate, [False] * 6 + [True])
    assert kept(decisions) == list(range(7))
    assert not any(decision.sampled for decision in decisions)


def test_frames_over_the_rate_limit_are_not_sampled() -> None:
    gate = Gate(QUIET.model_copy(update={"sample": 1.0, "max_fps": 5.0}), "a", 1)
    decisions = play(gate, [False] * 20)
    assert kept(decisions) == list(range(0, 20, 2))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_random_sample_has_the_configured_share_of_frames(share: float) -> None:
    count = sum(sampled("gate", 1_700_000_000, seq, share) for seq in range(20_000))
    assert abs(count / 20_000 - share) < 4 * math.sqrt(max(share * (1 - share), 1e-12) / 20_000)


def test_no_frame_is_sent_outside_armed_hours_and_the_first_armed_frame_is_sent() -> None:
    config = GateConfig.model_validate(
        {
            "keep_alive_s": 0.0,
            "sample": 1.0,
            "open_fps": 0.0,
            "armed": [{"start": "00:00:02", "end": "00:00:03"}],
            "time_zone": "UTC",
        }
    )
    gate = Gate(config, "a", 1)
    decisions = play(gate, [True] * 40) + gate.close()
    assert kept(decisions) == list(range(20, 30))
    assert [decision.reason for decision in decisions if not decision.keep] == ["schedule"] * 30


def test_a_rate_limit_starts_anew_after_the_clock_was_set_back() -> None:
    rate = Rate(5.0)
    rate.take(3600 * 10**9)
    assert not rate.due(3600 * 10**9 + 1)
    assert rate.due(0)
    rate.take(0)
    assert not rate.due(1)
    assert rate.due(200_000_000)


def passed(rate: Rate, at_ms: Iterable[float]) -> int:
    count = 0
    for at in at_ms:
        if rate.due(round(at * 1e6)):
            rate.take(round(at * 1e6))
            count += 1
    return count


@given(late_ms=st.lists(st.floats(0.0, 30.0), min_size=50, max_size=200))
def test_a_rate_limit_drops_no_frame_of_a_slower_camera_with_irregular_frame_times(
    late_ms: list[float],
) -> None:
    assert passed(Rate(12.5), (100.0 * n + late for n, late in enumerate(late_ms))) == len(late_ms)


@given(fps=st.floats(1.0, 60.0), limit=st.floats(0.5, 30.0))
def test_the_average_rate_of_sent_frames_stays_at_the_rate_limit(fps: float, limit: float) -> None:
    most = 60.0 * min(fps, limit)
    assert 0.49 * most - 2 <= passed(Rate(limit), (1000.0 * n / fps for n in range(round(60 * fps)))) <= most + 2


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["still", "moving", "unusable"]), st.sampled_from([-5.0, 0.0, 0.04, 0.1, 0.1, 2.0])
        ),
        max_size=60,
    ),
    pre_roll_s=st.sampled_from([0.0, 0.3, 3.0]),
    max_fps=st.sampled_from([0.0, 8.0]),
    open_fps=st.sampled_from([0.0, 3.0]),
    sample=st.sampled_from([0.0, 0.3]),
)
def test_each_frame_gets_one_gate_decision_in_frame_order_and_the_pre_roll_buffer_stays_small(
    steps: list[tuple[str, float]], pre_roll_s: float, max_fps: float, open_fps: float, sample: float
) -> None:
    config = GateConfig(
        pre_roll_s=pre_roll_s, max_fps=max_fps, open_fps=open_fps, sample=sample, keep_alive_s=1.0, hold_s=0.2
    )
    gate, now_ns, decisions = Gate(config, "a", 1), 10**10, []
    for seq, (kind, step_s) in enumerate(steps):
        now_ns += round(step_s * 1e9)
        frame = NumberedFrame(seq, now_ns, image=picture(seq, moving=kind == "moving"))
        reason = gate.precheck(now_ns) or ("unusable" if kind == "unusable" else "")
        decisions += gate.withhold(frame, reason) if reason else gate.decide(frame)
        assert seq + 1 - len(decisions) <= max(gate_module.MAX_PICTURES * 10, 1)
    decisions += gate.close()
    assert [decision.frame.seq for decision in decisions] == list(range(len(steps)))
    assert all((decision.frame.image is not None) == decision.keep for decision in decisions)


def test_the_pre_roll_buffer_is_bounded_in_pictures_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QUIET.model_copy(update={"pre_roll_s": 3.0})
    gate = Gate(config, "a", 1)
    assert len(play(gate, [False] * 20)) == 20 - gate_module.MAX_PICTURES
    monkeypatch.setattr(gate_module, "MAX_BYTES", 4 * 45 * 80 * 3)
    assert len(play(Gate(config, "a", 1), [False] * 20)) == 20 - 4
