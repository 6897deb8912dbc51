"""What a loss spoils, from then until a key frame that is later has come whole."""

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
    """A packet, or the frame that was made of it."""

    pts: int | None
    key_frame: bool = False
    is_corrupt: bool = False
    time_base: Fraction = Fraction(1, HZ)


def shown(damage: Damage, *pieces: Piece, lost_before: int | None = None) -> list[bool]:
    """Send pieces through, and lose a packet while one of them is waited for. Return which have damage."""
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


def test_without_a_loss_nothing_is_damaged() -> None:
    assert shown(Damage(), *film(0, 3)) == [False] * 6


def test_what_follows_a_loss_is_damaged_until_the_next_key_frame() -> None:
    assert shown(Damage(), *film(0, 4), lost_before=2) == [False, False, True, True, False, False]


def test_a_key_frame_that_a_loss_may_have_hit_heals_nothing() -> None:
    assert shown(Damage(), *film(0, 2, 5), lost_before=2) == [False, False, True, True, True, False]


@pytest.mark.parametrize("late", [1, 2])
def test_a_key_frame_that_is_shown_late_heals_nothing_that_was_lost_after_it(late: int) -> None:
    """A decoder that puts frames in order shows them when later packets have been read."""
    damage, frames = Damage(), film(0, 2, frames=8)
    for number, frame in enumerate(frames):
        with damage.listening():
            if number == 2 + late:
                av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 2 packets\n")  # type: ignore[arg-type]
        damage.note(cast("Any", frame))
        if number >= late and frames[number - late].pts >= 2 * 3600:  # type: ignore[operator]
            assert damage.is_damaged(cast("Any", frames[number - late]))


def test_a_frame_that_the_decoder_flags_spoils_what_follows() -> None:
    frames = film(0, 4)
    frames[1].is_corrupt = True
    assert shown(Damage(), *frames) == [False, True, True, True, False, False]


def test_a_packet_of_which_nothing_can_be_made_spoils_what_follows() -> None:
    damage, frames = Damage(), film(0, 4)
    assert shown(damage, *frames[:2]) == [False, False]
    damage.undecodable(cast("Any", frames[2]))
    assert shown(damage, *frames[3:]) == [True, False, False]


def test_a_stream_that_is_joined_where_it_has_no_key_frame_begins_when_the_decoder_says_so() -> None:
    damage, frames = Damage(), film()
    frames[0].is_corrupt = frames[1].is_corrupt = True
    damage.undecodable(cast("Any", frames[0]))
    assert shown(damage, *frames) == [True, True, False, False, False, False]


def test_a_loss_while_the_stream_is_opened_is_over_with_a_key_frame_that_came_after_that() -> None:
    damage = Damage()
    with damage.listening():
        av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")  # type: ignore[arg-type]
    damage.opened(0.1)  # two and a half frames long
    frames = film(0, 2, 4)
    frames[0].pts = None
    assert shown(damage, *frames) == [True, True, True, True, False, False]


def test_only_what_is_listened_to_is_heard_and_a_repeated_loss_too() -> None:
    damage = Damage()
    av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")  # type: ignore[arg-type]
    assert shown(damage, *film(0)) == [False] * 6
    for _ in range(2):
        assert shown(damage, *film(0), lost_before=5)[-1]
    assert av.logging.get_level() is None
