"""Tests of frame ids, epochs and lanes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identity import LATE, LIVE, FrameId, is_late, is_replay, next_epoch, replay_lane


@given(st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True), st.integers(0), st.integers(0))
def test_a_frame_id_is_parsed_from_its_text(camera: str, epoch: int, seq: int) -> None:
    frame = FrameId(camera, epoch % 10**20, seq % 10**20)
    assert FrameId.parse(str(frame)) == frame


@pytest.mark.parametrize(
    "text", ["", "gate/1", "gate/1/2/3/x", "Gate/1/2", "gate/1/2\n", "gate/１/2", "gate/1/", "/1/2"]
)
def test_a_malformed_frame_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected camera/epoch/seq"):
        FrameId.parse(text)


def test_frame_ids_sort_in_the_order_of_capture() -> None:
    frames = [FrameId("gate", 2, 0), FrameId("gate", 1, 10), FrameId("gate", 1, 9)]
    assert sorted(frames) == [FrameId("gate", 1, 9), FrameId("gate", 1, 10), FrameId("gate", 2, 0)]


@given(st.none() | st.integers(0, 2**40), st.integers(0, 2**40))
def test_the_number_of_a_new_capture_run_exceeds_the_last_one_and_is_at_least_the_unix_time(
    last: int | None, now_s: int
) -> None:
    epoch = next_epoch(last, now_s)
    assert epoch >= now_s
    assert last is None or epoch > last


def test_numbers_of_capture_runs_grow_even_when_the_clock_is_set_back() -> None:
    assert next_epoch(1_700_000_100, 1_600_000_000) == 1_700_000_101


def test_lanes_for_late_and_for_replayed_frames_are_recognised_by_their_name() -> None:
    lane = replay_lane("tuesday-2")
    assert (lane, is_replay(lane), is_late(lane)) == ("replay-tuesday-2", True, True)
    assert (is_replay(LIVE), is_late(LIVE)) == (False, False)
    assert (is_replay(LATE), is_late(LATE)) == (False, True)


@pytest.mark.parametrize(
    ("lane", "expected"),
    [
        ("replay-a", True),
        ("replay-a.2", True),
        ("replay-", False),
        ("replay-A", False),
        ("replay-a.", False),
        ("replay-a\n", False),
        ("replay-" + "a" * 1_000_000, False),
    ],
)
def test_a_lane_is_a_replay_lane_only_if_it_has_a_valid_replay_name(lane: str, expected: bool) -> None:
    assert is_replay(lane) == expected


@pytest.mark.parametrize("run", ["", "-a", "A", "a b", "a/b", "a.b", "a\n", "x" * 42])
def test_an_invalid_name_of_a_replay_run_is_refused(run: str) -> None:
    with pytest.raises(ValueError, match="expected lower-case letters"):
        replay_lane(run)
