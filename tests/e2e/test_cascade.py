"""A cascade on a real clip: a detector finds people, and a second model names the colour of their clothes for a rule.

The frames pass through prepare, the models of an engine node, and analyse, on a log in memory.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import tomli_w
from onnx import TensorProto, helper, numpy_helper

from benchmarks.analytics.chain import analysed, classified
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.manifest import InputSpec, Manifest, sha256_of
from engines.repository.store import Repository
from ingest.site import CameraConfig, SecondModelConfig
from ingest.site.topic.view import Config
from tests.e2e.visits import ANYONE, CLIP, WOMAN, frames_of, people_pipeline

COLOURS = {"black": (30, 30, 30), "grey": (150, 150, 150), "red": (40, 40, 200), "blue": (180, 80, 40)}
"""Clothes in blue, green and red, 0 to 255."""

PEOPLE = people_pipeline(
    SecondModelConfig(name="clothes", model="clothes@1", on=("person",), min_score=0.4, min_pixels=64)
)
STAYING = ANYONE.model_copy(update={"dwell_s": 2.0})
IN_GREY = STAYING.model_copy(update={"name": "in-grey", "attributes": {"clothes": ("grey",)}})


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


@pytest.mark.e2e
async def test_a_second_model_finds_the_clothing_colours_of_two_people_and_a_rule_selects_the_person_in_grey(
    shared_data: Path, tmp_path: Path
) -> None:
    adopt(shared_data / "yolox-nano.onnx", Repository(tmp_path), AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    add_clothes_model(tmp_path)
    entries = (PEOPLE, CameraConfig(name="c", source="device:0"), STAYING, IN_GREY)
    config = Config({entry.key: entry for entry in entries})

    written = await classified(list(frames_of(shared_data / CLIP)), config, tmp_path)

    found: Counter[tuple[str, str]] = Counter()
    for result in written:
        visitor = "woman in grey" if result.seq in WOMAN else "man in black"
        for one in result.detections:
            assert bool(one.attributes) == (one.label == "person")
            found.update((visitor, each.label or each.missing) for each in one.attributes)
    assert found["woman in grey", "grey"] > 15
    assert found["man in black", "black"] > 8
    assert len(found) == 2

    events = (await analysed(written, config)).events
    reported = [(one.data.rule, one.data.details["attributes.clothes"]) for one in events]
    assert reported == [("anyone", "grey"), ("in-grey", "grey"), ("anyone", "black")]
