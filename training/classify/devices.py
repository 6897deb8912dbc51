"""Devices and workers of a training: the strategies of ``tf.distribute``.

The method ``fit`` of Keras 3.15 fails on several workers. The loop in ``training.classify.loop`` calls the strategy
itself, and works on one device, on several devices and on several workers.
"""

from __future__ import annotations

import json
import os
from typing import Any, Literal, NamedTuple

from ingest.exceptions import ConfigError

Strategy = Literal["none", "mirrored", "multi-worker"]
_COMMAND = "train classifier"
_TF_CONFIG = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}} in the '
    "environment of each worker, with its own index"
)


class Devices(NamedTuple):
    """The strategy of a training, and whether this process is the chief, which writes all files."""

    strategy: Any
    chief: bool

    @property
    def replicas(self) -> int:
        """Number of copies of the network, one for each device of each worker."""
        return int(self.strategy.num_replicas_in_sync)


def devices_of(kind: Strategy, cpu_devices: int) -> Devices:
    """Return the devices of a strategy. Call this function before any other function of TensorFlow.

    ``mirrored`` uses all GPUs of this machine, or ``cpu_devices`` parts of its CPU. Raise ConfigError for a wrong
    TF_CONFIG, or if TensorFlow already runs with other devices.
    """
    if kind == "multi-worker":
        index = _worker_index()
        import tensorflow as tf

        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), index == 0)
    import tensorflow as tf

    if kind == "none":
        return Devices(tf.distribute.get_strategy(), True)
    if tf.config.list_physical_devices("GPU"):
        return Devices(tf.distribute.MirroredStrategy(), True)
    part = tf.config.LogicalDeviceConfiguration()
    try:
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [part] * cpu_devices)
    except RuntimeError as error:
        raise ConfigError(_COMMAND, "--cpu-devices", cpu_devices, f"a new process ({error})") from None
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    return Devices(tf.distribute.MirroredStrategy(names), True)


def _worker_index() -> int:
    """Return the index of this worker in TF_CONFIG. Raise ConfigError."""
    text = os.environ.get(_TF_CONFIG, "")
    try:
        found = json.loads(text)
        workers, task = found["cluster"]["worker"], found["task"]
        index = int(task["index"])
        valid = isinstance(workers, list) and task["type"] == "worker" and 0 <= index < len(workers)
    except (ValueError, KeyError, TypeError):
        valid, index = False, 0
    if not valid:
        raise ConfigError(_COMMAND, _TF_CONFIG, text, _EXAMPLE)
    return index
