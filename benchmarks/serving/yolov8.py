"""Add a model in the output layout of YOLOv8 by one command, serve it, and check each detection on the shared clips.

``python -m benchmarks.serving.yolov8`` needs ``yolox-nano.onnx`` and the clips of ``shared/data``. Ultralytics'
YOLOv8 weights have the licence AGPL-3.0, so the project cannot ship them. This program instead converts YOLOX-nano to
the interface of a YOLOv8 export: the input ``images`` takes RGB pixels from 0 to 1, the output ``output0`` is ``(1, 4
+ classes, cells)`` with centres and sizes in px and class scores, and the metadata have Ultralytics' keys.

`sightline models add` then gets the converted file and a name, and nothing else. A prepare stage and an engine node
serve the model, and the frames pass through Kafka as in `sightline classify`. The run fails if the command had to
assume a setting, if a frame has no result, if a clip has no detection, or if the served detections differ from those
that the decoder ``yolox`` reads from the original model. The frames with the served boxes are written to
``--pictures``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import onnx
import onnx.version_converter
import typer
from onnx import TensorProto, helper, numpy_helper

from benchmarks.pipeline import until, video_frames
from benchmarks.report import DATA, ROOT, KeepIt, conclude, log_progress
from deploy.classify.session import Answer, classify
from deploy.local.demo.watch import watching
from deploy.local.kafka.broker import Broker
from deploy.local.modeltest import drawn_pictures, pipeline_of, read_picture
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import Supervisor
from engines.decoders.yolox import STRIDES
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract.records import Detection
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from ingest.site.topic.store import publish
from stream.alerts.pictures import draw_box

_OPSET = 13
"""Operator set version (opset) of the converted model. Older versions of Split take the lengths as an attribute."""
CLIPS = ("car-detection.mp4", "one-by-one-person-detection.mp4")
NAME = "street"
PICTURES = ROOT / ".sightline" / "yolov8"
SERVICES = ("prepare-live", "engine")
MIN_IOU = 0.85
"""Minimum intersection over union of a served box and the box that the original model finds."""
CERTAIN = 0.15
"""A box whose score exceeds the minimum score by ``CERTAIN`` must be found by both models. The served frames were
encoded as JPEG once more, so that a box with a lower score may be found by only one of both."""
WAIT_S = 120.0


def converted(source: Path, target: Path, labels: Sequence[str] = COCO_LABELS) -> Path:
    """Write a YOLOX model with a raw grid as a model with the interface of a YOLOv8 export. Return ``target``."""
    model = onnx.version_converter.convert_version(onnx.load(str(source)), _OPSET)
    graph = model.graph
    height, width = (int(dim.dim_value) for dim in graph.input[0].type.tensor_type.shape.dim[2:])
    raw = graph.output[0].name
    grid = [
        (column, row, stride)
        for stride in STRIDES
        for row in range(height // stride)
        for column in range(width // stride)
    ]
    cells = np.array(grid, np.float32)
    constants: Mapping[str, np.ndarray] = {
        "v8_cells": cells[None, :, :2],
        "v8_strides": cells[None, :, 2:],
        "v8_parts": np.array([2, 2, 1, len(labels)], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    after = [
        helper.make_node("Split", [raw, "v8_parts"], ["v8_shift", "v8_log_size", "v8_object", "v8_class"], axis=2),
        helper.make_node("Add", ["v8_shift", "v8_cells"], ["v8_place"]),
        helper.make_node("Mul", ["v8_place", "v8_strides"], ["v8_centre"]),
        helper.make_node("Exp", ["v8_log_size"], ["v8_relative"]),
        helper.make_node("Mul", ["v8_relative", "v8_strides"], ["v8_size"]),
        helper.make_node("Mul", ["v8_object", "v8_class"], ["v8_scores"]),
        helper.make_node("Concat", ["v8_centre", "v8_size", "v8_scores"], ["v8_table"], axis=2),
        helper.make_node("Transpose", ["v8_table"], ["output0"], perm=[0, 2, 1]),
    ]
    graph.node.extend(after)
    _take_rgb(graph)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 4 + len(labels), len(grid))))
    names = dict(enumerate(labels))
    for key, value in {"names": names, "stride": max(STRIDES), "imgsz": [height, width], "task": "detect"}.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(model)
    onnx.save(model, str(target))
    return target


def _take_rgb(graph: Any) -> None:
    """Change the first convolution of a graph from BGR pixels of 0 to 255 to RGB pixels of 0 to 1.

    In YOLOX, each input channel of this convolution is one of the three colours at one of four places.
    """
    first = next(node for node in graph.node if node.op_type == "Conv")
    (stored,) = (tensor for tensor in graph.initializer if tensor.name == first.input[1])
    weights = numpy_helper.to_array(stored)
    outputs, inputs, *kernel = weights.shape
    by_colour = weights.reshape(outputs, inputs // 3, 3, *kernel)[:, :, ::-1] * np.float32(255)
    stored.CopyFrom(numpy_helper.from_array(by_colour.reshape(weights.shape), stored.name))


def written_frames(folder: Path, per_clip: int) -> list[Path]:
    """Write frames of the shared clips, evenly spaced, as PNG files into ``folder``. Return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for clip in CLIPS:
        images = list(video_frames(DATA / clip))
        for number in np.linspace(0, len(images) - 1, per_clip).astype(int):
            paths.append(folder / f"{Path(clip).stem}-{number:04}.png")
            cv2.imwrite(str(paths[-1]), images[number])
    return paths


def added(file: Path, models: Path) -> dict[str, Any]:
    """Add a model by `sightline models add`, with its name as the only option. Return the command's report."""
    words = ["models", "add", str(file), NAME, f"--models={models}", "--json"]
    command = [sys.executable, "-m", "deploy.cli.app", *words]
    report: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return report


async def served(model: Model, models: Path, frames: Sequence[Path], broker: Broker, logs: Path) -> list[Answer]:
    """Serve a model with a prepare stage and an engine node, and return the answer for each frame."""
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="yolov8.")
    await topicadmin.create(settings, partitions=1)
    specs = [spec for spec in services(StackFiles(logs), settings, models, 0) if spec.name in SERVICES]
    answers: list[Answer] = []
    async with KafkaLog(settings, "yolov8") as log:
        await publish(log, [pipeline_of(model.manifest).model_copy(update={"denoise": "none"})])
        async with watching(settings) as figures, Supervisor(specs, logs):
            await until(lambda: figures.running >= set(SERVICES))
            await classify(log, frames, NAME, timeout_s=WAIT_S, on_answer=answers.append)
    return answers


def drawn(answer: Answer, folder: Path) -> None:
    """Write the frame of an answer with its served boxes into ``folder``."""
    image = read_picture(answer.picture)
    for detection in detections_of(answer):
        draw_box(image, detection.box, f"{detection.label} {detection.score:.2f}")
    cv2.imwrite(str(folder / f"{answer.picture.stem}.jpg"), image)


def detections_of(answer: Answer) -> Sequence[Detection]:
    """Return the served detections of a frame; none for a frame without a result."""
    return answer.result.detections if answer.result else ()


def missed(wanted: Sequence[Detection], found: Sequence[Detection], min_score: float) -> list[Detection]:
    """Return the detections of ``wanted`` that ``found`` lacks, except those near the minimum score."""
    return [
        one
        for one in wanted
        if one.score >= min_score + CERTAIN
        and not any(other.label == one.label and other.box.iou(one.box) >= MIN_IOU for other in found)
    ]


def judge(report: Mapping[str, Any], answers: Sequence[Answer], differences: Sequence[str]) -> list[str]:
    """Return the failed checks of a run: settings, results, and differences from the original model."""
    faults = []
    (decoder,) = (one["value"] for one in report["settings"] if one["key"] == "decoder")
    if decoder != "yolov8" or report["assumed"]:
        faults.append(f"decoder {decoder}, assumed {report['assumed']}: expected yolov8 and nothing assumed")
    if missing := [answer.picture.name for answer in answers if answer.outcome != "classified"]:
        faults.append(f"no result for {', '.join(missing)}")
    seen = {answer.picture.name.rpartition("-")[0] for answer in answers if detections_of(answer)}
    faults += [f"no object in {clip}" for clip in CLIPS if Path(clip).stem not in seen]
    return [*faults, *differences]


def main(
    per_clip: Annotated[int, typer.Option(min=1, help="Frames of each clip.")] = 20,
    pictures: Annotated[Path, typer.Option(help="Folder for the frames with boxes.")] = PICTURES,
    keep_it: KeepIt = False,
) -> None:
    """Add, serve and check a model in YOLOv8's layout, and print the report. Exit with 1 if a check failed."""
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), DATA / "yolox-nano.onnx"
        models, frames = folder / "models", written_frames(folder / "frames", per_clip)
        report = added(converted(source, folder / "export.onnx"), models)
        log_progress(f"added as {report['model']}, assumed: {report['assumed'] or 'nothing'}")
        original = adopt(source, Repository(folder / "original"), AdoptOptions("original", "yolox", COCO_LABELS))
        model = Repository(models).open(NAME, 1)
        Repository(models).promote(NAME, 1)
        with Broker(folder=folder / "kafka") as broker:
            answers = eventloop.run(served(model, models, frames, broker, folder / "logs"))
        answers.sort(key=lambda answer: answer.picture)
        min_score = pipeline_of(model.manifest).min_score
        expected = [
            one.detections
            for one in drawn_pictures(original, sorted(frames), folder / "drawn", min_score, "onnxruntime")
        ]
        pictures.mkdir(parents=True, exist_ok=True)
        for answer in answers:
            drawn(answer, pictures)
    differences = []
    for answer, wanted in zip(answers, expected, strict=True):
        found = detections_of(answer)
        wrong = [*missed(wanted, found, min_score), *missed(found, wanted, min_score)]
        differences += [
            f"{answer.picture.name}: {one.label} {one.score:.2f} found by one model only" for one in wrong
        ]
    figures = {
        "settings": {one["key"]: one["source"] for one in report["settings"]},
        "frames": len(frames),
        "objects": sum(len(detections_of(answer)) for answer in answers),
        "objects_of_the_original": sum(map(len, expected)),
        "certain_objects": sum(one.score >= min_score + CERTAIN for found in expected for one in found),
    }
    conclude("yolov8", figures, judge(report, answers, differences), keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
