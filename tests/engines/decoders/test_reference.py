"""Tests that compare every decoder with plain loops over single numbers, and suppression with its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.decoders.boxes import MAX_DETECTIONS, suppressed
from ingest.contract.records import Box, Fit, Inner, Region
from tests.engines.decoders import reference

WIDTH, HEIGHT = 96, 64
SIZE = (WIDTH, HEIGHT)
FACTORS = np.array([WIDTH, HEIGHT] * 2)
LABELS = ("background", "cat", "dog")
CLASSES = len(LABELS)
COUNT = 60
CELLS = 12 * 8 + 6 * 4 + 3 * 2
PRIORS = 6 * 4 * 2 + 3 * 2
ROW = FrameRegion(Region(Box(0, 0, *SIZE), Fit(1.0, 1.0, 0.0, 0.0), Inner(0, 0, *SIZE)), *SIZE)
Draw = Callable[[np.random.Generator], np.ndarray]
Arrays = dict[str, np.ndarray]
Make = Callable[[np.random.Generator], Arrays]


def boxes(random: np.random.Generator) -> np.ndarray:
    """Return corners of boxes in px, several around each of eight objects, so that many overlap."""
    objects = random.uniform((0, 0, 8, 8), (WIDTH, HEIGHT, 40, 40), (8, 4))
    centres = objects[random.integers(0, 8, COUNT)] + random.normal(0, 3, (COUNT, 4))
    half = np.abs(centres[:, 2:]) / 2 + 1
    return np.concatenate([centres[:, :2] - half, centres[:, :2] + half], axis=1)


def centred(corners: np.ndarray) -> np.ndarray:
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def scores(random: np.random.Generator, count: int = COUNT) -> np.ndarray:
    return random.uniform(0, 1, (count, CLASSES))


def raw_grid(random: np.random.Generator) -> dict[str, np.ndarray]:
    parts = random.uniform(0, 1, (CELLS, 2)), random.normal(0.5, 0.5, (CELLS, 2)), random.uniform(0, 1, (CELLS, 4))
    return {"output": np.concatenate(parts, axis=1)}


def decoded_grid(random: np.random.Generator) -> dict[str, np.ndarray]:
    sure = random.uniform(0.4, 1, (COUNT, 1))
    return {"output": np.concatenate([centred(boxes(random)), sure, scores(random)], axis=1)}


def rows(random: np.random.Generator) -> dict[str, np.ndarray]:
    parts = boxes(random), random.uniform(0, 1, (COUNT, 1)), random.integers(0, CLASSES, (COUNT, 1))
    return {"output": np.concatenate(parts, axis=1)}


def tensorflow(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "detection_boxes": (boxes(random) / FACTORS)[:, [1, 0, 3, 2]],
        "detection_classes": random.integers(0, CLASSES, COUNT),
        "detection_scores": random.uniform(0, 1, COUNT),
        "num_detections": np.array([40]),
    }


class Layout(NamedTuple):
    decoder: str
    reference: reference.Reference
    make: Make
    settings: dict[str, Any] = {}
    labels: tuple[str, ...] = LABELS
    nms: bool = True
    swapped: bool = False
    """Whether the model gives y before x. The reference gets x before y."""

    def arrays(self, random: np.random.Generator) -> tuple[Arrays, Arrays]:
        """Return the outputs for the reference, and those of the model."""
        plain = {name: np.asarray(values, np.float32) for name, values in self.make(random).items()}
        return plain, plain | ({"boxes": plain["boxes"][:, [1, 0, 3, 2]]} if self.swapped else {})

    def options(self, **more: Any) -> DecoderOptions:
        order = {"order": "top-left"} if self.swapped else {}
        return DecoderOptions(self.labels, *SIZE, settings={**self.settings, **order}, **more)


def table(make: Draw) -> Make:
    return lambda random: {"output": make(random)}


def pair(
    box: Callable[[np.random.Generator], np.ndarray], score: Callable[[np.random.Generator], np.ndarray]
) -> Make:
    return lambda random: {"scores": score(random), "boxes": box(random)}


def logits(random: np.random.Generator) -> np.ndarray:
    return random.normal(0, 2, (COUNT, CLASSES))


def centre_shares(random: np.random.Generator) -> np.ndarray:
    return centred(boxes(random)) / FACTORS


LAST = ("cat", "dog", "background")
THREE = ("cat", "dog", "fox")
LAYOUTS = {
    "yolox": Layout("yolox", reference.yolox, raw_grid, labels=THREE),
    "yolov5": Layout("yolov5", reference.yolov5, decoded_grid, labels=THREE),
    "yolov8": Layout(
        "yolov8",
        reference.yolov8,
        table(lambda r: np.concatenate([centred(boxes(r)), scores(r)], axis=1).T),
        labels=THREE,
    ),
    "corners": Layout("corners", reference.corners, pair(lambda r: boxes(r) / FACTORS, scores)),
    "corners in px": Layout("corners", reference.corners_px, pair(boxes, scores), {"unit": "px"}),
    "ssd": Layout("ssd", reference.corners, pair(lambda r: boxes(r) / FACTORS, scores)),
    "ssd centres": Layout("ssd", reference.centres, pair(centre_shares, scores), {"form": "centres"}),
    "ssd offsets": Layout(
        "ssd",
        reference.ssd_offsets,
        pair(lambda r: r.normal(0, 2, (PRIORS, 4)), lambda r: r.normal(0, 2, (PRIORS, CLASSES))),
        {"form": "offsets", "scores": "softmax", "priors": reference.PRIORS},
    ),
    "rtdetr": Layout("rtdetr", reference.rtdetr, pair(centre_shares, logits), labels=THREE, nms=False),
    "detr": Layout(
        "rtdetr", reference.detr, pair(centre_shares, logits), labels=("cat", "dog", "background"), nms=False
    ),
    "rtdetr in one output": Layout(
        "rtdetr",
        reference.rtdetr_table,
        table(lambda r: np.concatenate([centre_shares(r), scores(r)], axis=1)),
        labels=THREE,
        nms=False,
    ),
    "end2end": Layout("end2end", reference.end2end, rows, nms=False),
    "end2end of TensorFlow": Layout(
        "end2end", reference.end2end_parts, tensorflow, {"unit": "share", "order": "top-left"}, nms=False
    ),
    "end2end of TensorFlow with classes from 1": Layout(
        "end2end",
        lambda arrays, size: reference.end2end_parts(
            arrays | {"detection_classes": arrays["detection_classes"] - 1}, size
        ),
        lambda r: (t := tensorflow(r)) | {"detection_classes": t["detection_classes"] + 1},
        {"unit": "share", "order": "top-left", "first_class": 1},
        nms=False,
    ),
    "corners with y before x": Layout(
        "corners", reference.corners, pair(lambda r: boxes(r) / FACTORS, scores), swapped=True
    ),
    "ssd centres with y before x": Layout(
        "ssd", reference.centres, pair(centre_shares, scores), {"form": "centres"}, swapped=True
    ),
}


def test_every_detection_decoder_is_compared_with_a_reference_implementation() -> None:
    assert {layout.decoder for layout in LAYOUTS.values()} == set(decoders.known()) - decoders.SECOND_STAGE


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_decoder_agrees_with_a_reference_implementation_in_plain_loops(
    name: str, seed: int, across: bool
) -> None:
    layout = LAYOUTS[name]
    arrays, outputs = layout.arrays(np.random.default_rng(seed))
    decoder = decoders.make(layout.decoder, layout.options(across_classes=across))
    (found,) = decoder.decode({n: v[None] for n, v in outputs.items()}, [ROW])
    expected = reference.finish(layout.reference(arrays, SIZE), layout.labels, SIZE, nms=layout.nms, across=across)
    assert len(expected) > 3
    assert [d.class_id for d in found] == [index for _, index, _ in expected]
    assert [d.label for d in found] == [layout.labels[index] for _, index, _ in expected]
    np.testing.assert_allclose([d.score for d in found], [score for _, _, score in expected], rtol=1e-5)
    np.testing.assert_allclose([d.box for d in found], [box for box, _, _ in expected], atol=1e-3)


def test_each_decoder_accepts_model_outputs_of_its_layout() -> None:
    for layout in LAYOUTS.values():
        _, outputs = layout.arrays(np.random.default_rng(0))
        arrays = {name: values[None] for name, values in outputs.items()}
        assert decoders.refusal(decoders.make(layout.decoder, layout.options()), arrays, [ROW]) == ""


SIDE = st.integers(0, 12)
BOX = st.tuples(SIDE, SIDE, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
THING = st.tuples(BOX, st.integers(0, 2), st.sampled_from([0.3, 0.5, 0.5, 0.75, 1.0]))
LIMITS = st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0])


def keep(things: list[tuple[Any, int, float]], limit: float, across: bool) -> list[int]:
    corners = np.array([thing[0] for thing in things], np.float32).reshape(-1, 4)
    classes = np.array([thing[1] for thing in things], np.intp)
    return suppressed(corners, np.array([thing[2] for thing in things], np.float32), classes, limit, across)


@given(things=st.lists(THING, max_size=30), limit=LIMITS, across=st.booleans())
def test_non_maximum_suppression_drops_only_boxes_that_overlap_a_better_kept_box(
    things: list[tuple[Any, int, float]], limit: float, across: bool
) -> None:
    kept = keep(things, limit, across)
    assert len(set(kept)) == len(kept)
    rivals = {i: [k for k in kept if k != i and (across or things[k][1] == things[i][1])] for i in range(len(things))}
    for i, others in rivals.items():
        overlaps = [k for k in others if reference.iou(things[i][0], things[k][0]) > limit]
        if i in kept:
            assert overlaps == []
        else:
            assert any(things[k][2] >= things[i][2] for k in overlaps)


@given(data=st.data(), things=st.lists(THING, max_size=20), limit=LIMITS, across=st.booleans())
def test_non_maximum_suppression_does_not_depend_on_the_order_of_the_boxes(
    data: st.DataObject, things: list[tuple[Any, int, float]], limit: float, across: bool
) -> None:
    shuffled = data.draw(st.permutations(things))
    once = [things[i] for i in keep(things, limit, across)]
    assert [shuffled[i] for i in keep(shuffled, limit, across)] == once
    assert once == reference.greedy([(box, index, score) for box, index, score in things], limit, across)
    assert [once[i] for i in keep(once, limit, across)] == once


def test_non_maximum_suppression_keeps_a_bounded_number_of_boxes() -> None:
    corners = np.array([(10 * i, 0, 10 * i + 5, 5) for i in range(400)], np.float32)
    kept = suppressed(corners, np.linspace(0.5, 1, 400, dtype=np.float32), np.zeros(400, np.intp), 0.45)
    assert kept == [399 - i for i in range(MAX_DETECTIONS)]
