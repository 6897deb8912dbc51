"""Entry point of the child process that converts models. It bounds itself before it imports TensorFlow."""

from __future__ import annotations

import os

from engines.repository.bounded import answer_parent


def _answer(raw: bytes) -> str:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    from engines.exceptions import EngineError
    from training.convert.formats import converted
    from training.convert.guard import ConversionAnswer, ConversionRequest

    request = ConversionRequest.model_validate_json(raw)
    try:
        return converted(request.file, request.target, request.size).model_dump_json()
    except EngineError as error:
        return ConversionAnswer(error=str(error)).model_dump_json()
    except MemoryError:
        bound = request.memory_bytes // 2**20
        return ConversionAnswer(
            error=f"model file {request.file}: more than {bound} MiB of memory needed: expected a smaller model"
        ).model_dump_json()


if __name__ == "__main__":
    answer_parent(_answer)
