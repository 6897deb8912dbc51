"""Entry point of the child process that inspects foreign models.

The child limits its own memory and processor time before it imports a parser.
"""

from __future__ import annotations

from engines.repository.bounded import answer_parent


def _answer(raw: bytes) -> str:
    from engines.exceptions import EngineError
    from engines.repository.guard import ChildAnswer, ChildRequest
    from engines.repository.proposal import examined

    request = ChildRequest.model_validate_json(raw)
    try:
        report = examined(request.file, request.name, request.overrides, request.repository, request.converted)
    except EngineError as error:
        return ChildAnswer(error=str(error)).model_dump_json()
    except MemoryError:
        bound = request.memory_bytes // 2**20
        return ChildAnswer(
            error=f"model file {request.file}: more than {bound} MiB of memory needed: expected a smaller model"
        ).model_dump_json()
    return ChildAnswer(report=report).model_dump_json()


if __name__ == "__main__":
    answer_parent(_answer)
