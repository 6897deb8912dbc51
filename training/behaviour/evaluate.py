"""Measure a behaviour model on simulated tracks of unseen seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream.analyse.behaviour.model import BehaviourModel
from training.behaviour.people import BEHAVIOURS
from training.behaviour.tracks import HARD, NORMAL, SLOW, BoxFaults, TrackExamples, examples
from training.classify.measures import confusion_matrix

HELD_OUT_SEED = 10_000
"""Lowest random seed of the tracks on which models are measured. Training uses only lower seeds."""
CONDITIONS: dict[str, BoxFaults] = {"usual": NORMAL, "2 frames/s": SLOW, "bad detector": HARD}
_BATCH = 64


class BehaviourScore(NamedTuple):
    """Number of tracks by true behaviour (row) and found behaviour (column), with precision, recall and F1 of each
    behaviour."""

    confusion: npt.NDArray[np.int64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]

    @property
    def macro_f1(self) -> float:
        """Mean of the F1 of all behaviours."""
        return float(self.f1.mean())


def held_out(count: int) -> Iterator[tuple[str, TrackExamples]]:
    """Yield each condition with ``count`` examples that no training uses."""
    for number, (name, faults) in enumerate(CONDITIONS.items()):
        yield name, examples(HELD_OUT_SEED + number, count, faults)


def score(model: BehaviourModel, found: TrackExamples) -> BehaviourScore:
    """Return the score of a model: for each example, the most probable behaviour is compared with the true
    behaviour."""
    parts = [found.windows[begin : begin + _BATCH] for begin in range(0, len(found.windows), _BATCH)]
    guesses = np.concatenate([model.probabilities(part).argmax(axis=1) for part in parts])
    confusion = confusion_matrix(found.behaviours, guesses, len(BEHAVIOURS))
    hits = confusion.diagonal()
    true, guessed = np.maximum(confusion.sum(axis=1), 1), np.maximum(confusion.sum(axis=0), 1)
    return BehaviourScore(confusion, hits / guessed, hits / true, 2 * hits / (true + guessed))


def table(name: str, one: BehaviourScore) -> list[str]:
    """Return the confusion matrix of a condition as lines of a Markdown table, with precision and recall."""
    lines = [
        f"Condition: {name}. Macro F1 {one.macro_f1:.4f}. Rows are the true behaviours, columns the found ones:",
        "",
        "| | " + " | ".join(BEHAVIOURS) + " | precision | recall |",
        "|" + "---|" * (len(BEHAVIOURS) + 3),
    ]
    for number, behaviour in enumerate(BEHAVIOURS):
        cells = [str(count) for count in one.confusion[number].tolist()]
        cells += [f"{one.precision[number]:.3f}", f"{one.recall[number]:.3f}"]
        lines.append(f"| {behaviour} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def heading(model: str, measured: Mapping[str, Any]) -> list[str]:
    """Return the first lines of a Markdown page with the figures of a behaviour model."""
    return [
        f"# Behaviour model `{model}`",
        "",
        f"Trained on {measured['tracks']} simulated tracks (seed {measured['seed']}) in {measured['seconds']} s, and",
        f"measured on {measured['date']} on {measured['held_out_tracks']} tracks of other seeds in each condition.",
        f"The network has {measured['weights']} weights.",
        "",
    ]
