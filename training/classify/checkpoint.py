"""The state of an unfinished training on disk: weights, optimiser, random generators, position and history.

A training that is killed at any moment and resumes from its checkpoint ends with the same weights as a training that
was never killed.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.exceptions import ConfigError

CHECKPOINT = "checkpoint.npz"
_STATE = "state"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Measures of one training epoch. ``finished_s`` is the Unix time in s at which the epoch ended."""

    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    finished_s: float


@dataclass(slots=True)
class TrainingProgress:
    """Position in an unfinished training.

    ``step`` is the number of batches that are done in the training epoch ``epoch``. ``loss`` and ``hits`` are sums
    over the pictures of the training epoch so far. ``spent_s`` is the time that the training has taken in s, over all
    restarts.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    hits: float = 0.0
    best_epoch: int = -1
    finished: bool = False
    spent_s: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrainingCheckpoint:
    """Contents of a checkpoint. ``settings`` are the settings of the training, which must not change when the
    training resumes."""

    progress: TrainingProgress
    settings: dict[str, Any]
    variables: Sequence[npt.NDArray[Any]]
    """Weights, states of random generators, and the optimiser's variables, in the order of the network."""
    best: Sequence[npt.NDArray[Any]]
    """Variables of the network after its best training epoch; empty before the first epoch has ended."""


def save(folder: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write a checkpoint. A crash leaves the old checkpoint or the new one, never a damaged one."""
    part = folder / f".{CHECKPOINT}.{os.getpid()}.part"
    state = json.dumps({"progress": asdict(checkpoint.progress), "settings": checkpoint.settings})
    arrays = {f"v{i:05}": values for i, values in enumerate(checkpoint.variables)}
    arrays |= {f"b{i:05}": values for i, values in enumerate(checkpoint.best)}
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_STATE: np.frombuffer(state.encode(), np.uint8)}, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / CHECKPOINT)


def load(folder: Path) -> TrainingCheckpoint | None:
    """Return the checkpoint in a folder, or None if the folder has none. Raise ConfigError for an unreadable
    checkpoint."""
    path = folder / CHECKPOINT
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            state = json.loads(file[_STATE].tobytes())
            names = sorted(file.files)
            variables, best = ([file[name] for name in names if name[0] == kind] for kind in ("v", "b"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            "train classifier", "--run", str(path), f"a checkpoint ({error}). Remove this file to train again"
        ) from None
    history = [EpochRecord(**record) for record in state["progress"].pop("history")]
    progress = replace(TrainingProgress(**state["progress"]), history=history)
    return TrainingCheckpoint(progress, state["settings"], variables, best)


def require_same_settings(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ConfigError if a setting differs from the setting of the unfinished training in ``folder``."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ConfigError(
                "train classifier",
                key,
                value,
                f"{found.get(key)!r}, as in the unfinished training in {folder}. Resume with the same data and "
                f"options, or remove {folder / CHECKPOINT} to train again",
            )
