"""A small series with its model, for tests of forecasts: steps of 15 minutes, and the last residual as forecast."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ingest.contract.codec import encode_json
from ingest.contract.records import Measure
from ingest.contract.topics import MEASURES
from ingest.kafka.log import Outgoing
from stream.sense.forecast.features import layout
from stream.sense.forecast.model import ForecastModel
from stream.sense.forecast.spec import METADATA, SeriesSpec
from training.forecast.graphs import linear_graph

STEP_S = 900
SLOTS = 86_400 // STEP_S
MINUTE_NS = 60 * 10**9
MONDAY_NS = 1_451_865_600 * 10**9
"""Midnight of Monday, 4 January 2016, UTC."""
MINUTES_PER_STEP = (0, 2, 4, 6, 8, 10, 12, 14)
"""The minutes of each step that have a record, to keep tests small: a little more than half of the step."""


def usual(slot: int) -> float:
    """Return the vehicles per step that are usual at a step of the day."""
    return 40.0 + 30.0 * math.sin(2 * math.pi * slot / SLOTS)


def spec(**changes: Any) -> SeriesSpec:
    blank = SeriesSpec(step_s=STEP_S, lags=4, horizons=3, profile=((0.0,) * SLOTS,) * 7)
    row = tuple(blank.scaled(np.array([usual(slot) for slot in range(SLOTS)])).tolist())
    scores = tuple(tuple(random.Random(h).random() * 2 for _ in range(60)) for h in range(3))
    return blank.model_copy(update={"profile": (row,) * 7, "scores": scores, "model": "linear", **changes})


def model(folder: Path, name: str = "flow@1", described: SeriesSpec | None = None) -> ForecastModel:
    """Return a model that forecasts half of the last residual at each horizon."""
    described = described or spec()
    columns = layout(described)
    weights = np.zeros((columns.width, described.horizons))
    weights[columns.lags.start] = 0.5
    graph = linear_graph(weights, np.zeros(described.horizons))
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA, described.model_dump_json()
    path = folder / f"{name}.onnx"
    path.write_bytes(graph.SerializeToString())
    return ForecastModel(path, name)


def minutes(steps: range, seed: int = 0, factor: float = 1.0) -> Iterator[Measure]:
    """Yield the minutes of steps since ``MONDAY_NS``, with random counts around the usual ones times ``factor``."""
    chance = random.Random(f"{seed} {steps.start}")
    for step in steps:
        for minute in MINUTES_PER_STEP:
            mean = factor * usual(step % SLOTS) / 15
            yield measure(step * 15 + minute, round(chance.gauss(mean, math.sqrt(mean) / 2), 3))


def measure(minute: int, count: float, observed: float = 1.0, name: str = "bridge") -> Measure:
    start_ns = MONDAY_NS + minute * MINUTE_NS
    return Measure(
        id=f"{name}.{minute}", name=name, type="line", camera="road", pipeline="regions", start_ns=start_ns,
        observed=observed, values={"car.forward": max(count, 0.0)},
    )  # fmt: skip


def record(found: Measure) -> Outgoing:
    return Outgoing(MEASURES, 0, encode_json(found), key=found.camera.encode())
