"""Tests of `sightline gate report`: the miss rate from results and masks."""

from __future__ import annotations

from deploy.cli.tools.gate import measured
from ingest.contract.codec import encode
from ingest.contract.records import Box, Detection, FrameRef, Result
from ingest.contract.topics import RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, GateConfig
from ingest.site.topic.store import publish

LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def result(seq: int, *lefts: float, sampled: bool = False) -> bytes:
    boxes = [Box(left, 100.0, left + 40.0, 180.0) for left in lefts]
    return encode(
        Result(
            camera="yard",
            epoch=1,
            seq=seq,
            lane="live",
            pipeline="people",
            pipelines=("people",),
            captured_ns=seq,
            finished_ns=seq,
            width=640,
            height=360,
            source=FrameRef("frames", 0, seq),
            outcome="classified",
            detections=tuple(Detection(box=b, label="person", class_id=0, score=0.9) for b in boxes),
            withheld={"still" if sampled else "rate": 9},
            sampled=sampled,
        )
    )


async def test_the_gate_report_counts_missed_objects_except_those_behind_a_mask() -> None:
    log = MemoryLog(2)
    await publish(log, [CameraConfig(name="yard", source="device:0", gate=GateConfig(masks=(LEFT_HALF,)))])
    behind, beside = 100.0, 500.0
    for value in (
        result(0),
        result(10, sampled=True),
        b"garbage",
        result(20, behind, sampled=True),
        result(30, beside, sampled=True),
        result(40, beside),
        result(50, beside, sampled=True),
    ):
        await log.produce(Outgoing(RESULTS, 1, value))
    ((key, rate),) = (await measured(log)).items()
    assert key == ("yard", "people")
    assert (rate.quiet, rate.sampled, rate.missed) == (40, 4, 1)
    ((_, newest),) = (await measured(log, newest=2)).items()
    assert (newest.sampled, newest.missed) == (1, 0)
