"""Tests of the frame intake: redaction precedes encoding, and every frame number is accounted for."""

from __future__ import annotations

import ast
import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import CaptureEnd, CaptureProgress, KeptFrame, Message
from edge_agent.exceptions import RedactionFailed, SourceEnded
from edge_agent.redact.history import ScoredBox
from edge_agent.redact.redactor import Redactor
from edge_agent.sources.source import CapturedFrame
from ingest.contract.codec import decode
from ingest.contract.records import Frame, WithheldInterval
from ingest.ledger.intervals import Cover
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, DetectorConfig, EncodeConfig, GateConfig, RedactConfig
from tests.edge_agent.bright import write_bright
from tests.paths import ROOT

Image = npt.NDArray[np.uint8]


@pytest.fixture
def bright(tmp_path: Path) -> DetectorConfig:
    """Return a detector that finds white squares of 32 px in a picture of 320×256."""
    return DetectorConfig(model=str(write_bright(tmp_path / "bright.onnx")), decoder="corners", height=256)


class ScriptedDetector:
    """Detector that returns scripted results, one after the other."""

    name = "seen@sha256:0"

    def __init__(self, *frames: list[ScoredBox] | Exception) -> None:
        self.frames = list(frames)
        self.pictures: list[Image] = []

    def find(self, image: Image, min_score: float) -> list[ScoredBox]:
        self.pictures.append(image.copy())
        found = self.frames.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def noise(width: int = 320, height: int = 256, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def scene(left: int = 32, top: int = 64) -> Image:
    """Return a grey picture with one white square that contains grey stripes."""
    image = np.full((256, 320, 3), 80, np.uint8)
    image[top : top + 32, left : left + 32] = 255
    image[top + 12 : top + 20 : 2, left + 4 : left + 28] = 200
    return image


class Scenes:
    """Source of ``count`` pictures, each with a white square to redact and a masked area."""

    def __init__(self, count: int, clock: ManualClock) -> None:
        self.left, self.clock = count, clock

    def open(self) -> None:
        pass

    def read(self) -> CapturedFrame:
        if not self.left:
            raise SourceEnded("over")
        self.left -= 1
        self.clock.advance(0.1)
        image = scene(32 * (self.left % 4), 64)
        image[128:, :] = noise(seed=self.left)[128:]
        return CapturedFrame(image, self.clock.now_ns())

    def close(self) -> None:
        pass


LOWER_HALF = ((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0))


@pytest.mark.parametrize("gate", [GateConfig(motion=False), GateConfig(max_fps=3.0), GateConfig(keep_alive_s=0.3)])
@pytest.mark.parametrize("encode", [EncodeConfig(), EncodeConfig(encoding="webp"), EncodeConfig(bytes_per_s=4_000)])
def test_every_frame_record_contains_a_redacted_picture(
    bright: DetectorConfig, gate: GateConfig, encode: EncodeConfig
) -> None:
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=1000)
    redact = RedactConfig(masks=(LOWER_HALF,), faces=bright, method="fill")
    camera = CameraConfig(name="a", source="device:0", gate=gate, redact=redact, encode=encode)
    FrameIntake(camera, 9, clock, out).run(Scenes(60, clock), threading.Event())
    frames = [decode(Frame, m.record) for m in out.queue if isinstance(m, KeptFrame)]
    assert frames
    for frame in frames:
        image = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)
        assert frame.redacted is not None
        assert (frame.redacted.masks, frame.redacted.faces >= 1) == (1, True)
        # at the lowest quality, JPEG overshoots by 60 levels beside an edge; the hidden picture has 255
        assert image[frame.height // 2 + 8 :].max() < 200, "the mask shows the hidden picture"
        assert image.max() < 200, "a white square is visible"
        assert all(box.bottom <= frame.height / 2 + 8 for box in frame.motion or ()), "the gate looks behind the mask"


def test_frames_over_the_byte_budget_are_withheld_and_reported() -> None:
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=1000)
    encode = EncodeConfig(bytes_per_s=2_000)
    camera = CameraConfig(name="a", source="device:0", gate=GateConfig(motion=False), encode=encode)
    FrameIntake(camera, 9, clock, out).run(Scenes(60, clock), threading.Event())
    kept = [m for m in out.queue if isinstance(m, KeptFrame)]
    (ended,) = (m for m in out.queue if isinstance(m, CaptureEnd))
    accounts = [account for account in (*(m.account for m in kept), ended.tail) if account]
    assert {reason for account in accounts for reason in account.counts} == {"budget"}
    assert len(kept) + sum(a.counts["budget"] for a in accounts) == 60
    assert any("exceeds the byte budget" in m.reason for m in out.queue if isinstance(m, CaptureProgress))


def test_all_frame_numbers_are_accounted_for_when_the_detector_fails(
    bright: DetectorConfig,
) -> None:
    seen = ScriptedDetector([], [], RedactionFailed("the model gives numbers that are none"))

    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=1000)
    camera = CameraConfig(
        name="a", source="device:0", gate=GateConfig(motion=False), redact=RedactConfig(faces=bright)
    )
    intake = FrameIntake(camera, 9, clock, out, redactor=Redactor(camera.redact, make=lambda config: seen))
    with pytest.raises(RedactionFailed):
        intake.run(Scenes(9, clock), threading.Event())
    assert [m.seq for m in out.queue if isinstance(m, KeptFrame)] == [0, 1]
    (ended,) = (m for m in out.queue if isinstance(m, CaptureEnd))
    assert ended == CaptureEnd(
        2, WithheldInterval(camera="a", epoch=9, first=2, last=2, counts={"unusable": 1}), finished=False
    )


class Passing(Scenes):
    """Source of frames without motion for three seconds, and with motion afterwards."""

    def read(self) -> CapturedFrame:
        captured = super().read()
        if self.left < 30:
            captured.image[20:60, 3 * self.left : 3 * self.left + 40] = 200
        return CapturedFrame(captured.image, captured.captured_ns)


def require_whole(out: queue.Queue[Message | None], captured: int) -> Counter[str]:
    """Fail unless every frame is kept or withheld once. Return the withheld frames after the last kept, by reason."""
    cover = Cover()
    for message in out.queue:
        accounts = [getattr(message, name, None) for name in ("account", "tail")]
        for account in filter(None, accounts):
            cover.add(account.first, account.last)
        if isinstance(message, KeptFrame):
            cover.add(message.seq, message.seq)
    ended = out.queue[-1]
    assert isinstance(ended, CaptureEnd)
    assert (ended.last, cover.last, cover.holes(0, ended.last)) == (captured - 1, captured - 1, [])
    assert not cover.overlaps()
    return Counter(ended.tail.counts if ended.tail else {})


@pytest.mark.parametrize("fails_at", range(1, 6))
def test_all_frame_numbers_are_accounted_for_when_the_detector_fails_on_a_pre_roll_frame(
    bright: DetectorConfig, fails_at: int
) -> None:
    """All pre-roll frames are redacted in one burst.

    The frames after the failing frame must also be accounted for.
    """
    seen = ScriptedDetector(*[[]] * fails_at, RedactionFailed("the model gives numbers that are none"), *[[]] * 60)
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=1000)
    gate, redact = GateConfig(pre_roll_s=2.0, sample=0.0), RedactConfig(masks=(LOWER_HALF,), faces=bright)
    camera = CameraConfig(name="a", source="device:0", gate=gate, redact=redact)
    passing = Passing(60, clock)
    intake = FrameIntake(camera, 9, clock, out, redactor=Redactor(redact, make=lambda config: seen))
    with pytest.raises(RedactionFailed):
        intake.run(passing, threading.Event())
    assert require_whole(out, 60 - passing.left)["unusable"] >= 1


@pytest.mark.parametrize("failure", [MemoryError(), ValueError("a library's own"), OSError(28, "no space")])
@pytest.mark.parametrize("where", ["read", "close"])
def test_all_frame_numbers_are_accounted_for_after_any_error(failure: Exception, where: str) -> None:
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=1000)
    scenes, stop = Scenes(60, clock), threading.Event()

    def fail() -> None:
        raise failure

    def read() -> CapturedFrame:
        if scenes.left == 40:
            fail() if where == "read" else stop.set()
        return Scenes.read(scenes)

    scenes.read, scenes.close = read, fail if where == "close" else scenes.close  # type: ignore[method-assign]
    intake = FrameIntake(CameraConfig(name="a", source="device:0"), 9, clock, out)
    with pytest.raises(type(failure)):
        intake.run(scenes, stop)
    require_whole(out, 20 if where == "read" else 21)


def test_a_capture_ended_during_a_blocked_read_ignores_frames_that_its_source_returns_afterwards() -> None:
    clock, out = ManualClock(), queue.Queue[Message | None](maxsize=1000)
    scenes, waits, goes_on = Scenes(60, clock), threading.Event(), threading.Event()

    def read() -> CapturedFrame:
        if scenes.left == 40:
            waits.set()
            goes_on.wait()
        return Scenes.read(scenes)

    scenes.read = read  # type: ignore[method-assign]
    intake = FrameIntake(CameraConfig(name="a", source="device:0"), 9, clock, out)
    running = threading.Thread(target=intake.run, args=(scenes, threading.Event()))
    running.start()
    waits.wait()
    assert intake.abandon()
    require_whole(out, 20)
    goes_on.set()
    running.join()
    assert not intake.abandon()
    require_whole(out, 20)


def test_a_capture_without_its_redaction_model_sends_no_frame_and_prints_the_reason() -> None:
    camera = {
        "name": "a",
        "source": "simulated:road",
        "redact": {"faces": {"model": "/no/such/model.onnx"}},
    }
    child = subprocess.run(
        [sys.executable, "-m", "edge_agent.camera.child"],
        input=(json.dumps({"camera": camera, "epoch": 1}) + "\n").encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (child.returncode, child.stdout) == (3, b"")
    assert b"/no/such/model.onnx" in child.stderr


def test_only_the_modules_of_the_encoder_and_of_the_saved_reference_picture_convert_pictures_to_bytes() -> None:
    makes = {"imencode", "imencodemulti", "imwrite", "imwritemulti", "VideoWriter", "tobytes"}
    found = {
        (path.relative_to(ROOT).as_posix(), node.attr)
        for path in (ROOT / "edge_agent").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in makes
    }
    encoder, memory = (
        "edge_agent/encode/encoder.py",
        "edge_agent/camera/watch.py",
    )  # the saved view is a masked mean over minutes
    assert found == {(path, make) for path in (encoder, memory) for make in ("imencode", "tobytes")}
