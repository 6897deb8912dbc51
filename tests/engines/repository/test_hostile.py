"""Tests of broken and hostile model files: each is refused in a child process, with one clear error."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.exceptions import AdoptFailed
from engines.repository.guard import ChildLimits, examine
from engines.repository.inspection import load_checked
from tests.engines.repository.foreign import classifier, write


def edited(path: Path, edit: Callable[[Any], None]) -> Path:
    """Write a small classifier whose message ``edit`` has changed."""
    model = onnx.load(str(classifier(path)))
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def outside(location: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), "far")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        model.graph.initializer.append(tensor)

    return edit


def huge(model: Any) -> None:
    model.graph.initializer.append(TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 30, 1 << 30]))


def negative(model: Any) -> None:
    model.graph.initializer.append(TensorProto(name="negative", data_type=TensorProto.FLOAT, dims=[-4]))


def short(model: Any) -> None:
    model.graph.initializer.append(
        TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[400], raw_data=b"1234")
    )


def opset(version: int) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        model.opset_import[0].version = version

    return edit


def foreign_operator(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


def cyclic(model: Any) -> None:
    model.graph.node[0].input[0] = "y"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (outside("/etc/passwd"), "weights far are in '/etc/passwd': expected a file in the model's folder"),
        (outside("../other.bin"), "expected a file in the model's folder"),
        (outside(""), "expected a file in the model's folder"),
        (outside("link.bin"), "that is no link"),
        (outside("missing.bin"), "does not exist: copy that file beside the model"),
        (huge, r"weights up to huge .* take 4611686018427387904 bytes: expected at most"),
        (negative, "weights negative have shape .* expected no negative size"),
        (short, "expected an ONNX model"),
        (opset(99), r"opset 99: expected 7 to \d+. Export the model with opset 17"),
        (opset(3), "opset 3: expected 7 to"),
        (foreign_operator, "operator ReduceMean of domain com.example: expected standard operators"),
        (cyclic, "expected an ONNX model"),
    ],
)
def test_a_model_file_with_dangerous_contents_is_refused_before_it_runs(
    tmp_path: Path, edit: Callable[[Any], None], message: str
) -> None:
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    with pytest.raises(AdoptFailed, match=message) as caught:
        load_checked(edited(tmp_path / "m.onnx", edit))
    assert str(tmp_path / "m.onnx") in str(caught.value)


def test_weights_in_files_beside_the_model_are_stored_together_with_it_in_one_file(tmp_path: Path) -> None:
    model = onnx.load(
        str(classifier(tmp_path / "s.onnx", first=[helper.make_node("Mul", ["x", "shift"], ["prepared"])]))
    )
    file = tmp_path / "m.onnx"
    onnx.save(model, str(file), save_as_external_data=True, location="m.bin", size_threshold=0)
    assert (tmp_path / "m.bin").stat().st_size > 0
    loaded = load_checked(file)
    assert [numpy_helper.to_array(w).tolist() for w in loaded.graph.initializer] == [[1.0]]


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x89PNG\r\n\x1a\n" + bytes(64)], ids=["empty", "text", "png"]
)
def test_a_file_that_is_no_onnx_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(AdoptFailed, match="expected an ONNX"):
        load_checked(tmp_path / "m.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = classifier(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AdoptFailed, match="expected an ONNX model"):
        load_checked(tmp_path / "m.onnx")


def test_a_pipe_a_folder_or_a_missing_file_as_model_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (("pipe", "not a regular file"), (".", "not a regular file"), ("none", "No such file")):
        with pytest.raises(AdoptFailed, match=message):
            examine(tmp_path / path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(AdoptFailed, match="3221225472 bytes: expected an ONNX file of 1 to 2147483647 bytes"):
        examine(tmp_path / "large")


def test_a_model_that_needs_too_much_memory_is_refused_by_the_inspection_process(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["large"]),
        helper.make_node("ReduceMean", ["large"], ["y"], axes=[3, 4], keepdims=0),
    ]
    weights = {"shape": np.array([20_000, 1, 3, 1_000, 1_000], np.int64)}  # 240 GB
    file = write(tmp_path / "m.onnx", nodes, ("N", 3, 1, 1), {"y": ("a", "b", "c")}, weights)
    with pytest.raises(AdoptFailed, match=r"cannot run the model|MiB of memory"):
        examine(file)


def test_the_inspection_of_a_model_that_computes_for_ever_ends_at_the_processor_time_limit(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Mul", ["sum", "sum"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["times", "", "x"], ["z"], body=body),
        helper.make_node("ReduceMean", ["z"], ["y"], axes=[2, 3], keepdims=0),
    ]
    weights = {"times": np.array(1 << 60, np.int64)}
    file = write(tmp_path / "m.onnx", nodes, ("N", 3, 8, 8), {"y": ("N", 3)}, weights)
    with pytest.raises(AdoptFailed, match=r"more than 2 s of processor time.*--max-seconds"):
        examine(file, limits=ChildLimits(cpu_s=2))


def test_the_inspection_process_returns_its_report_and_its_errors(tmp_path: Path) -> None:
    report = examine(classifier(tmp_path / "m.onnx"))
    assert (report.layout, report.model) == ("nchw", "")
    with pytest.raises(AdoptFailed, match="opset 99"):
        examine(edited(tmp_path / "bad.onnx", opset(99)))


def test_a_killed_inspection_process_leaves_no_temporary_files_and_no_incomplete_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, temporary, child = tmp_path / "models" / "m", tmp_path / "temporary", tmp_path / "child"
    other = stored / ".1.other.part"
    other.mkdir(parents=True)
    temporary.mkdir()
    child.write_text(f'#!/bin/sh\nmkdir "$TMPDIR/half" "{stored}/.1.$$.part" && kill -KILL $$\n')
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(AdoptFailed, match="more than 120 s of processor time"):
        examine(classifier(tmp_path / "m.onnx"), "m", repository=tmp_path / "models")
    assert list(temporary.iterdir()) == []
    assert list(stored.iterdir()) == [other]
