"""Find the part of a graph between its first and its last layers with weights. Pure.

Only the inner part of a graph, between its first and last layers with weights, may be computed in lower precision.
The operators before the first layer with weights normalise pixels. The operators after the last layer with weights
compute boxes in px and scores, whose ranges differ too much for eight or sixteen bits. Operators outside this part
take little of the computing time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from engines.repository.wrap import subgraphs_of

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with weights, which take most of the computing time of a model."""


class Part(NamedTuple):
    """Indices of the nodes of a graph.

    ``inner`` are the nodes between the first and the last layers with weights, both included. ``last`` are those
    layers of ``inner`` that no other layer with weights follows.
    """

    inner: frozenset[int]
    last: frozenset[int]


def inner_part(graph: Any) -> Part:
    """Return the part of a graph between its first and last layers with weights. Nodes are in topological order."""
    nodes = list(graph.node)
    weighted = [node.op_type in WEIGHTED for node in nodes]
    fed = _reached(nodes, weighted)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    followed: set[int] = set()
    for index in reversed(range(len(nodes))):
        if weighted[index] or index in followed:
            followed.update(makers[name] for name in inputs_of_node(nodes[index]) if name in makers)
    inner = frozenset(index for index in range(len(nodes)) if weighted[index] or (index in fed and index in followed))
    last = frozenset(index for index in inner if weighted[index] and index not in followed)
    return Part(inner, last)


def inputs_of_node(node: Any) -> Iterator[str]:
    """Yield the names of the tensors that a node reads, including the tensors that its subgraphs read."""
    yield from (name for name in node.input if name)
    for graph in subgraphs_of(node):
        for inside in graph.node:
            yield from inputs_of_node(inside)


def _reached(nodes: list[Any], starts: list[bool]) -> set[int]:
    """Return the nodes that read a result of one of ``starts``, directly or through other nodes."""
    tensors: set[str] = set()
    found: set[int] = set()
    for index, node in enumerate(nodes):
        if any(name in tensors for name in inputs_of_node(node)):
            found.add(index)
        if starts[index] or index in found:
            tensors.update(node.output)
    return found
