"""Behaviour models in a model repository, computed with ONNX Runtime.

A behaviour model maps the windows of tracks (series of recent boxes) to the probabilities of behaviours. ``sightline
train behaviour`` makes a behaviour model. Rules name a behaviour model with its version, so that the events of a rule
depend only on the log.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.analyse.behaviour.window import FEATURES, STEPS, Windows
from stream.exceptions import BehaviourModelUnusable

FOLDER = "SIGHTLINE_MODELS"
"""Environment variable with the folder of the model repository."""
USUAL_FOLDER = "models"
"""Folder of the model repository if the environment variable is not set; the commands of the repository use the same
folder."""
LABELS = "sightline.behaviours"
"""Name of the metadata in the ONNX file that lists the behaviours, separated by commas."""
FILE = "model.onnx"
INPUT = "windows"


class BehaviourModel:
    """A loaded behaviour model. ``labels`` are the behaviours that the model knows, in the order of the
    probabilities.

    Any thread may call ``probabilities``, which uses one core.
    """

    def __init__(self, path: Path, name: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: the warnings report optimisations
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BehaviourModelUnusable(f"model file {path}: {error}: expected an ONNX model") from None
        self.name = name
        labels = self._session.get_modelmeta().custom_metadata_map.get(LABELS, "")
        shapes = [(one.name, one.shape[1:]) for one in self._session.get_inputs()]
        if not labels or shapes != [(INPUT, [STEPS, FEATURES])]:
            raise BehaviourModelUnusable(
                f"model {name}: expected a model of `sightline train behaviour` with the input {INPUT} "
                f"(N, {STEPS}, {FEATURES}), found the inputs {shapes} in {path}"
            )
        self.labels = tuple(labels.split(","))

    def probabilities(self, windows: Windows) -> npt.NDArray[np.float32]:
        """Return the probabilities ``(N, len(labels))`` of the behaviours in N windows."""
        (found,) = self._session.run(None, {INPUT: windows})
        return np.asarray(found, np.float32)


def behaviour_model(name: str) -> BehaviourModel:
    """Return the model ``NAME@VERSION`` from the model repository in the folder ``SIGHTLINE_MODELS``.

    A model is loaded once per process, because a stored version never changes. Raise BehaviourModelUnusable.
    """
    folder = Path(os.environ.get(FOLDER) or USUAL_FOLDER).absolute()
    model, _, version = name.partition("@")
    path = folder / model / version / FILE
    if not path.is_file():
        raise BehaviourModelUnusable(
            f"model {name} is missing: expected the file {path}. Copy the model's folder there, or set {FOLDER} to "
            "the folder of the model repository"
        )
    return _loaded(path, name)


@functools.lru_cache(maxsize=16)
def _loaded(path: Path, name: str) -> BehaviourModel:
    return BehaviourModel(path, name)
