"""Tests of damaged records in the stream, and of their replay from the dead letters.

The ledger must balance throughout.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.local.supervisor import ServiceSpec, Supervisor
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LIVE, FrameId
from ingest.contract.records import Frame, Heartbeat
from ingest.contract.topics import FRAMES, STATUS
from ingest.deadletter import letters, replay
from ingest.exceptions import CodecError
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime.clock import Deadline
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.store import publish
from tests.paths import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(480)]

Start = Callable[..., Awaitable[Supervisor]]
MODELS = ROOT / "engines" / "models"
FRAMES_SENT = 200
EPOCH = 1_700_000_000
CAMERA = CameraConfig(name="road", source="simulated:road")
PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64, regions="full", denoise="none")


def good(seq: int, scene: SimulatedScene) -> bytes:
    image = scene.render(seq).image
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    frame = Frame(camera="road", epoch=EPOCH, seq=seq, captured_ns=seq, width=640, height=360, image=jpeg)
    return encode(frame)


def garbage(seq: int, whole: bytes) -> bytes:
    """Return a damaged frame. The kind of damage depends on ``seq``."""
    frame = decode(Frame, whole)
    noise = np.random.default_rng(seq).bytes(5000)
    return (
        whole[: len(whole) // 2],
        noise,
        encode(frame.model_copy(update={"image": noise})),
        encode(frame.model_copy(update={"image": frame.image[: len(frame.image) // 2]})),
        encode(frame.model_copy(update={"width": 641})),
        b"",
        whole.replace(b"\xa1v\x92" + bytes(Frame.VERSION), b"\xa1v\x92\x09\x00"),
    )[seq % 7]


@pytest.fixture
async def log(kafka: str, prefix: str) -> AsyncIterator[KafkaLog]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=2)
    async with KafkaLog(settings, "test") as opened:
        yield opened


@pytest.fixture
async def stack(log: KafkaLog, tmp_path: Path) -> AsyncIterator[Start]:
    """Yield a function that starts a service by name and waits for its first running heartbeat."""
    supervisor = Supervisor([], tmp_path / "logs")

    async def start(name: str, *argv: str) -> Supervisor:
        command = [sys.executable, "-m", "deploy.cli.app", *argv]
        await supervisor.add(ServiceSpec(name, command, log.settings.to_env()))
        await until_running(log, name)
        return supervisor

    yield start
    await supervisor.stop()


async def until_running(log: KafkaLog, name: str) -> None:
    deadline, position = Deadline.after(60), 0
    while not deadline.passed:
        end = (await log.ends(STATUS))[0]
        async for record in log.read(STATUS, 0, position, end):
            with suppress(CodecError):
                beat = decode(Heartbeat, record.value)
                if (beat.service, beat.state) == (name, "running"):
                    return
        position = end
        await asyncio.sleep(0.2)
    pytest.fail(f"{name} does not run")


async def send(log: KafkaLog, values: list[bytes]) -> None:
    for seq, value in enumerate(values):
        headers = h.frame_headers([FrameId("road", EPOCH, seq)], LIVE)
        await log.produce(Outgoing(FRAMES, 0, value, key=b"road", headers=headers))


async def test_damaged_frames_become_dead_letters_and_all_other_frames_are_classified(
    log: KafkaLog, stack: Start
) -> None:
    await publish(log, [CAMERA, PIPELINE])
    await stack("engine", "engine", f"--models={MODELS}")
    await stack("prepare-live", "prepare", "--lane=live")
    scene = SimulatedScene(SceneConfig("road"))
    bad = set(range(3, FRAMES_SENT, 20))  # every twentieth frame is damaged
    wholes = [good(seq, scene) for seq in range(FRAMES_SENT)]
    values = [garbage(seq, whole) if seq in bad else whole for seq, whole in enumerate(wholes)]
    await send(log, values)
    await log.produce(Outgoing(FRAMES, 1, b"\x00 not a frame"))
    balance = await audit(log, wait_s=60)
    totals = balance.totals
    assert balance.balanced, totals.to_dict()
    assert (totals.captured, totals.dead, totals.classified) == (FRAMES_SENT, len(bad), FRAMES_SENT - len(bad))
    parked = {letter.frames[0].seq: letter async for letter in letters(log) if letter.frames}
    assert set(parked) == bad
    for seq, letter in parked.items():
        assert letter.record.value == values[seq]
        assert letter.failure.stage.startswith("prepare")
        assert letter.failure.error
        assert letter.failure.message
    assert len({letter.failure.error for letter in parked.values()}) >= 4

    report = await replay(log, "once-more")  # damaged frames fail again and are counted once
    assert report.sent == len(bad) + 1
    again = await audit(log, wait_s=60)
    assert again.balanced, again.totals.to_dict()
    assert (again.totals.dead, again.totals.classified) == (totals.dead, totals.classified)


async def test_replayed_frames_are_classified_by_a_node_that_has_the_model(
    log: KafkaLog, stack: Start, tmp_path: Path
) -> None:
    """An engine node parks frames of a pipeline whose model it lacks. A node with the model classifies the replay."""
    await publish(log, [CAMERA])
    (tmp_path / "no-models").mkdir()
    await stack("engine", "engine", f"--models={tmp_path / 'no-models'}")
    await publish(log, [PIPELINE])
    supervisor = await stack("prepare-live", "prepare", "--lane=live")
    scene = SimulatedScene(SceneConfig("road"))
    await send(log, [good(seq, scene) for seq in range(40)])
    before = await audit(log, wait_s=60)
    assert before.balanced, before.totals.to_dict()
    assert (before.totals.dead, before.totals.classified) == (40, 0)
    await supervisor.stop_one("engine")
    await restart_engine(supervisor, log)
    assert (await replay(log, "now-it-knows")).sent == 40
    deadline = Deadline.after(60)
    while (after := await audit(log, wait_s=0)).totals.classified < 40 and not deadline.passed:
        await asyncio.sleep(0.3)
    assert after.balanced, after.totals.to_dict()
    assert (after.totals.dead, after.totals.classified, after.totals.duplicates) == (0, 40, 0)
    skipped = await replay(log, "a-second-time")
    assert (skipped.sent, skipped.skipped) == (0, {"replayed already": 40})


async def restart_engine(supervisor: Supervisor, log: KafkaLog) -> None:
    argv = [sys.executable, "-m", "deploy.cli.app", "engine", f"--models={MODELS}"]
    await supervisor.add(ServiceSpec("engine-again", argv, log.settings.to_env()))
