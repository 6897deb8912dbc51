"""A filmed scene with an alert, from which the evidence stage makes a clip, without Kafka."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import av
import cv2
import numpy as np

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, ClipRequest, EvidenceRecord, Frame, FrameRef
from ingest.contract.topics import ALERTS, EVIDENCE, FRAMES
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock, SystemClock
from stream.alerts.alert import make_alert
from stream.evidence.clip.window import SETTLE_S
from stream.evidence.stage import EvidenceProcessor, EvidenceStage
from stream.evidence.store import MemoryStore
from tests.stream.alerts.test_alerts import event

SECOND = 10**9
SIZE = (160, 90)


def jpeg(level: int, size: tuple[int, int] = SIZE) -> bytes:
    return cv2.imencode(".jpg", np.full((size[1], size[0], 3), level, np.uint8))[1].tobytes()


def frame(seq: int, captured_ns: int, *, camera: str = "road", image: bytes | None = None, **more: object) -> Frame:
    """Return a frame whose grey level is twice its number."""
    size = {"width": SIZE[0], "height": SIZE[1]}
    picture = image or jpeg(2 * seq)
    return Frame(camera=camera, epoch=7, seq=seq, captured_ns=captured_ns, image=picture, **{**size, **more})


def decoded(clip: bytes) -> list[tuple[int, int]]:
    """Return the time in ms and the grey level of each frame of a clip."""
    with av.open(io.BytesIO(clip)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.time_base is not None
        return [
            (round(float(one.pts * stream.time_base) * 1000), int(one.to_ndarray(format="bgr24").mean()))
            for one in container.decode(stream)
        ]


@dataclass
class Scene:
    """A camera with 5 frames/s in a log, and an alert with frame number 50, which requests a clip."""

    clock: ManualClock | SystemClock = field(default_factory=ManualClock)
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.log = MemoryLog(partitions=1, clock=self.clock)
        self.refs: dict[int, FrameRef] = {}
        self.start_ns = self.clock.now_ns()

    def captured_ns(self, seq: int) -> int:
        return self.start_ns + seq * SECOND // 5

    async def film(self, seqs: Iterable[int], **more: object) -> None:
        """Write frames of the camera and of another one, each 100 ms after its capture."""
        for seq in seqs:
            self.clock.seconds = seq / 5 + 0.1
            for camera in ("road", "yard"):
                own = frame(seq, self.captured_ns(seq), camera=camera, **(more if camera == "road" else {}))
                position = await self.log.produce(
                    Outgoing(FRAMES, 0, encode(own), camera.encode(), h.frame_headers([own.id], LIVE))
                )
                if camera == "road":
                    self.refs[seq] = FrameRef(FRAMES, *position)

    async def alert(self, *, boxes: bool = False, missing: str = "", seq: int = 50) -> LogRecord:
        clip = ClipRequest(before_s=2.0, after_s=3.0, boxes=boxes)
        one = event(frame=self.refs[seq], seq=seq)
        data = one.data.model_copy(update={"clip": clip, "captured_ns": self.captured_ns(seq)})
        alert = make_alert(one.model_copy(update={"data": data}), (), missing)
        return await self.write(alert)

    async def write(self, alert: Alert) -> LogRecord:
        position = await self.log.produce(Outgoing(ALERTS, 0, encode_json(alert)))
        async for record in self.log.read(ALERTS, 0, position.offset, position.offset + 1):
            return record
        raise AssertionError

    async def open(self) -> EvidenceProcessor:
        return await EvidenceStage(self.store, self.clock).open(TopicPartition(ALERTS, 0), 0, self.log)

    async def made(self, record: LogRecord) -> tuple[EvidenceRecord, Outgoing]:
        """Process an alert when its clip is due, and return the record of its evidence."""
        processor = await self.open()
        assert await asyncio.to_thread(processor.process, record) == ()
        self.clock.seconds += 3.0 + SETTLE_S
        (work,) = await asyncio.to_thread(processor.tick)
        assert work.done == (record.offset,)
        (out,) = work.records
        assert out.topic == EVIDENCE
        return decode_json(EvidenceRecord, out.value), out

    def contents(self, name: str) -> bytes:
        with self.store.open(name) as stream:
            return stream.read()
