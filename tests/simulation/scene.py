"""The records that the agents of a simulation send, made from its plan. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import (
    GOOD,
    Box,
    Detection,
    EpochEnd,
    Frame,
    Heartbeat,
    Readings,
    SensorLedger,
    WithheldInterval,
)
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS, partition_for
from ingest.kafka.log import Outgoing
from tests.simulation.plan import CameraPlan, Plan, SensorPlan, Visit

WIDTH, HEIGHT = 128, 72
OBJECT = (24.0, 16.0)
"""Width and height of an object in pixels."""
SENT_AFTER_S = 0.2
"""Time in seconds from the capture of a frame until its record is in the log."""
MAX_DELAY_S = 2.0
"""Maximum time in seconds that a reading waits at the agent for further readings."""
SEND_S = 0.1
HOT, COOL = 80.0, 20.0
EPOCH = 10


@cache
def picture() -> bytes:
    """Return an encoded picture."""
    return cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()


@dataclass(frozen=True)
class Sent:
    """A record that an agent sends at ``at_s``, seconds after the start."""

    at_s: float
    record: Outgoing


@dataclass(frozen=True)
class Inputs:
    """All records of the agents in the order of their times, and the objects in each frame.

    ``failing`` has the frames that make the model fail.
    """

    sent: tuple[Sent, ...]
    objects: dict[FrameId, tuple[Detection, ...]]
    failing: frozenset[FrameId]
    unreadable: frozenset[FrameId]


def make_inputs(plan: Plan, partitions: int, started_ns: int) -> Inputs:
    """Return the records of a plan. The clocks of the cameras begin at ``started_ns``."""
    sent: list[Sent] = []
    objects: dict[FrameId, tuple[Detection, ...]] = {}
    failing, unreadable = set[FrameId](), set[FrameId]()
    for camera in plan.cameras:
        for one in _frames(camera, partitions, started_ns):
            sent.append(one.sent)
            objects[one.id] = one.objects
            if one.failing:
                failing.add(one.id)
            if one.unreadable:
                unreadable.add(one.id)
    for sensor in plan.sensors:
        sent += _readings(sensor, partitions, started_ns, plan.scenes)
    sent.sort(key=lambda one: one.at_s)
    sent.append(_ends(sent))
    return Inputs(tuple(sent), objects, frozenset(failing), frozenset(unreadable))


@dataclass(frozen=True)
class _SimulatedFrame:
    id: FrameId
    sent: Sent
    objects: tuple[Detection, ...]
    failing: bool
    unreadable: bool


def _frames(camera: CameraPlan, partitions: int, started_ns: int) -> Iterator[_SimulatedFrame]:
    epoch, seq, clock_s, backlog_s = EPOCH, 0, camera.ahead_s, 0.0
    for visit in camera.visits:
        if visit.restart:
            epoch, seq = epoch + 1, 0
        clock_s += visit.clock_step_s
        for number in range(visit.frames):
            at_s = visit.begin_s + number * visit.step_s
            withheld = visit.still if number == 0 else 0
            frame = Frame(
                camera=camera.name,
                epoch=epoch,
                seq=seq + withheld,
                captured_ns=started_ns + round((at_s + clock_s) * 1e9),
                width=WIDTH,
                height=HEIGHT,
                image=picture(),
                account=_withheld(camera.name, epoch, seq, withheld),
            )
            sent_s = at_s + SENT_AFTER_S
            if visit.late_s:  # the backlog is sent in order, once the link is back
                back_s = visit.begin_s + visit.frames * visit.step_s + visit.late_s
                sent_s = backlog_s = max(back_s, backlog_s) + 0.01
            record = _outgoing(frame, bool(visit.late_s), partitions)
            if number == visit.unreadable:
                record = replace(record, value=record.value[: len(record.value) // 2])
            yield _SimulatedFrame(
                frame.id,
                Sent(sent_s, record),
                tuple(_objects(visit, number)),
                number == visit.failing,
                number == visit.unreadable,
            )
            seq = frame.seq + 1


def _withheld(camera: str, epoch: int, seq: int, count: int) -> WithheldInterval | None:
    if not count:
        return None
    return WithheldInterval(camera=camera, epoch=epoch, first=seq, last=seq + count - 1, counts={"still": count})


def _outgoing(frame: Frame, late: bool, partitions: int) -> Outgoing:
    headers = h.frame_headers([frame.id], LATE if late else LIVE)
    if frame.account:
        headers[h.ACCOUNT] = h.account_text(frame.account).encode()
    topic, partition = FRAMES_LATE if late else FRAMES, partition_for(frame.camera, partitions)
    return Outgoing(topic, partition, encode(frame), key=frame.camera.encode(), headers=headers)


def _objects(visit: Visit, number: int) -> Iterator[Detection]:
    first = _detection(visit, number, 30.0)
    if first:
        yield first
    if visit.follower and (second := _detection(visit, number - visit.follower, 55.0)):
        yield second


def _detection(visit: Visit, number: int, y: float) -> Detection | None:
    if number < 0:
        return None
    begin, end = visit.way
    x = WIDTH * (begin + (end - begin) * number / (visit.frames - 1))
    box = Box(x - OBJECT[0] / 2, y - OBJECT[1] / 2, x + OBJECT[0] / 2, y + OBJECT[1] / 2)
    return Detection(box=box, label=visit.label, class_id=1, score=0.9)


def _readings(sensor: SensorPlan, partitions: int, started_ns: int, seed: int) -> Iterator[Sent]:
    chance, begin, epoch, base = random.Random(seed), 0, EPOCH, 0
    while begin < sensor.readings:
        if sensor.restart_at and begin == sensor.restart_at:
            epoch, base = epoch + 1, begin
        most = max(1, min(sensor.column, int(MAX_DELAY_S / sensor.period_s)))
        end = min(begin + most, sensor.readings)
        if begin < sensor.restart_at:
            end = min(end, sensor.restart_at)
        times_s = [n * sensor.period_s for n in range(begin, end)]
        readings = Readings(
            sensor=sensor.name,
            epoch=epoch,
            seq=begin - base,
            quantity="temperature",
            unit="Cel",
            times_ns=tuple(
                started_ns + round((at_s + 1.0 + chance.uniform(-sensor.jitter_s, sensor.jitter_s)) * 1e9)
                for at_s in times_s
            ),
            values=tuple(HOT if any(a <= at_s < b for a, b in sensor.hot) else COOL for at_s in times_s),
            quality=(GOOD,) * len(times_s),
        )
        record = Outgoing(READINGS, partition_for(sensor.name, partitions), encode(readings), sensor.name.encode())
        yield Sent(times_s[-1] + 1.0 + SEND_S, record)
        begin = end


def _ends(sent: list[Sent]) -> Sent:
    """Return the heartbeat that ends every epoch."""
    last: dict[tuple[str, str, int], int] = {}
    for one in sent:
        if one.record.topic == READINGS:
            readings = decode(Readings, one.record.value)
            last["sensor", readings.sensor, readings.epoch] = readings.last_seq
        else:
            (frame,) = h.frames_of(one.record.headers)
            key = "camera", frame.camera, frame.epoch
            last[key] = max(last.get(key, -1), frame.seq)
    ends = {
        kind: tuple(
            EpochEnd(camera=name, epoch=epoch, last=seq, clean=True)
            for (of, name, epoch), seq in last.items()
            if of == kind
        )
        for kind in ("camera", "sensor")
    }
    beat = Heartbeat(
        service="agent", instance="agent", at_ns=0, ended=ends["camera"], readings=SensorLedger(ended=ends["sensor"])
    )
    at_s = sent[-1].at_s + 1.0
    return Sent(at_s, Outgoing(STATUS, 0, encode(beat), key=b"agent"))
