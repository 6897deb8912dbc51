"""Response of a gateway: the HTTP status, the pause before the next attempt, and the refused records."""

from __future__ import annotations

import email.utils
import json
import math
import time
from dataclasses import dataclass

import httpx

MAX_BODY_BYTES = 64 * 1024
"""Maximum number of bytes that are read of a response's body. The largest response of a correct gateway refuses all
records of a batch, and has a few KB."""
MAX_RETRY_AFTER_S = 300.0
"""Maximum pause that a gateway can ask for, in seconds. Without a limit, a gateway with a wrong clock could ask for a
pause of a year."""
_MAX_TEXT_CHARS = 200
_RETRY_LATER = (429, 503)
_UNCOMPRESSED = "identity"


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """Response of a gateway: URL, HTTP status, ``Retry-After`` header, and the first bytes of the body."""

    url: str
    status: int
    retry_after: str
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for error messages."""
        return self.body.decode(errors="replace")[:_MAX_TEXT_CHARS]

    @property
    def retry_after_s(self) -> float:
        """Pause in seconds that the ``Retry-After`` header requests (RFC 9110, 10.2.3), or 0 if the response has no
        such header.
        """
        if self.status not in _RETRY_LATER:
            return 0.0
        try:
            pause_s = float(self.retry_after)
        except ValueError:
            pause_s = self._date_s()
        return min(max(pause_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(pause_s) else 0.0

    def refused(self, count: int) -> dict[int, str]:
        """Return the reason for each permanently refused record, by the record's index in the batch.

        Ignore an index outside the batch, which has ``count`` records.
        """
        try:
            named = json.loads(self.body)["refused"]
            found = {int(each["index"]): str(each.get("reason", self.status)) for each in named}
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return {}
        return {index: reason[:_MAX_TEXT_CHARS] for index, reason in found.items() if 0 <= index < count}

    def _date_s(self) -> float:
        try:
            return email.utils.parsedate_to_datetime(self.retry_after).timestamp() - time.time()
        except (ArithmeticError, TypeError, ValueError):
            return 0.0


async def read_response(response: httpx.Response) -> GatewayResponse:
    """Read the status and headers of a response, and the first ``MAX_BODY_BYTES`` of its body.

    Ignore a compressed body, because the agent never asks for compression, and a small compressed body may expand to
    gigabytes.
    """
    body = b""
    if response.headers.get("Content-Encoding", _UNCOMPRESSED).lower() == _UNCOMPRESSED:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    retry_after = response.headers.get("Retry-After", "")
    return GatewayResponse(str(response.url), response.status_code, retry_after, body[:MAX_BODY_BYTES])
