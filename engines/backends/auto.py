"""Automatic choice of the backend for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engines.backends.hardware import INSTRUCTIONS, Cpu
from ingest.site.pipeline import Precision

AUTO = "auto"
AUTO_ORDER = ("tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime")
"""Backends in the order of preference: GPU backends first, because a GPU is faster than any CPU. ONNX Runtime is the
last entry, because ONNX Runtime is available on every machine."""
CPU_ORDER = AUTO_ORDER[2:]
"""CPU backends, in the order of preference."""


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """Backend chosen for a model, and the reason for the choice.

    ``passed_over`` maps each backend with a higher preference to the reason why it was not chosen.
    """

    backend: str
    reason: str
    passed_over: Mapping[str, str]


def choose(
    precision: Precision,
    processor: Cpu,
    unavailable_reason: Callable[[str], str],
    order: Sequence[str] = AUTO_ORDER,
) -> BackendChoice:
    """Return the first usable backend of ``order`` for a model that allows ``precision``.

    OpenVINO is chosen only if the precision is below fp32 and the processor has fast instructions for that precision.
    In fp32, or without fast instructions, OpenVINO is no faster than ONNX Runtime. ``unavailable_reason`` takes a
    backend's name, and returns an empty text if the backend can be used.
    """
    passed_over: dict[str, str] = {}
    for name in order[:-1]:
        reason = unavailable_reason(name)
        gain, no_gain = _gain_on_cpu(precision, processor) if name == "openvino" else ("a GPU is available", "")
        if not reason and not no_gain:
            return BackendChoice(name, gain, passed_over)
        passed_over[name] = reason or no_gain
    return BackendChoice(order[-1], "it runs on every machine", passed_over)


def _gain_on_cpu(precision: Precision, processor: Cpu) -> tuple[str, str]:
    """Return two texts: the reason why OpenVINO is faster than ONNX Runtime on this CPU, and the reason why it is
    not.

    One of the two texts is always empty.
    """
    if precision == "fp32":
        return "", "the model's precision is fp32, in which it is no faster than ONNX Runtime"
    if found := processor.instruction(precision):
        return f"the model allows {precision}, and the processor has {found}", ""
    wanted = " or ".join(f"{flag} of {vendor}" if vendor else flag for flag, vendor in INSTRUCTIONS[precision])
    return "", f"the processor has no fast {precision} instructions: expected {wanted}"
