"""Store a trained forecast model in the model repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.repository.manifest import FORECAST, Model
from engines.repository.store import Repository
from stream.sense.forecast.features import layout
from stream.sense.forecast.spec import METADATA
from training.forecast.evaluate import Judged
from training.forecast.graphs import FEATURES

MODEL_FILE = "model.onnx"


def store(judged: Judged, repository: Repository, name: str, found: Mapping[str, Any]) -> Model:
    """Write the winner as the next version of the model ``name``, with its description and its figures.

    Raise AdoptFailed if the folder cannot be written.
    """
    model = judged.model
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, judged.spec.model_dump_json()
    manifest = {
        "file": MODEL_FILE,
        "decoder": FORECAST,
        "labels": [f"step_{horizon}" for horizon in range(1, judged.spec.horizons + 1)],
        "input": {"name": FEATURES, "width": layout(judged.spec).width, "height": 1},
        "training": dict(found),
    }
    return repository.write(name, manifest, {MODEL_FILE: model.SerializeToString(deterministic=True)})
