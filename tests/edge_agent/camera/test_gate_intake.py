"""Tests of the gate inside the frame intake: frame numbers, withheld frames, and marks of pre-roll and samples."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from edge_agent.camera import intake
from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import CaptureEnd, KeptFrame, Message
from edge_agent.exceptions import SourceEnded
from edge_agent.gate.gate import sampled
from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.source import CapturedFrame
from ingest.contract.codec import decode
from ingest.contract.records import Box, Frame
from ingest.ledger.intervals import Cover
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, EncodeConfig, GateConfig

EPOCH = 9
FRAME_NS = 100_000_000
QUIET = {"keep_alive_s": 0.0, "sample": 0.0, "pre_roll_s": 0.35, "hold_s": 0.0}


class Script:
    """Source of grey pictures. In some of the pictures, a square moves."""

    def __init__(self, moving: Sequence[bool]) -> None:
        self.moving, self.at = moving, 0

    def open(self) -> None:
        pass

    def read(self) -> CapturedFrame:
        if self.at == len(self.moving):
            raise SourceEnded("over")
        image = np.full((90, 160, 3), 80, np.uint8)
        if self.moving[self.at]:
            left = self.at * 14 % 120
            image[20:50, left : left + 30] = 220
        self.at += 1
        return CapturedFrame(image, self.at * FRAME_NS)

    def close(self) -> None:
        pass


class Never:
    """Frame whose pixels must not be decoded."""

    captured_ns, time_source, error_ms, view = 0, "host", None, ""

    @property
    def image(self) -> np.ndarray:
        raise AssertionError("a frame was decoded that the gate had rejected")


def run(gate: dict[str, object], moving: Sequence[bool], room: int = 1000) -> tuple[list[Frame], CaptureEnd]:
    out = queue.Queue[Message | None](maxsize=room)
    camera = CameraConfig(name="a", source="device:0", gate=GateConfig.model_validate({**QUIET, **gate}))
    FrameIntake(camera, EPOCH, ManualClock(), out).run(Script(moving), threading.Event())
    messages = list(out.queue)
    end = messages[-1]
    assert isinstance(end, CaptureEnd)
    frames = [decode(Frame, m.record) for m in messages if isinstance(m, KeptFrame)]
    cover = Cover()
    for account in [*(f.account for f in frames), end.tail]:
        if account:
            cover.add(account.first, account.last)
    for frame in frames:
        cover.add(frame.seq, frame.seq)
    assert not cover.holes(0, len(moving) - 1)
    assert not cover.overlaps()
    return frames, end


def test_pre_roll_frames_are_sent_before_the_frame_with_motion_and_report_the_withheld_frames() -> None:
    frames, end = run({}, [False] * 10 + [True] + [False] * 9)
    assert [frame.seq for frame in frames] == [0, 7, 8, 9, 10]
    assert frames[1].account is not None
    assert (frames[1].account.first, frames[1].account.last, frames[1].account.counts) == (1, 6, {"still": 6})
    assert [frame.captured_ns for frame in frames[1:]] == [(seq + 1) * FRAME_NS for seq in (7, 8, 9, 10)]
    assert end.tail is not None
    assert (end.last, end.tail.first, end.tail.counts) == (19, 11, {"still": 9})


def test_a_randomly_sampled_frame_is_marked_as_sampled_and_its_neighbours_are_withheld_as_still() -> None:
    frames, _ = run({"sample": 0.1}, [False] * 100)
    chosen = [seq for seq in range(1, 100) if sampled("a", EPOCH, seq, 0.1)]
    assert [frame.seq for frame in frames if frame.sampled] == chosen
    assert [frame.seq for frame in frames if not frame.sampled] == [0]


def test_a_pre_roll_frame_that_cannot_be_encoded_is_withheld_and_the_others_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded, calls = cv2.imencode, []

    def imencode(*args: object) -> object:
        calls.append(1)
        return (False, None) if len(calls) == 3 else encoded(*args)  # type: ignore[call-overload]

    monkeypatch.setattr(intake.cv2, "imencode", imencode)
    frames, _ = run({}, [False] * 10 + [True])
    assert [frame.seq for frame in frames] == [0, 7, 9, 10]
    assert frames[2].account is not None
    assert frames[2].account.counts == {"unusable": 1}


def test_frames_outside_armed_hours_or_above_the_rate_limit_are_not_decoded() -> None:
    armed = [{"start": "12:00", "end": "13:00"}]
    for gate in ({"armed": armed, "time_zone": "UTC"}, {"max_fps": 1.0}):
        camera = CameraConfig(name="a", source="device:0", gate=GateConfig.model_validate({**QUIET, **gate}))
        taker = FrameIntake(camera, EPOCH, ManualClock(), queue.Queue())
        if "max_fps" in gate:
            taker.frame(CapturedFrame(np.zeros((90, 160, 3), np.uint8), 0))
        taker.frame(Never())  # type: ignore[arg-type]


def test_boxes_of_stationary_objects_are_in_pixels_of_the_sent_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MotionDetector, "stationary_boxes", lambda _: (Box(40.0, 20.0, 80.0, 60.0),))
    out = queue.Queue[Message | None]()
    encode = EncodeConfig(bytes_per_s=1500, min_scale=0.5, min_quality=5)
    taker = FrameIntake(CameraConfig(name="a", source="device:0", encode=encode), EPOCH, ManualClock(), out)
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    taker.frame(CapturedFrame(noise, 0))
    (frame,) = [decode(Frame, message.record) for message in out.queue if isinstance(message, KeptFrame)]
    assert frame.scaled_from == (160, 90)
    scale = frame.width / 160
    assert frame.resting == (Box(40.0 * scale, 20.0 * scale, 80.0 * scale, 60.0 * scale),)
