"""The decisions of people on labels, in the topic ``labels``: the valid decisions, reading and writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import LabelDecision
from ingest.contract.topics import LABELS
from ingest.exceptions import CodecError
from ingest.kafka.follow import Follower
from ingest.kafka.log import Log, Outgoing
from ingest.runtime import logs

_log = logs.get("stream.labels")


class DecisionView:
    """The valid decisions of people on labels: the latest decision on each object, unless it was withdrawn. Pure.

    ``most`` is the maximum number of decisions that are kept. If there are more decisions, the oldest decisions are
    dropped.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        self._most = most
        self._decisions: dict[str, LabelDecision] = {}

    def __iter__(self) -> Iterator[LabelDecision]:
        return iter(self._decisions.values())

    def __len__(self) -> int:
        return len(self._decisions)

    def of(self, object_: str) -> LabelDecision | None:
        """Return the valid decision on an object; None without a decision."""
        return self._decisions.get(object_)

    def add(self, decision: LabelDecision) -> None:
        """Add a decision; decisions must come in the order of the log."""
        self._decisions.pop(decision.object, None)
        if decision.verdict != "undo":
            self._decisions[decision.object] = decision
            if len(self._decisions) > self._most:
                del self._decisions[next(iter(self._decisions))]


async def read_decisions(log: Log) -> DecisionView:
    """Return the valid decisions of the topic ``labels``. An unreadable record of a decision is logged and skipped.
    Raise LogUnavailable."""
    view = DecisionView()
    async with aclosing(Follower(log, LABELS, from_start=True).new()) as records:
        async for record in records:
            try:
                view.add(decode_json(LabelDecision, record.value))
            except CodecError as error:
                _log.warning("label_decision_unreadable", offset=record.offset, error=str(error))
    return view


async def write_decision(log: Log, decision: LabelDecision) -> None:
    """Write a decision. If a decision is written twice, it counts once. Raise LogUnavailable."""
    await log.produce(Outgoing(LABELS, 0, encode_json(decision), key=decision.object.encode()))
