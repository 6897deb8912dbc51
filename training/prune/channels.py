"""Remove the least important channels of a Keras model.

If a layer adds or multiplies the channels of several layers, these channels belong together: they are removed from
all of these layers or from none. The importance of a filter is its L2 norm, relative to the mean norm of its layer
(Li et al., 2017, https://arxiv.org/abs/1608.08710). Without the removed channels, a model is smaller and faster on
any hardware.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.exceptions import OptimiseFailed

Ids = npt.NDArray[np.int64]
"""One identity for each channel of a tensor. A layer that only passes channels on, such as an activation, keeps their
identities."""

_MULTIPLE = 8
"""Numbers of channels are kept at multiples of eight, the width of vector instructions and of tensor cores."""
_PASSING = frozenset(
    {
        *("Activation", "AveragePooling2D", "BatchNormalization", "Cropping2D", "DepthwiseConv2D", "Dropout", "ELU"),
        *("GaussianNoise", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "LeakyReLU", "MaxPooling2D", "ReLU"),
        *("Rescaling", "SpatialDropout2D", "UpSampling2D", "ZeroPadding2D"),
    }
)
"""Layers whose output channels are those of their input."""
_MERGING = frozenset({"Add", "Average", "Maximum", "Multiply", "Subtract"})
_PRODUCING = {"Conv2D": "filters", "Dense": "units"}
"""Maps each kind of layer that makes new channels to the setting that holds the number of channels."""


class ChannelMap:
    """The channels of a Keras model: which layers produce, read and share them."""

    def __init__(self, model: Any) -> None:
        self.inputs: dict[str, Ids] = {}
        self.outputs: dict[str, Ids] = {}
        """Identities of the channels that each layer reads and produces, by the name of the layer."""
        self._parent: list[int] = []
        self._frozen: set[int] = set()
        self._tensors: dict[int, Ids] = {}
        self._layers = {layer.name: layer for layer in model.layers}
        for layer in model.layers:
            self._follow(layer)
        for tensor in model.outputs:
            self._freeze(self._tensors[id(tensor)])

    def roots(self, ids: Ids) -> Ids:
        """Return one identity for each set of channels that belong together."""
        return np.array([self._root(int(i)) for i in ids], np.int64)

    def kept(self, share: float) -> set[int]:
        """Return the identities of the channels to keep when ``share`` of the channels that belong together is
        removed."""
        scores: defaultdict[int, float] = defaultdict(float)
        makers: defaultdict[int, list[str]] = defaultdict(list)
        for name, layer in self._layers.items():
            if type(layer).__name__ not in _PRODUCING:
                continue
            kernel = np.asarray(layer.get_weights()[0])
            norms = np.sqrt((kernel.reshape(-1, kernel.shape[-1]) ** 2).sum(axis=0))
            for root, norm in zip(
                self.roots(self.outputs[name]), norms / max(float(norms.mean()), 1e-12), strict=True
            ):
                scores[int(root)] += float(norm)
                makers[int(root)].append(name)
        families: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        frozen = {self._root(i) for i in self._frozen}
        for root, names in makers.items():
            families[tuple(names)].append(root)
        kept = set(frozen)
        for roots in families.values():
            if frozen.isdisjoint(roots):
                kept.update(sorted(roots, key=lambda root: -scores[root])[: kept_count(len(roots), share)])
            else:
                kept.update(roots)
        return kept

    def _follow(self, layer: Any) -> None:
        kind = type(layer).__name__
        given = [] if kind == "InputLayer" else layer.input if isinstance(layer.input, list) else [layer.input]
        before = [self._tensors[id(tensor)] for tensor in given]
        after = self._after(layer, kind, before)
        if before:
            self.inputs[layer.name] = before[0]
        self.outputs[layer.name] = after
        for tensor in layer.output if isinstance(layer.output, list) else [layer.output]:
            self._tensors[id(tensor)] = after

    def _after(self, layer: Any, kind: str, before: list[Ids]) -> Ids:
        """Return the identities of a layer's output channels."""
        channels = 1 if isinstance(layer.output, list) else int(layer.output.shape[-1] or 1)
        if kind in _PRODUCING and getattr(layer, "groups", 1) == 1:
            return self._new(channels)
        if kind in _PASSING and len(before[0]) == channels:
            return before[0]
        if kind in _MERGING and len({len(ids) for ids in before}) == 1:
            for other in before[1:]:
                for a, b in zip(before[0], other, strict=True):
                    self._parent[self._root(int(a))] = self._root(int(b))
            return before[0]
        if kind == "Concatenate" and sum(map(len, before)) == channels:
            return np.concatenate(before)
        if kind == "Flatten" and channels % len(before[0]) == 0:
            return np.tile(before[0], channels // len(before[0]))
        for ids in before:  # a layer of which nothing is known
            self._freeze(ids)
        fresh = self._new(channels)
        self._freeze(fresh)
        return fresh

    def _new(self, count: int) -> Ids:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _freeze(self, ids: Ids) -> None:
        self._frozen.update(int(i) for i in ids)

    def _root(self, one: int) -> int:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one


def kept_count(channels: int, share: float) -> int:
    """Return how many of ``channels`` stay when ``share`` of them is removed: a multiple of eight where possible."""
    wanted = channels * (1 - share)
    if channels <= _MULTIPLE:
        return max(1, round(wanted))
    return min(channels, max(_MULTIPLE, _MULTIPLE * round(wanted / _MULTIPLE)))


def without_channels(model: Any, share: float) -> Any:
    """Return a copy of a Keras model without ``share`` of the channels of each layer. The copy keeps the weights of
    all other channels.

    Keep all channels of the model's outputs, and all channels of layers of an unknown kind. Raise OptimiseFailed for
    a model of nested models or shared layers, or if no channel can be removed.
    """
    import keras

    functional = keras.Model(model.inputs, model.outputs)
    _require_flat(functional)
    channels = ChannelMap(functional)
    kept = channels.kept(share)
    masks = {
        name: (np.isin(channels.roots(channels.inputs[name]), list(kept)), np.isin(channels.roots(ids), list(kept)))
        for name, ids in channels.outputs.items()
        if name in channels.inputs
    }
    config = copy.deepcopy(functional.get_config())
    for entry in config["layers"]:
        entry.pop("build_config", None)  # has the old shapes
        setting = _PRODUCING.get(entry["class_name"])
        if setting:
            entry["config"][setting] = int(masks[entry["config"]["name"]][1].sum())
    smaller = keras.Model.from_config(config)
    for layer in functional.layers:
        if layer.weights:
            given, made = masks[layer.name]
            weights = [_cut(type(layer).__name__, values, given, made) for values in layer.get_weights()]
            smaller.get_layer(layer.name).set_weights(weights)
    if smaller.count_params() >= model.count_params():
        raise OptimiseFailed(
            f"the share {share} removes no channel of the model: expected layers with more than {_MULTIPLE} "
            "channels, or a larger --prune"
        )
    return smaller


def _cut(kind: str, values: npt.NDArray[Any], given: npt.NDArray[np.bool_], made: npt.NDArray[np.bool_]) -> Any:
    """Return the weights of the kept channels."""
    if kind == "DepthwiseConv2D":
        return values[:, :, made] if values.ndim == 4 else values[made]
    if kind == "BatchNormalization" or (kind in _PRODUCING and values.ndim == 1):
        return values[made]
    if kind == "Conv2D":
        return values[:, :, given][..., made]
    if kind == "Dense":
        return values[given][:, made]
    return values


def _require_flat(model: Any) -> None:
    for layer in model.layers:
        nested = hasattr(layer, "layers")
        if nested or len(getattr(layer, "_inbound_nodes", [0])) > 1:
            raise OptimiseFailed(
                f"layer {layer.name} is {'a model of its own' if nested else 'used more than once'}: expected a "
                "functional model of single layers. Prune by weights: --prune-by weights"
            )
