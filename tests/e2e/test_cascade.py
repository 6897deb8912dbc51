"""A cascade on a real clip: a detector finds people, and a second model names the colour of their clothes for a rule.

The frames pass through prepare, the models of an engine node, and analyse, on a log in memory.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import tomli_w
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry

from engines import backends
from engines.metrics import NodeMetrics
from engines.node.jobs import HighWaterMarks, accept, results
from engines.node.pipelines import LiveModels
from engines.node.scheduler import MergedBatch
from engines.node.serving import RepositorySource
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.manifest import InputSpec, Manifest, sha256_of
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, decode_json, encode
from ingest.contract.records import Event, Frame, Result
from ingest.contract.topics import BATCHES, EVENTS, FRAMES, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, PipelineConfig, SecondModelConfig
from ingest.site.topic.view import Config
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.prepare.stage import PrepareStage
from stream.runner.memory import MemoryRunner

CLIP = "one-by-one-person-detection.mp4"
FPS = 10.0
EVERY = 4
VISITS = range(100, 188), range(270, 320)
"""Frames of the clip in which a woman in grey, and then a man in black, stand at a table."""
COLOURS = {"black": (30, 30, 30), "grey": (150, 150, 150), "red": (40, 40, 200), "blue": (180, 80, 40)}
"""Clothes in blue, green and red, 0 to 255."""

PEOPLE = PipelineConfig(
    name="people",
    model="yolox-nano",
    width=416,
    height=416,
    fit="letterbox",
    then=(SecondModelConfig(name="clothes", model="clothes@1", on=("person",), min_score=0.4, min_pixels=64),),
)
ANYONE = ZoneRule(
    name="anyone",
    camera="c",
    pipeline="people",
    labels=("person",),
    polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
    dwell_s=2.0,
)
IN_GREY = ANYONE.model_copy(update={"name": "in-grey", "attributes": {"clothes": ("grey",)}})


def add_clothes_model(root: Path) -> None:
    """Store a classifier of the nearest of ``COLOURS`` to the mean colour of an upper body."""
    centres = np.array(list(COLOURS.values()), np.float32)
    scale = np.float32(1 / 2000)
    tensors = {
        "starts": np.array([18, 10], np.int64),
        "ends": np.array([30, 22], np.int64),
        "axes": np.array([1, 2], np.int64),
        "weights": 2 * centres.T * scale,
        "bias": -(centres**2).sum(axis=1) * scale,
    }
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["body"]),
        helper.make_node("Cast", ["body"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "clothes",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ("N", 64, 32, 3))],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("N", len(COLOURS)))],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    folder = root / "clothes" / "1"
    folder.mkdir(parents=True)
    file = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    manifest = Manifest(
        name="clothes",
        version=1,
        file=file.name,
        sha256=sha256_of(file),
        decoder="softmax",
        labels=tuple(COLOURS),
        max_batch=8,
        input=InputSpec(name="images", width=32, height=64),
    )
    (folder / "model.toml").write_text(tomli_w.dumps(manifest.model_dump()))


def frames_of(path: Path) -> Iterator[Frame]:
    """Yield frames of both visits as an agent would send them."""
    video, wanted = cv2.VideoCapture(str(path)), {n for visit in VISITS for n in visit[::EVERY]}
    for index in range(max(wanted) + 1):
        assert video.grab(), f"{path} ends at frame {index}"
        if index not in wanted:
            continue
        image = video.retrieve()[1]
        yield Frame(
            camera="c",
            epoch=1,
            seq=index,
            captured_ns=10**18 + round(index / FPS * 1e9),
            width=image.shape[1],
            height=image.shape[0],
            image=cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(),
        )
    video.release()


async def classified(log: MemoryLog, models: Path) -> list[Result]:
    """Classify all batches of the log, write the results, and return them."""
    source = RepositorySource(Repository(models), lambda _: backends.make("onnxruntime"))
    live = LiveModels(source, NodeMetrics(CollectorRegistry()), lambda: 0.0)
    live.want([PEOPLE])
    await live.update()
    marks, written = HighWaterMarks(), []
    async for record in log.read(BATCHES, 0, 0, (await log.ends(BATCHES))[0]):
        job = accept(record, marks, live.names)
        async with live.use(job.pipeline) as models_of_pipeline:
            batch = MergedBatch(job.pipeline, list(job.tasks.values()), [job])
            await asyncio.to_thread(models_of_pipeline.classify, batch)
        for outgoing in results(job, 10**18):
            assert outgoing.topic == RESULTS
            await log.produce(outgoing)
            written.append(decode(Result, outgoing.value))
    await live.close()
    return written


@pytest.mark.e2e
async def test_a_second_model_finds_the_clothing_colours_of_two_people_and_a_rule_selects_the_person_in_grey(
    shared_data: Path, tmp_path: Path
) -> None:
    adopt(shared_data / "yolox-nano.onnx", Repository(tmp_path), AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    add_clothes_model(tmp_path)
    clock, log = ManualClock(), MemoryLog(1)
    entries = (PEOPLE, CameraConfig(name="c", source="device:0"), ANYONE, IN_GREY)
    config = Config({entry.key: entry for entry in entries})
    for frame in frames_of(shared_data / CLIP):
        await log.produce(Outgoing(FRAMES, 0, encode(frame), key=b"c", headers=h.frame_headers([frame.id], "live")))
    prepare = MemoryRunner(PrepareStage("live", config, clock), log, clock)
    await prepare.run()
    await prepare.advance(1.0)

    written = await classified(log, tmp_path)

    found: Counter[tuple[str, str]] = Counter()
    for result in written:
        visitor = "woman in grey" if result.seq in VISITS[0] else "man in black"
        for one in result.detections:
            assert bool(one.attributes) == (one.label == "person")
            found.update((visitor, each.label or each.missing) for each in one.attributes)
    assert found["woman in grey", "grey"] > 15
    assert found["man in black", "black"] > 8
    assert len(found) == 2

    await MemoryRunner(AnalyseStage(config, 1), log, clock).run()
    events = [decode_json(Event, one.value) async for one in log.read(EVENTS, 0, 0, (await log.ends(EVENTS))[0])]
    reported = [(one.data.rule, one.data.details["attributes.clothes"]) for one in events]
    assert reported == [("anyone", "grey"), ("in-grey", "grey"), ("anyone", "black")]
