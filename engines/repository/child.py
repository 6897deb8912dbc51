"""Entry point of the child process that inspects foreign models.

The child limits its own memory and processor time before it imports a parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.repository.bounded import answer_parent

if TYPE_CHECKING:
    from engines.repository.report import ModelReport


def _inspect(raw: bytes) -> ModelReport:
    from engines.repository.guard import ChildRequest
    from engines.repository.proposal import examined

    request = ChildRequest.model_validate_json(raw)
    return examined(request.file, request.name, request.overrides, request.repository, request.converted)


if __name__ == "__main__":
    answer_parent(_inspect)
