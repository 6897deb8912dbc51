"""The process that computes a ledger or an explanation from the log.

The process reads a request as JSON from its standard input: ``{"explain": NAME}`` or ``{}`` for the ledger. The
process prints one JSON object per line: ``{"progress": [READ, ALL]}``, and at last ``{"report": …}`` or ``{"problem":
TEXT}``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ingest.exceptions import IngestError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import Progress, audit
from ingest.runtime import eventloop, logs
from ingest.site.topic import store
from stream.exceptions import StreamError

NICENESS = 10
"""Niceness of the process, so that services on the same machine get the processor first."""
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


async def _run(request: dict[str, str]) -> dict[str, object]:
    def progress(read: int, total: int) -> None:
        _say({"progress": [read, total]})

    try:
        async with KafkaLog(KafkaSettings.from_env(os.environ), f"console-compute-{os.getpid()}") as log:
            name = request.get("explain")
            return {"report": await (explanation(log, name) if name else ledger_report(log, progress))}
    except (IngestError, StreamError) as error:
        return {"problem": str(error)}


def _say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Compute one report."""
    os.nice(NICENESS)
    logs.quiet_clients()
    _say(eventloop.run(_run(json.loads(sys.stdin.read()))))


if __name__ == "__main__":
    main()
