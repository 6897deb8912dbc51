"""Tests of the decoders that are proposed for output shapes."""

from __future__ import annotations

import pytest

from engines.decoders.propose import Shape, propose

SIZE = (640, 640)


@pytest.mark.parametrize(
    ("outputs", "labels", "expected", "classes"),
    [
        ({"p": (1, 1000)}, None, ["softmax", "sigmoid"], 1000),
        ({"p": (None, 1)}, None, ["sigmoid"], 1),
        ({"p": (None,)}, 1, ["sigmoid"], 1),
        ({"p": (None, 1)}, 2, ["binary"], 2),
        ({"y": (1, 8400, 85)}, None, ["yolox", "yolov5"], 80),
        ({"y": (1, 25200, 85)}, None, ["yolov5"], 80),
        ({"y": (1, 25200, 6)}, 1, ["yolov5"], 1),
        ({"y": (1, 84, 8400)}, None, ["yolov8"], 80),
        ({"y": (1, 6, 8400)}, 2, ["yolov8"], 2),
        ({"y": (None, 84, None)}, 80, ["yolov8"], 80),
        ({"y": (1, 300, 6)}, 80, ["end2end"], None),
        ({"y": (1, 300, 84)}, None, ["rtdetr"], 80),
        ({"s": (1, 4420, 2), "b": (1, 4420, 4)}, None, ["corners", "ssd"], 2),
        ({"s": (1, 4420, 2), "b": (1, 4420, 4)}, 2, ["corners", "ssd"], 2),
        ({"s": (1, 300, 80), "b": (1, 300, 4)}, 80, ["rtdetr", "corners", "ssd"], 80),
        ({"n": (1, 1), "b": (1, 100, 4), "s": (1, 100), "c": (1, 100)}, 80, ["end2end"], None),
        ({"y": (1, 7, 7, 30)}, None, [], None),
        ({"p": (1, 10)}, 80, [], None),
    ],
)
def test_decoders_are_proposed_from_the_shapes_of_model_outputs(
    outputs: dict[str, Shape], labels: int | None, expected: list[str], classes: int | None
) -> None:
    found = propose(outputs, labels, SIZE)
    assert [c.decoder for c in found if not c.output][: len(expected)] == expected
    assert found[0].classes == classes if expected else not found
    assert all(c.reason for c in found)


def test_the_proposal_names_the_model_output_that_has_the_shape_of_class_scores() -> None:
    found = propose({"features": (1, 128, 20, 20), "logits": (1, 10)}, 10, SIZE)
    assert [(c.decoder, c.output) for c in found] == [("softmax", "logits"), ("sigmoid", "logits")]
