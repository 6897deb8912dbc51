"""Tests of damage tracking: a packet loss damages all frames until a later complete key frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av.logging
import pytest

from edge_agent.sources.rtsp.damage import Damage

HZ = 90_000


@dataclass
class Piece:
    """Fake packet, or the fake frame decoded from a packet."""

    pts: int | None
    key_frame: bool = False
    is_corrupt: bool = False
    time_base: Fraction = Fraction(1, HZ)


def shown(damage: Damage, *pieces: Piece, lost_before: int | None = None) -> list[bool]:
    """Process pieces, with a packet loss before one piece. Return for each piece whether it is damaged."""
    found = []
    for number, piece in enumerate(pieces):
        with damage.listening():
            if number == lost_before:
                av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")  # type: ignore[arg-type]
        damage.note(cast("Any", piece))
        found.append(damage.is_damaged(cast("Any", piece)))
    return found


def film(*key_frames: int, frames: int = 6, **fields: Any) -> list[Piece]:
    return [Piece(number * 3600, number in key_frames, **fields) for number in range(frames)]


def test_no_frame_counts_as_damaged_without_a_packet_loss() -> None:
    assert shown(Damage(), *film(0, 3)) == [False] * 6


def test_frames_after_a_packet_loss_count_as_damaged_until_the_next_key_frame() -> None:
    assert shown(Damage(), *film(0, 4), lost_before=2) == [False, False, True, True, False, False]


def test_a_key_frame_that_may_be_damaged_does_not_make_later_frames_intact() -> None:
    assert shown(Damage(), *film(0, 2, 5), lost_before=2) == [False, False, True, True, True, False]


@pytest.mark.parametrize("late", [1, 2])
def test_a_key_frame_from_before_a_packet_loss_does_not_make_later_frames_intact(late: int) -> None:
    """A decoder that reorders frames may return a frame after later packets have been read."""
    damage, frames = Damage(), film(0, 2, frames=8)
    for number, frame in enumerate(frames):
        with damage.listening():
            if number == 2 + late:
                av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 2 packets\n")  # type: ignore[arg-type]
        damage.note(cast("Any", frame))
        if number >= late and frames[number - late].pts >= 2 * 3600:  # type: ignore[operator]
            assert damage.is_damaged(cast("Any", frames[number - late]))


def test_frames_after_a_frame_that_the_decoder_flags_as_faulty_count_as_damaged() -> None:
    frames = film(0, 4)
    frames[1].is_corrupt = True
    assert shown(Damage(), *frames) == [False, True, True, True, False, False]


def test_frames_after_an_undecodable_packet_count_as_damaged() -> None:
    damage, frames = Damage(), film(0, 4)
    assert shown(damage, *frames[:2]) == [False, False]
    damage.undecodable(cast("Any", frames[2]))
    assert shown(damage, *frames[3:]) == [True, False, False]


def test_a_stream_that_begins_between_key_frames_is_intact_from_its_first_frame_without_error_flag() -> None:
    damage, frames = Damage(), film()
    frames[0].is_corrupt = frames[1].is_corrupt = True
    damage.undecodable(cast("Any", frames[0]))
    assert shown(damage, *frames) == [True, True, False, False, False, False]


def test_damage_from_a_packet_loss_while_opening_the_stream_ends_at_a_later_key_frame() -> None:
    damage = Damage()
    with damage.listening():
        av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")  # type: ignore[arg-type]
    damage.opened(0.1)  # two and a half frames long
    frames = film(0, 2, 4)
    frames[0].pts = None
    assert shown(damage, *frames) == [True, True, True, True, False, False]


def test_a_packet_loss_that_ffmpeg_logs_while_no_stream_is_read_marks_no_frame_as_damaged() -> None:
    damage = Damage()
    av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")  # type: ignore[arg-type]
    assert shown(damage, *film(0)) == [False] * 6
    for _ in range(2):
        assert shown(damage, *film(0), lost_before=5)[-1]
    assert av.logging.get_level() is None
