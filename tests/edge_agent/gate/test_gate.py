"""What the gate keeps, what it withholds and why, and that each frame has one fate, in order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.gate import line
from edge_agent.gate.gate import Gate
from edge_agent.gate.rate import Rate
from edge_agent.gate.sample import sampled
from edge_agent.gate.shot import Fate, Shot
from ingest.site import GateConfig

FRAME_NS = 100_000_000
QUIET = GateConfig(keep_alive_s=0.0, pre_roll_s=0.0, sample=0.0, open_fps=0.0)


def picture(index: int, *, moving: bool) -> np.ndarray:
    image = np.full((45, 80, 3), 90, np.uint8)
    if moving:
        left = index * 7 % 60
        image[10:25, left : left + 15] = 220
    return image


def play(gate: Gate, moving: Sequence[bool], start: int = 0, step_ns: int = FRAME_NS) -> list[Fate]:
    """Give the gate one frame after the other, as the capture child does."""
    fates: list[Fate] = []
    for index, moves in enumerate(moving, start):
        shot = Shot(index, index * step_ns)
        reason = gate.glance(shot.captured_ns)
        image = picture(index, moving=moves)
        fates += gate.pass_by(shot, reason) if reason else gate.look(Shot(index, index * step_ns, image=image))
    return fates


def kept(fates: Sequence[Fate]) -> list[int]:
    return [fate.shot.seq for fate in fates if fate.keep]


def reasons(fates: Sequence[Fate]) -> set[str]:
    return {fate.reason for fate in fates if not fate.keep}


def test_the_first_frame_is_kept_and_a_still_scene_is_withheld_but_for_a_keep_alive() -> None:
    fates = play(Gate(QUIET.model_copy(update={"keep_alive_s": 1.0}), "a", 1), [False] * 31)
    assert kept(fates) == [0, 10, 20, 30]
    assert reasons(fates) == {"still"}
    assert [fate.motion for fate in fates if fate.keep] == [()] * 4


def test_motion_opens_the_gate_and_holds_it() -> None:
    fates = play(Gate(QUIET.model_copy(update={"hold_s": 0.5}), "a", 1), [False] * 10 + [True] + [False] * 9)
    assert kept(fates) == [0, 10, 11, 12, 13, 14, 15]
    assert [bool(fate.motion) for fate in fates if fate.keep] == [False, True, *[False] * 5]


def test_what_came_before_the_motion_is_sent_before_it() -> None:
    config = QUIET.model_copy(update={"pre_roll_s": 0.35, "hold_s": 0.0})
    fates = play(Gate(config, "a", 1), [False] * 10 + [True] + [False] * 3)
    assert [fate.shot.seq for fate in fates] == list(range(11))
    assert kept(fates) == [0, 7, 8, 9, 10]
    assert all(fate.shot.image is not None for fate in fates if fate.keep)


def test_frames_in_line_are_still_when_nothing_comes() -> None:
    gate = Gate(QUIET.model_copy(update={"pre_roll_s": 0.35}), "a", 1)
    fates = play(gate, [False] * 10)
    assert [fate.shot.seq for fate in fates] == list(range(6))
    left = gate.close()
    assert [(fate.shot.seq, fate.reason) for fate in left] == [(seq, "still") for seq in range(6, 10)]


def test_an_open_gate_sends_at_its_own_rate_and_the_frame_that_opens_it_at_once() -> None:
    config = QUIET.model_copy(update={"open_fps": 2.0, "hold_s": 5.0, "min_change": 1.0})
    fates = play(Gate(config, "a", 1), [False] * 10 + [True] + [False] * 15)
    assert kept(fates) == [0, 10, 11, 16, 21]  # at 11 it is gone, which is news
    assert reasons(fates[11:]) == {"rate"}


def test_what_moves_on_is_sent_at_once_and_what_trembles_is_not() -> None:
    gate = Gate(QUIET.model_copy(update={"open_fps": 1.0}), "a", 1)
    fates = play(gate, [False] * 8)
    lefts = [10, 12, 11, 12, 22, 23, 45, 46]
    for index, left in enumerate(lefts, 8):
        image = picture(index, moving=False)
        image[10:25, left : left + 15] = 220
        fates += gate.look(Shot(index, index * FRAME_NS, image=image))
    assert kept(fates) == [0, 8, 12, 14]


def test_a_frame_over_the_rate_is_not_looked_at() -> None:
    gate = Gate(QUIET.model_copy(update={"max_fps": 2.0, "motion": False}), "a", 1)
    fates = play(gate, [False] * 40)
    assert kept(fates) == list(range(0, 40, 5))
    assert reasons(fates) == {"rate"}
    assert all(fate.motion is None for fate in fates)


def test_motion_behind_a_mask_is_masked_and_opens_nothing() -> None:
    everything = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    fates = play(Gate(QUIET.model_copy(update={"masks": (everything,)}), "a", 1), [False] * 8 + [True] * 4)
    assert kept(fates) == [0]
    assert [fate.reason for fate in fates[1:]] == ["still"] * 7 + ["masked"] * 4


def test_the_sample_is_what_the_hash_says_and_marked() -> None:
    gate = Gate(QUIET.model_copy(update={"sample": 0.1, "pre_roll_s": 0.3}), "gate-7", 3)
    fates = play(gate, [False] * 200) + gate.close()
    chosen = [seq for seq in range(1, 200) if sampled("gate-7", 3, seq, 0.1)]
    assert kept(fates) == [0, *chosen]
    assert [fate.shot.seq for fate in fates if fate.sampled] == chosen
    assert [fate.shot.seq for fate in fates] == list(range(200))


def test_the_sample_changes_nothing_for_the_other_frames() -> None:
    config = QUIET.model_copy(update={"keep_alive_s": 1.0, "pre_roll_s": 0.3})
    moving = [index % 70 > 66 for index in range(400)]
    plain = play(Gate(config, "a", 1), moving)
    fates = play(Gate(config.model_copy(update={"sample": 0.3}), "a", 1), moving)
    assert sum(fate.sampled for fate in fates) > 50
    assert [fate.shot.seq for fate in fates if fate.keep and not fate.sampled] == kept(plain)


def test_a_picture_of_no_size_at_all_is_looked_at_like_others() -> None:
    """A camera that fails may answer with one pixel, now black, now white."""
    gate, fates = Gate(QUIET, "a", 1), list[Fate]()
    for index in range(20):
        image = np.full((1, 1 + index // 10, 3), 255 * (index % 2), np.uint8)
        fates += gate.look(Shot(index, index * FRAME_NS, image=image))
    assert [fate.shot.seq for fate in fates] == list(range(20))


def test_a_frame_of_the_sample_that_goes_out_with_motion_is_not_marked() -> None:
    gate = Gate(QUIET.model_copy(update={"sample": 1.0, "pre_roll_s": 1.0, "hold_s": 0.0}), "a", 1)
    fates = play(gate, [False] * 6 + [True])
    assert kept(fates) == list(range(7))
    assert not any(fate.sampled for fate in fates)


def test_frames_over_the_rate_are_not_sampled() -> None:
    gate = Gate(QUIET.model_copy(update={"sample": 1.0, "max_fps": 5.0}), "a", 1)
    fates = play(gate, [False] * 20)
    assert kept(fates) == list(range(0, 20, 2))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_share_of_the_sample_is_what_was_asked_for(share: float) -> None:
    count = sum(sampled("gate", 1_700_000_000, seq, share) for seq in range(20_000))
    assert abs(count / 20_000 - share) < 4 * math.sqrt(max(share * (1 - share), 1e-12) / 20_000)


def test_outside_its_hours_a_camera_sends_nothing_and_the_first_frame_after_them_is_kept() -> None:
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
    fates = play(gate, [True] * 40) + gate.close()
    assert kept(fates) == list(range(20, 30))
    assert [fate.reason for fate in fates if not fate.keep] == ["schedule"] * 30


def test_a_rate_starts_anew_when_the_clock_is_set_back() -> None:
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
def test_a_rate_takes_nothing_from_a_camera_that_is_slower_however_unevenly_its_frames_come(
    late_ms: list[float],
) -> None:
    assert passed(Rate(12.5), (100.0 * n + late for n, late in enumerate(late_ms))) == len(late_ms)


@given(fps=st.floats(1.0, 60.0), limit=st.floats(0.5, 30.0))
def test_a_rate_is_held_on_average(fps: float, limit: float) -> None:
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
def test_each_frame_has_one_fate_in_order_and_little_is_held(
    steps: list[tuple[str, float]], pre_roll_s: float, max_fps: float, open_fps: float, sample: float
) -> None:
    config = GateConfig(
        pre_roll_s=pre_roll_s, max_fps=max_fps, open_fps=open_fps, sample=sample, keep_alive_s=1.0, hold_s=0.2
    )
    gate, now_ns, fates = Gate(config, "a", 1), 10**10, []
    for seq, (what, step_s) in enumerate(steps):
        now_ns += round(step_s * 1e9)
        shot = Shot(seq, now_ns)
        reason = gate.glance(now_ns) or ("unusable" if what == "unusable" else "")
        image = picture(seq, moving=what == "moving")
        fates += gate.pass_by(shot, reason) if reason else gate.look(Shot(seq, now_ns, image=image))
        assert seq + 1 - len(fates) <= max(line.MAX_PICTURES * 10, 1)
    fates += gate.close()
    assert [fate.shot.seq for fate in fates] == list(range(len(steps)))
    assert all((fate.shot.image is not None) == fate.keep for fate in fates)


def test_pictures_in_line_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QUIET.model_copy(update={"pre_roll_s": 3.0})
    gate = Gate(config, "a", 1)
    assert len(play(gate, [False] * 20)) == 20 - line.MAX_PICTURES
    monkeypatch.setattr(line, "MAX_BYTES", 4 * 45 * 80 * 3)
    assert len(play(Gate(config, "a", 1), [False] * 20)) == 20 - 4
