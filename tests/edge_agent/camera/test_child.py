"""Tests of the capture child: kept frames, withheld frames, and complete counts of withheld frames."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.camera import intake
from edge_agent.camera.child import QUEUE_FRAMES
from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import CaptureEnd, CaptureProgress, KeptFrame, Message, read_message, write_message
from edge_agent.exceptions import SourceEnded, SourceStalled
from edge_agent.sources.source import CapturedFrame
from ingest.contract.codec import decode
from ingest.contract.records import Frame, WithheldInterval
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, GateConfig


class Pictures:
    """Source of ``count`` grey pictures. With ``fails``, the source then raises SourceStalled."""

    def __init__(self, count: int, clock: ManualClock, *, fails: bool = False) -> None:
        self.left, self.clock, self.fails, self.closed = count, clock, fails, False

    def open(self) -> None:
        pass

    def read(self) -> CapturedFrame:
        if not self.left:
            raise SourceStalled("no frame") if self.fails else SourceEnded("over")
        self.left -= 1
        self.clock.advance(0.1)
        return CapturedFrame(np.full((90, 160, 3), 80, np.uint8), self.clock.now_ns())

    def close(self) -> None:
        self.closed = True


def capture(count: int, size: int, *, fails: bool = False, gate: GateConfig | None = None) -> list[Message | None]:
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=size)
    camera = CameraConfig(name="a", source="device:0", gate=gate or GateConfig(motion=False))
    source = Pictures(count, clock, fails=fails)
    runner = threading.Thread(target=lambda: FrameIntake(camera, 9, clock, out).run(source, threading.Event()))
    runner.start()
    runner.join(timeout=0 if size < QUEUE_FRAMES else 60)
    messages = []
    while not (messages and isinstance(messages[-1], CaptureEnd)):
        messages.append(out.get(timeout=60))
    runner.join()
    assert source.closed
    return messages


def test_every_captured_frame_is_kept_or_counted_as_withheld() -> None:
    messages = capture(60, 1000, gate=GateConfig(max_fps=2.0, motion=False))
    kept = [m for m in messages if isinstance(m, KeptFrame)]
    assert [m.seq for m in kept] == list(range(0, 60, 5))
    frames = [decode(Frame, m.record) for m in kept]
    assert frames[1].account == WithheldInterval(camera="a", epoch=9, first=1, last=4, counts={"rate": 4})
    assert cv2.imdecode(np.frombuffer(frames[0].image, np.uint8), cv2.IMREAD_COLOR).shape == (90, 160, 3)
    end = messages[-1]
    assert isinstance(end, CaptureEnd)
    assert (end.last, end.finished) == (59, True)
    assert end.tail is not None
    assert (end.tail.first, end.tail.last) == (56, 59)
    assert any(isinstance(m, CaptureProgress) for m in messages)


def test_all_frame_numbers_are_accounted_for_after_the_source_fails() -> None:
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=100)
    camera = CameraConfig(name="a", source="device:0", gate=GateConfig(max_fps=2.0, motion=False))
    source = Pictures(13, clock, fails=True)
    with pytest.raises(SourceStalled):
        FrameIntake(camera, 9, clock, out).run(source, threading.Event())
    said = list(out.queue)
    assert [m.seq for m in said if isinstance(m, KeptFrame)] == [0, 5, 10]
    assert said[-1] == CaptureEnd(
        12, WithheldInterval(camera="a", epoch=9, first=11, last=12, counts={"rate": 2}), finished=False
    )
    assert source.closed


def test_a_frame_that_cannot_be_encoded_is_withheld_and_the_next_frame_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "MAX_IMAGE_BYTES", 5_000)
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=100)
    camera = CameraConfig(name="a", source="device:0", gate=GateConfig(motion=False, max_fps=0.0))
    capturing = FrameIntake(camera, 9, clock, out)
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    for image in (np.zeros((0, 160, 3), np.uint8), noise, np.full((90, 160, 3), 80, np.uint8)):
        capturing.frame(CapturedFrame(image, 1))
        clock.advance(intake.REPORT_EVERY_S)
    (kept,) = (m for m in out.queue if isinstance(m, KeptFrame))
    assert (kept.seq, kept.account) == (
        2,
        WithheldInterval(camera="a", epoch=9, first=0, last=1, counts={"unusable": 2}),
    )
    reasons = [m.reason for m in out.queue if isinstance(m, CaptureProgress)]
    assert "(0, 160, 3) is unusable" in reasons[0]
    assert "exceeds the limit of 5000" in reasons[1]
    assert reasons[2] == ""


def test_frames_are_withheld_as_overload_while_the_agent_is_slow() -> None:
    messages = capture(200, 4)
    kept = [m for m in messages if isinstance(m, KeptFrame)]
    end = messages[-1]
    assert isinstance(end, CaptureEnd)
    accounts = [m.account for m in kept if m.account] + ([end.tail] if end.tail else [])
    withheld = sum(sum(a.counts.values()) for a in accounts)
    assert len(kept) + withheld == end.last + 1 == 200


def test_messages_of_the_capture_child_are_read_from_the_pipe_until_a_truncated_message() -> None:
    account = WithheldInterval(camera="a", epoch=9, first=0, last=1, counts={"still": 2})
    sent: list[Message] = [
        CaptureProgress(3),
        KeptFrame(2, 17, b"bytes", account),
        CaptureEnd(2, None, False),
    ]
    pipe = io.BytesIO()
    for message in sent:
        write_message(pipe, message)

    async def read_all(data: bytes) -> list[Message]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while message := await read_message(reader):
            found.append(message)
        return found

    assert asyncio.run(read_all(pipe.getvalue())) == sent
    assert asyncio.run(read_all(pipe.getvalue()[:-3])) == sent[:-1]


def test_the_capture_child_prints_why_its_source_failed() -> None:
    orders = {
        "camera": {"name": "a", "source": "/no/such/file.mp4"},
        "epoch": 1,
        "truth_folder": None,
        "state_folder": None,
    }
    child = subprocess.run(
        [sys.executable, "-m", "edge_agent.camera.child"],
        input=(json.dumps(orders) + "\n").encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 3
    assert b"expected a video file" in child.stderr


@pytest.mark.parametrize("loop", [False, True])
def test_a_video_file_is_played_once_or_in_a_loop(tmp_path: Path, loop: bool) -> None:
    from edge_agent.sources.file import FileSource
    from edge_agent.sources.pace import FramePacer

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), level * 40, np.uint8))
    writer.release()
    clock = ManualClock()
    source = FileSource(path, 10, clock, loop=loop, pace=FramePacer(10, clock, wait=clock.advance))
    source.open()
    seen = [source.read() for _ in range(5)]
    assert [round(float(s.image.mean()) / 40) for s in seen] == [0, 1, 2, 3, 4]
    assert np.diff([s.captured_ns for s in seen]).tolist() == [100_000_000] * 4
    if loop:
        assert round(float(source.read().image.mean())) == 0
    else:
        with pytest.raises(SourceEnded):
            source.read()
    source.close()
    source.close()
