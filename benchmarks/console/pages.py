"""Follows a page of the console during an outage: when the page names the fault, and how long the page takes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

PAUSE_S = 0.5
"""Pause between two requests of one page, in seconds."""
BROKER_TEXT = "Kafka cannot be read"
STORE_TEXT = "The evidence store cannot be read"


class PageView(NamedTuple):
    """One response of a page: the monotonic times of the request and of the response in seconds, the status, and
    the faults that the page names. The status is 0 without a response."""

    asked_s: float
    got_s: float
    status: int
    named: frozenset[str]


@dataclass
class FollowedPage:
    """All responses of one page."""

    path: str
    views: list[PageView] = field(default_factory=list)

    async def follow(self, client: httpx.AsyncClient) -> None:
        """Request the page again and again until cancelled."""
        while True:
            asked_s = time.monotonic()
            try:
                response = await client.get(self.path)
                status, text = response.status_code, response.text
            except httpx.HTTPError:
                status, text = 0, ""
            named = frozenset(one for one in (BROKER_TEXT, STORE_TEXT) if one in text)
            self.views.append(PageView(asked_s, time.monotonic(), status, named))
            await asyncio.sleep(PAUSE_S)

    def named_after_s(self, text: str, since_s: float, until_s: float) -> float | None:
        """Return the time in seconds from ``since_s`` to the first response that names a fault; None if no response
        before ``until_s`` names the fault."""
        times = [one.got_s for one in self.views if since_s <= one.got_s <= until_s and text in one.named]
        return round(min(times) - since_s, 1) if times else None

    def cleared_after_s(self, text: str, since_s: float) -> float | None:
        """Return the time in seconds from ``since_s`` to the first response after which no response names the
        fault; None if the last response names the fault."""
        later = [one for one in self.views if one.asked_s >= since_s]
        named = [number for number, one in enumerate(later) if text in one.named]
        first = named[-1] + 1 if named else 0
        return round(later[first].got_s - since_s, 1) if first < len(later) else None

    def slowest_s(self, since_s: float, until_s: float) -> float:
        """Return the longest time in seconds that a request of an interval took."""
        return round(
            max((one.got_s - one.asked_s for one in self.views if since_s <= one.asked_s <= until_s), default=0.0), 1
        )

    def failures(self) -> int:
        """Return the number of requests without the status 200."""
        return sum(one.status != httpx.codes.OK for one in self.views)
