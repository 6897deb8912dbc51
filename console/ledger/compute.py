"""The process that computes a ledger or an explanation from the log.

The process reads a request as JSON from its standard input: ``{"explain": NAME}`` or ``{}`` for the ledger. The
process prints its progress and the report.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from console.child import compute
from ingest.kafka.log import Log
from ingest.ledger.auditor import Progress, audit
from ingest.site.topic import store

SETTLE_S = 10.0
"""Time to wait for frames that are still being processed, in seconds. A healthy pipeline needs less than a second."""


async def ledger_report(log: Log, on_progress: Progress, wait_s: float = SETTLE_S) -> dict[str, Any]:
    """Return the counts of frames by outcome, of all cameras and by hour, as values for JSON. Raise
    LogUnavailable."""
    found = (await audit(log, wait_s=wait_s, by_hour=True, on_progress=on_progress)).to_dict()
    return {name: found[name] for name in ("balanced", "hours", "truncated", "left_out", "unclean", "expired_unread")}


async def explanation(log: Log, name: str) -> dict[str, Any]:
    """Return the lines of the explanation of a frame ``camera/epoch/seq``, and the events of the frame.

    Raise FrameNotFound or LogUnavailable.
    """
    from stream.explain.explanation import explain  # imports all rules
    from stream.explain.lines import lines
    from stream.rules import validated

    found = (await explain(log, name, await store.read(log, validate=validated))).to_dict()
    events = [{"id": one["id"], "summary": one["data"]["summary"]} for one in found["events"]]
    return {"lines": list(lines(found)), "events": events}


def main() -> None:
    """Compute one report."""
    name = json.loads(sys.stdin.read()).get("explain")
    compute("console-compute", lambda log, progress: explanation(log, name) if name else ledger_report(log, progress))


if __name__ == "__main__":
    main()
