"""Convert a model to half precision. The model's input stays uint8, and its outputs stay float32. Pure.

Layers with weights and the operators between them are computed in float16, because a strongly typed TensorRT network
takes its precision from the model. The normalisation of the pixels and the computation of boxes and scores stay in
float32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.exceptions import OptimiseFailed
from engines.optimise.layers import inner_part, inputs_of_node
from engines.repository.wrap import subgraphs_of, tensor_names, unused_name

_HALF = "tensor(float16)"
_STAYS = frozenset({"Cast", "CumSum", "DequantizeLinear", "QuantizeLinear", "Range", "ReduceSumSquare", "TopK"})
"""Operators that convert types themselves, or that lose too much precision in the ten mantissa bits of float16."""
_LARGEST = float(np.finfo(np.float16).max)


def halved(original: Any) -> Any:
    """Return the model in half precision. Raise OptimiseFailed if no layer can be converted."""
    model = copy.deepcopy(onnx.shape_inference.infer_shapes(original, data_prop=True))
    converter = _Converter(model)
    converter.convert()
    onnx.checker.check_model(model)
    return model


class _Converter:
    """State of a conversion to half precision: the types of the tensors, and the copies of tensors in the other
    floating-point type."""

    def __init__(self, model: Any) -> None:
        self._graph = model.graph
        self._opsets = {entry.domain or "": entry.version for entry in model.opset_import}
        self._used = tensor_names(model)
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {name for name, w in self._weights.items() if w.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in model.graph.output}
        self._halves: set[str] = set()
        """Tensors that are float32 in the original model, and float16 in the converted model."""
        self._copies: dict[tuple[str, int], str] = {}
        self._nodes: list[Any] = []

    def convert(self) -> None:
        """Rewrite the graph in place."""
        inner = inner_part(self._graph).inner
        half = [index in inner and self._can_be_half(node) for index, node in enumerate(self._graph.node)]
        if not any(half):
            raise OptimiseFailed("the model has no layer that can be computed in float16: expected a convolution")
        for node, is_half in zip(list(self._graph.node), half, strict=True):
            if is_half:
                self._halve(node)
            else:
                self._keep(node)
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in inputs_of_node(node)} | self._outputs
        kept = [w for w in self._graph.initializer if w.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _can_be_half(self, node: Any) -> bool:
        """Return whether the operator's definition allows float16 for all float outputs and the first input."""
        if node.op_type in _STAYS or any(subgraphs_of(node)) or not any(name in self._floats for name in node.output):
            return False
        schema = self._schema(node)
        if schema is None:
            return False
        outputs = [_formal(schema.outputs, i) for i, name in enumerate(node.output) if name in self._floats]
        return all(_HALF in formal.types for formal in outputs) and all(
            self._takes_half(schema, i) for i, name in enumerate(node.input[:1]) if name in self._floats
        )

    def _halve(self, node: Any) -> None:
        changed = copy.deepcopy(node)
        schema = self._schema(node)
        for i, name in enumerate(node.input):
            if name in self._floats and self._takes_half(schema, i):
                changed.input[i] = name if name in self._halves else self._as(name, TensorProto.FLOAT16)
            elif name in self._halves:
                changed.input[i] = self._as(name, TensorProto.FLOAT)
        casts = []
        for i, name in enumerate(node.output):
            if name not in self._floats:
                continue
            if name not in self._outputs:
                self._halves.add(name)
                continue
            changed.output[i] = self._new_name(f"{name}_half")  # the output of the model keeps its name and its type
            casts.append(helper.make_node("Cast", [changed.output[i]], [name], to=TensorProto.FLOAT))
            self._copies[name, TensorProto.FLOAT16] = changed.output[i]
        self._nodes += [changed, *casts]

    def _keep(self, node: Any) -> None:
        read = [name for name in inputs_of_node(node) if name in self._halves]
        changed = copy.deepcopy(node)
        _rename_inputs(changed, {name: self._as(name, TensorProto.FLOAT) for name in read})
        self._nodes.append(changed)

    def _as(self, name: str, kind: int) -> str:
        """Return the name of a tensor's copy in another type. If the tensor has no copy in this type yet, add a node
        that makes the copy."""
        if (name, kind) in self._copies:
            return self._copies[name, kind]
        target = self._new_name(f"{name}_{'half' if kind == TensorProto.FLOAT16 else 'float'}")
        self._copies[name, kind] = target
        if name in self._weights:
            values = numpy_helper.to_array(self._weights[name])
            narrow = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)
            self._graph.initializer.append(numpy_helper.from_array(narrow, target))
        else:
            self._nodes.append(helper.make_node("Cast", [name], [target], to=kind))
        return target

    def _new_name(self, name: str) -> str:
        found = unused_name(name, self._used)
        self._used.add(found)
        return found

    def _takes_half(self, schema: Any, index: int) -> bool:
        return _HALF in _formal(schema.inputs, index).types

    def _schema(self, node: Any) -> Any:
        try:
            return onnx.defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:  # an operator of ONNX Runtime
            return None


def _formal(formals: Any, index: int) -> Any:
    """Return the declaration of an input or output. The last declaration of an operator's inputs or outputs may stand
    for any number of them."""
    return formals[min(index, len(formals) - 1)]


def _rename_inputs(node: Any, names: Mapping[str, str]) -> None:
    """Rename the inputs of a node, and of the nodes in its subgraphs, which may read tensors of the outer graph."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for graph in subgraphs_of(node):
        for inside in graph.node:
            _rename_inputs(inside, names)
