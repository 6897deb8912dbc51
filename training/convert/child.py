"""Entry point of the child process that converts models. The process limits its own memory and processor time before
it imports TensorFlow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engines.repository.bounded import answer_parent

if TYPE_CHECKING:
    from training.convert.guard import ConversionAnswer


def _convert(raw: bytes) -> ConversionAnswer:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    from training.convert.formats import converted
    from training.convert.guard import ConversionRequest

    request = ConversionRequest.model_validate_json(raw)
    return converted(request.file, request.target, request.size)


if __name__ == "__main__":
    answer_parent(_convert)
