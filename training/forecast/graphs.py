"""ONNX graphs of forecast models, made from the weights of the trained models.

Each graph maps ``features`` ``(N, width)`` float32 to ``residuals`` ``(N, horizons)`` float32. Each graph has a few
nodes only and is built node by node, so that no converter has to be trusted or installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = "features"
RESIDUALS = "residuals"
_OPSET = 17
_ML = "ai.onnx.ml"
_ML_OPSET = 3
Weights = npt.NDArray[Any]


def linear_graph(weights: Weights, bias: Weights) -> Any:
    """Return the ONNX graph of a linear forecast model. ``weights`` is ``(width, horizons)``, and ``bias``
    ``(horizons,)``."""
    return _model(
        [helper.make_node("Gemm", [FEATURES, "weights", "bias"], [RESIDUALS])],
        {"weights": weights, "bias": bias},
        len(weights),
        len(bias),
    )


def tree_graph(dumps: Sequence[Mapping[str, Any]], columns: Sequence[Sequence[int]], width: int) -> Any:
    """Return the ONNX graph of boosted trees, with one ensemble for each number of steps ahead.

    ``dumps`` has the ensembles as ``Booster.dump_model()`` of LightGBM returns them, and ``columns`` has for each
    ensemble the feature columns that it was trained on.
    """
    nodes: dict[str, list[Any]] = {
        key: [] for key in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    leaves: dict[str, list[Any]] = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    tree = 0
    for target, (dump, found) in enumerate(zip(dumps, columns, strict=True)):
        for info in dump["tree_info"]:
            _add_tree(tree, target, info["tree_structure"], found, nodes, leaves)
            tree += 1
    attributes = {f"nodes_{key}": values for key, values in nodes.items()}
    attributes |= {f"target_{key}": values for key, values in leaves.items()}
    node = helper.make_node(
        "TreeEnsembleRegressor", [FEATURES], [RESIDUALS], domain=_ML, n_targets=len(dumps), **attributes
    )
    return _model([node], {}, width, len(dumps))


def _add_tree(
    tree: int,
    target: int,
    root: Mapping[str, Any],
    columns: Sequence[int],
    nodes: dict[str, list[Any]],
    leaves: dict[str, list[Any]],
) -> None:
    """Add the nodes and leaves of one tree, numbered in the order of a search in depth."""
    count = 0

    def add(part: Mapping[str, Any]) -> int:
        nonlocal count
        number, count = count, count + 1
        is_leaf = "split_feature" not in part
        at = len(nodes["nodeids"])
        fields = {
            "treeids": tree,
            "nodeids": number,
            "featureids": 0 if is_leaf else columns[part["split_feature"]],
            "values": 0.0 if is_leaf else _below(part["threshold"]),
            "modes": "LEAF" if is_leaf else "BRANCH_LEQ",
            "truenodeids": 0,
            "falsenodeids": 0,
        }
        for key, value in fields.items():
            nodes[key].append(value)
        if is_leaf:
            weight = {"treeids": tree, "nodeids": number, "ids": target, "weights": float(part["leaf_value"])}
            for key, value in weight.items():
                leaves[key].append(value)
        else:
            nodes["truenodeids"][at] = add(part["left_child"])
            nodes["falsenodeids"][at] = add(part["right_child"])
        return number

    add(root)


def _below(threshold: float) -> float:
    """Return the largest float32 that is at most ``threshold``, so that a float32 feature takes the same branch."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))


def recurrent_graph(kind: str, weights: Mapping[str, Weights], lags: slice, others: Sequence[int], width: int) -> Any:
    """Return the ONNX graph of a recurrent network over the lags, oldest first, with two dense layers behind the
    recurrent layer.

    ``kind`` is the recurrent layer: ``lstm`` or ``gru``. ``weights`` has Keras' arrays: ``kernel``, ``recurrent`` and
    ``bias`` of the recurrent layer, and ``dense_kernel``, ``dense_bias``, ``out_kernel`` and ``out_bias``. ``others``
    are the feature columns that the dense layers get beside the recurrent layer's output.
    """
    units = weights["recurrent"].shape[0]
    order = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2)}[kind]  # Keras: i f c o, ONNX: i o f c; both: z r h

    def gates(matrix: Weights) -> Weights:
        return np.concatenate([matrix[..., k * units : (k + 1) * units] for k in order], axis=-1)

    bias = np.atleast_2d(weights["bias"])  # Keras' GRU has two biases, the LSTM one
    bias = bias if len(bias) == 2 else np.concatenate((bias, np.zeros_like(bias)))
    length = lags.stop - lags.start
    arrays = {
        "order": np.arange(lags.stop - 1, lags.start - 1, -1, dtype=np.int64),
        "others": np.array(others, np.int64),
        "W": gates(weights["kernel"]).T[None],
        "R": gates(weights["recurrent"]).T[None],
        "B": gates(bias).reshape(1, -1),
        "sequence_shape": np.array((length, -1, 1), np.int64),
        "first": np.array((0,), np.int64),
        **{name: weights[name] for name in ("dense_kernel", "dense_bias", "out_kernel", "out_bias")},
    }
    reset = {"linear_before_reset": 1} if kind == "gru" else {}
    outputs = ["", "state", ""] if kind == "lstm" else ["", "state"]
    nodes = [
        helper.make_node("Gather", [FEATURES, "order"], ["lags"], axis=1),
        helper.make_node("Transpose", ["lags"], ["turned"], perm=[1, 0]),
        helper.make_node("Reshape", ["turned", "sequence_shape"], ["sequence"]),
        helper.make_node(kind.upper(), ["sequence", "W", "R", "B"], outputs, hidden_size=units, **reset),
        helper.make_node("Squeeze", ["state", "first"], ["last"]),
        helper.make_node("Gather", [FEATURES, "others"], ["rest"], axis=1),
        helper.make_node("Concat", ["last", "rest"], ["joined"], axis=1),
        helper.make_node("Gemm", ["joined", "dense_kernel", "dense_bias"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "out_kernel", "out_bias"], [RESIDUALS]),
    ]
    return _model(nodes, arrays, width, len(weights["out_bias"]))


def mean_graph(models: Sequence[Any]) -> Any:
    """Return one ONNX graph that computes the mean of the outputs of several graphs."""
    nodes: list[Any] = []
    initializers: list[Any] = []
    for number, model in enumerate(models):
        prefix = f"m{number}_"
        renamed = onnx.compose.add_prefix(model, prefix)
        for node in renamed.graph.node:
            node.input[:] = [FEATURES if name == prefix + FEATURES else name for name in node.input]
            nodes.append(node)
        initializers += renamed.graph.initializer
    nodes.append(helper.make_node("Mean", [f"m{k}_{RESIDUALS}" for k in range(len(models))], [RESIDUALS]))
    sizes = [one.type.tensor_type.shape.dim[1].dim_value for one in (*models[0].graph.input, *models[0].graph.output)]
    return _checked(nodes, initializers, *sizes)


def _model(nodes: list[Any], arrays: Mapping[str, Weights], width: int, horizons: int) -> Any:
    initializers = [
        numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
        for name, value in arrays.items()
    ]
    return _checked(nodes, initializers, width, horizons)


def _checked(nodes: list[Any], initializers: list[Any], width: int, horizons: int) -> Any:
    def tensor(name: str, size: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])

    graph = helper.make_graph(
        nodes, "forecast", [tensor(FEATURES, width)], [tensor(RESIDUALS, horizons)], initializers
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_ML, _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="sightline")
    onnx.checker.check_model(model)
    return model
