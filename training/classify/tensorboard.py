"""Write the history of a training as an event file that TensorBoard reads.

An event file is a file of TFRecords with messages of the type ``Event``. TensorBoard itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.classify.checkpoint import EpochRecord

_VERSION = "brain.Event:2"
_FILE = "events.out.tfevents.0.sightline"
_PARTS = ("train", "validation")


def write_history(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write the loss and the accuracy of each training epoch to ``folder/train`` and ``folder/validation``.

    Both event files are written anew after each training epoch. The event files begin with the same bytes as before,
    so that TensorBoard reads only the new epoch.
    """
    import tensorflow as tf

    for part in _PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        with tf.io.TFRecordWriter(str(folder / part / _FILE)) as writer:
            for event in _events(part, history):
                writer.write(event.SerializeToString())


def _events(part: str, history: Sequence[EpochRecord]) -> Iterator[Any]:
    from tensorflow.core.framework.summary_pb2 import Summary
    from tensorflow.core.util.event_pb2 import Event

    began_s = history[0].finished_s if history else 0.0
    yield Event(wall_time=began_s, file_version=_VERSION)
    for epoch, record in enumerate(history, 1):
        loss, accuracy = (
            (record.loss, record.accuracy)
            if part == "train"
            else (record.validation_loss, record.validation_accuracy)
        )
        values = [
            Summary.Value(tag=tag, simple_value=value) for tag, value in (("loss", loss), ("accuracy", accuracy))
        ]
        yield Event(wall_time=record.finished_s, step=epoch, summary=Summary(value=values))
