"""Tests of the camera supervisor: bad views, outages with their true length, and growing pauses."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import cv2
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from edge_agent.camera.camera import LONG_CAP_S, STOP_CHILD_S, Camera
from edge_agent.camera.children import start_capture
from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import CaptureProgress, KeptFrame, Message, Notice, ViewCondition
from edge_agent.camera.watch import LOOK_EVERY_S, Outbox, ViewMemory, WatchedSource
from edge_agent.exceptions import FrameUnusable, SourceEnded, SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.redact.cover import PrivacyMasks
from edge_agent.sources.source import CapturedFrame
from edge_agent.spool.schema import Kind, Row
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.records import EpochEnd, Frame, WithheldInterval
from ingest.runtime.backoff import STEADY_S, delay_s
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, GateConfig, RedactConfig, WatchConfig
from tests.peers import units
from tests.peers.rig import Rig, flows, until
from tests.peers.web import WebCamera, mjpeg

Handle = Callable[[Message], None]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def camera(clock: ManualClock) -> Camera:
    return Camera(
        CameraConfig(name="a", source="device:0"),
        None,  # type: ignore[arg-type]
        truth_folder=None,
        on_kept=lambda: None,
        chance=lambda: 0.0,
        clock=clock,
        metrics=AgentMetrics(CollectorRegistry()),
    )


class FullSpool:
    """Fake spool that refuses rows while ``is_full``. It has the kept rows, and the accounts of the ended epoch."""

    def __init__(self) -> None:
        self.is_full = True
        self.rows: list[Row] = []
        self.accounts: Sequence[WithheldInterval] = ()

    async def keep(self, rows: Sequence[Row]) -> None:
        if self.is_full:
            raise SpoolUnavailable("spool.db", "full", "no space")
        self.rows += rows

    async def end_epoch(self, kind: Kind, end: EpochEnd, accounts: Sequence[WithheldInterval]) -> None:
        assert end.last == max((account.last for account in accounts), default=end.last)
        self.accounts = accounts


def account(first: int, last: int, **counts: int) -> WithheldInterval:
    return WithheldInterval(camera="a", epoch=5, first=first, last=last, counts=counts)


@pytest.mark.parametrize("ends", [True, False])
def test_frames_refused_on_a_full_disk_are_counted_in_the_next_account_or_at_the_capture_end(
    camera: Camera, handle: Handle, ends: bool
) -> None:
    spool = camera._spool = FullSpool()  # type: ignore[assignment]
    camera.epoch = 5
    for seq, before in ((2, account(0, 1, still=2)), (3, None), (6, account(4, 5, rate=2))):
        handle(KeptFrame(seq, 0, b"", before))
    assert (camera.kept, camera.captured, camera.reason) == (0, 7, "disk full: withheld as overload")
    if ends:
        asyncio.run(camera._close_epoch(None, -1, ""))
        assert spool.accounts == [account(0, 6, still=2, rate=2, overload=3)]
        return
    spool.is_full = False
    handle(KeptFrame(9, 0, b"", account(7, 8, still=2)))
    handle(KeptFrame(11, 0, b"", account(10, 10, still=1)))
    handle(KeptFrame(12, 0, b"", None))
    expected = [account(0, 8, still=4, rate=2, overload=3), account(10, 10, still=1)]
    assert [row.account for row in spool.rows] == [*map(h.account_text, expected), ""]
    asyncio.run(camera._close_epoch(None, 12, ""))
    assert spool.accounts == []


@pytest.fixture
def handle(camera: Camera) -> Handle:
    return lambda message: asyncio.run(camera._take(message)) and None  # type: ignore[return-value]


def test_a_bad_view_sets_the_camera_state_and_is_logged_when_it_begins_and_ends(
    camera: Camera, handle: Handle, clock: ManualClock
) -> None:
    with capture_logs() as lines:
        handle(CaptureProgress(5))
        assert (camera.status([]).state, camera.status([]).reason) == ("running", "")
        handle(ViewCondition("tampered", "out of focus"))
        for captured in (10, 15, 20):
            clock.advance(10)
            handle(CaptureProgress(captured))
            assert (camera.status([]).state, camera.status([]).reason) == ("tampered", "out of focus")
        handle(ViewCondition())
        handle(CaptureProgress(25))
        assert (camera.status([]).state, camera.status([]).reason) == ("running", "")
    assert [line["event"] for line in lines] == ["camera_view_bad", "camera_view_recovered"]
    assert lines[1]["bad_s"] == 30.0


def test_a_warning_from_the_capture_child_process_is_logged_once(camera: Camera, handle: Handle) -> None:
    with capture_logs() as lines:
        handle(Notice("no video by UDP: by TCP instead"))
    assert [(line["camera"], line["text"]) for line in lines] == [("a", "no video by UDP: by TCP instead")]


def test_a_camera_reconnection_is_logged_with_the_outage_length_once_the_stream_is_steady(
    camera: Camera, handle: Handle, clock: ManualClock
) -> None:
    clock.advance(36_000)  # the camera had run for ten hours
    camera._backoff.failed(clock.monotonic(), 0.0)
    clock.advance(30)
    camera._frames_from_s = None
    with capture_logs() as lines:
        handle(CaptureProgress(5))
        clock.advance(STEADY_S - 0.1)
        handle(CaptureProgress(50))
        assert not lines
        clock.advance(0.1)
        handle(CaptureProgress(55))
        handle(CaptureProgress(60))
    assert [(line["event"], line["down_s"]) for line in lines] == [("camera_reconnected", 30.0)]


async def test_a_camera_outage_begins_when_its_capture_ends(
    camera: Camera, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ten_hours() -> bool:
        clock.advance(36_000)
        camera.stop() if clock.monotonic() > 36_000 else None
        return False

    monkeypatch.setattr(camera, "_epoch", ten_hours)
    await camera.run()
    assert camera._backoff.since_s == 36_000


def test_pauses_between_capture_starts_grow_while_a_camera_keeps_failing(
    camera: Camera, handle: Handle, clock: ManualClock
) -> None:
    pauses = []
    for _ in range(6):
        camera._frames_from_s = None
        handle(CaptureProgress(3))
        clock.advance(1)
        handle(CaptureProgress(9))
        pauses.append(camera._backoff.failed(clock.monotonic(), 0.0))
    assert pauses == [delay_s(failures, 0.0) for failures in range(1, 7)]
    assert pauses == sorted(set(pauses))


def test_a_camera_down_for_a_day_is_restarted_about_once_a_minute(camera: Camera) -> None:
    at_s, starts = 0.0, 0
    while at_s < 86_400:
        at_s, starts = at_s + camera._backoff.failed(at_s, 0.0), starts + 1
    assert starts < 86_400 / LONG_CAP_S + 100


class Still:
    """Source of one repeated picture. Three reads in turn return a broken picture, the picture, and no frame."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.count = clock, 0
        self.picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> CapturedFrame | None:
        self.clock.advance(LOOK_EVERY_S)
        self.count += 1
        if self.count % 3 == 0:
            return None
        return CapturedFrame(self.fail if self.count % 3 == 1 else self.picture, self.clock.now_ns())

    def fail(self) -> np.ndarray:
        raise FrameUnusable("broken")


def test_a_changed_camera_view_is_reported_once_and_never_blocks_the_capture(clock: ManualClock) -> None:
    out: queue.Queue[Message | None] = queue.Queue(maxsize=1)
    out.put(None)  # the queue is full because the agent is slow
    watched = WatchedSource(Still(clock), WatchConfig(frozen_s=10), clock, Outbox(out))
    watched.open()
    for _ in range(90):
        watched.read()
    out.get()
    for _ in range(90):
        watched.read()
    assert out.get_nowait() == ViewCondition("frozen", "the picture does not change")
    watched.read()
    assert out.empty()


def test_a_view_that_turns_black_or_good_again_sends_a_frame_with_its_new_state(clock: ManualClock) -> None:
    class Covered(Still):
        """A source that is dark from 10 s to 30 s, and ends after 50 s."""

        def read(self) -> CapturedFrame:
            self.clock.advance(LOOK_EVERY_S)
            self.count += 1
            if self.count > 100:
                raise SourceEnded("end")
            dark = 20 <= self.count < 60
            return CapturedFrame(np.zeros_like(self.picture) if dark else self.picture, self.clock.now_ns())

    out: queue.Queue[Message | None] = queue.Queue()
    still = GateConfig(keep_alive_s=0.0, sample=0.0, hold_s=0.0, pre_roll_s=0.0)
    watched = WatchedSource(Covered(clock), WatchConfig(black_s=5, frozen_s=0), clock, Outbox(out))
    FrameIntake(CameraConfig(name="a", source="x", gate=still), 1, clock, out).run(watched, threading.Event())
    sent = [decode(Frame, one.record) for one in out.queue if isinstance(one, KeptFrame)]
    changes = [now for before, now in itertools.pairwise(sent) if before.view != now.view]
    assert [one.view for one in changes] == ["black", ""]
    assert [one.seq for one in changes] == pytest.approx([30, 64], abs=2)
    assert len(sent) < 20


def test_an_unusable_picture_does_not_end_the_view_checks_or_the_capture(clock: ManualClock) -> None:
    class Grey(Still):
        def read(self) -> CapturedFrame:
            return CapturedFrame(self.picture[:, :, 0], self.clock.now_ns())

    watched = WatchedSource(Grey(clock), WatchConfig(), clock, Outbox(queue.Queue()))
    assert watched.read() is not None


def test_privacy_masks_are_black_in_the_reference_picture_of_the_view(clock: ManualClock, tmp_path: Path) -> None:
    still, memory = Still(clock), ViewMemory(tmp_path / "a.png")
    left = RedactConfig(masks=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),))
    watched = WatchedSource(still, WatchConfig(frozen_s=0), clock, Outbox(queue.Queue()), memory, PrivacyMasks(left))
    watched.open()
    for _ in range(300):
        watched.read()
    watched.close()
    kept = memory.load(60)
    assert kept is not None
    assert kept[:, :80].max() == 0
    assert kept[:, 90:].max() > 100


def test_a_new_privacy_mask_is_applied_to_the_stored_reference_picture_of_the_view(
    clock: ManualClock, tmp_path: Path
) -> None:
    memory = ViewMemory(tmp_path / "a.png")
    memory.save(np.full((90, 160), 200, np.uint8))
    left = RedactConfig(masks=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),))
    WatchedSource(Still(clock), WatchConfig(), clock, Outbox(queue.Queue()), memory, PrivacyMasks(left))
    kept = memory.load(60)
    assert kept is not None
    assert (kept[:, :80].max(), kept[:, 90:].min()) == (0, 200)


async def test_the_reference_picture_of_a_camera_with_face_redaction_is_deleted_and_not_saved(tmp_path: Path) -> None:
    view = tmp_path / "a.png"
    ViewMemory(view).save(np.full((90, 160), 200, np.uint8))
    fields = {"fps": 20.0, "watch": {"relearn_s": 3600}, "options": {"frames": 10}}
    redact = {"faces": {"decoder": "haar"}}
    camera = {"name": "a", "source": "simulated:road", **fields, "redact": redact}
    process = await start_capture(CameraConfig.model_validate(camera), 1, state_folder=tmp_path)
    await process.communicate()
    assert (process.returncode, view.exists()) == (0, False)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


async def test_the_capture_of_a_frozen_stream_continues_without_withheld_frames(rig: Rig, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    clip = units.encode(tmp_path / "a.mp4", (picture for _ in range(2)), 10)
    fields = {"loop": True, "fps": 10, "gate": {"motion": False, "max_fps": 0.0}, "watch": {"frozen_s": 1.0}}
    frozen = rig.add(CameraConfig.model_validate({"name": "a", "source": str(clip), **fields}))
    async with rig.running():
        await until(lambda: frozen.status([]).state == "frozen", "the state frozen")
        await flows(frozen, 10)
    (epoch,) = rig.epochs("a").values()
    epoch.require_whole()
    assert epoch.withheld == {}


async def test_an_mjpeg_camera_is_reconnected_after_each_disconnect(rig: Rig) -> None:
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    web = WebCamera({"/": mjpeg([jpeg] * 5)})
    flapping = rig.add(CameraConfig(name="a", source=web.url("/"), gate=GateConfig(motion=False, max_fps=0.0)))
    with capture_logs() as lines:
        async with rig.running():
            await until(lambda: flapping.kept >= 15, "three rounds")
    web.stop()
    epochs = list(rig.epochs("a").values())
    for epoch in epochs:
        epoch.require_whole()
    assert [len(epoch.frames) for epoch in epochs][:3] == [5, 5, 5]
    assert [line["event"] for line in lines if "lost" in line["event"]] == ["camera_lost"]
    assert "the camera ended the stream" in next(line["reason"] for line in lines if line["event"] == "camera_lost")


async def test_a_capture_with_an_empty_or_slow_source_stops_cleanly(rig: Rig, tmp_path: Path) -> None:
    """An empty folder delivers no frame, and a slow source delivers one an hour. Neither source counts as hung."""
    folder = tmp_path / "in"
    folder.mkdir()
    rig.add(CameraConfig(name="empty", source=f"images:{folder}"))
    rig.add(CameraConfig(name="slow", source="simulated:road", fps=1 / 3600, width=160, height=90))
    async with rig.running():
        for name in rig.cameras:
            await until(lambda name=name: rig.cameras[name].state == "running", f"a start of {name}")  # type: ignore[misc]
    ends = [epoch.end for name in rig.cameras for epoch in rig.epochs(name).values()]
    assert [end.clean for end in ends if end] == [True, True]


async def test_a_capture_whose_camera_sends_no_data_stops_by_itself_before_it_would_be_killed(rig: Rig) -> None:
    """The child must exit by itself and account for all frames. A kill would lose the last frame numbers."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    parts, left = mjpeg([cv2.imencode(".jpg", noise)[1].tobytes()] * 10), threading.Event()

    def then_nothing(handler: BaseHTTPRequestHandler) -> None:
        parts(handler)
        handler.wfile.flush()
        left.wait(60)

    web = WebCamera({"/": then_nothing})
    keep_all = GateConfig(motion=False, max_fps=0.0, open_fps=0.0)
    slow = rig.add(CameraConfig(name="a", source=web.url("/"), watch=WatchConfig(stall_s=3600), gate=keep_all))
    async with rig.running():
        await until(lambda: slow.kept == 10, "all frames of the camera")
        started_s = time.monotonic()
    assert time.monotonic() - started_s < STOP_CHILD_S
    left.set()
    web.stop()
    (epoch,) = rig.epochs("a").values()
    epoch.require_whole()
    assert epoch.end is not None
    assert (epoch.end.clean, epoch.end.last) == (True, 9)
