"""What a gateway answers, as far as it is worth reading: its status, when to come back, and what it refuses."""

from __future__ import annotations

import email.utils
import json
import math
import time
from dataclasses import dataclass

import httpx

MAX_ANSWER_BYTES = 64 * 1024
"""A reason for each record of a batch is a few KB; what answers with more is no gateway."""
MAX_RETRY_AFTER_S = 300.0
"""Whoever asks for a year has a wrong clock, and nobody is there to start the agent again."""
_TEXT_CHARS = 200
_LATER = (429, 503)
_AS_IT_IS = "identity"


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """An answer, and as much of its body as was read."""

    url: str
    status: int
    retry_after: str
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for people."""
        return self.body.decode(errors="replace")[:_TEXT_CHARS]

    @property
    def retry_after_s(self) -> float:
        """How long the gateway asks to be left alone (RFC 9110, 10.2.3): seconds, or a date. 0 if it does not."""
        if self.status not in _LATER:
            return 0.0
        try:
            asked_s = float(self.retry_after)
        except ValueError:
            asked_s = self._until_s()
        return min(max(asked_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(asked_s) else 0.0

    def refused(self, count: int) -> dict[int, str]:
        """Return the records that are named as refused for good, by index below ``count``, with the reasons."""
        try:
            named = json.loads(self.body)["refused"]
            found = {int(each["index"]): str(each.get("reason", self.status)) for each in named}
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return {}
        return {index: reason[:_TEXT_CHARS] for index, reason in found.items() if 0 <= index < count}

    def _until_s(self) -> float:
        try:
            return email.utils.parsedate_to_datetime(self.retry_after).timestamp() - time.time()
        except (ArithmeticError, TypeError, ValueError):
            return 0.0


async def read_response(response: httpx.Response) -> GatewayResponse:
    """Read an answer, and no more of it than ``MAX_ANSWER_BYTES``.

    One that is packed is not read: nobody has asked for that, and the little that comes may unpack to a lot.
    """
    body = b""
    if response.headers.get("Content-Encoding", _AS_IT_IS).lower() == _AS_IT_IS:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                break
    retry_after = response.headers.get("Retry-After", "")
    return GatewayResponse(str(response.url), response.status_code, retry_after, body[:MAX_ANSWER_BYTES])
