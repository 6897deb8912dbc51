"""What an agent says on ``status`` that must arrive: ends of epochs and accounts that no frame carries. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.spool.schema import Kind, Row
from ingest.contract.codec import encode
from ingest.contract.records import Account, EpochEnd, Heartbeat, SensorLedger
from ingest.runtime.clock import Clock

SERVICE = "agent"


def ended_row(instance: str, ends: Sequence[EpochEnd], accounts: Sequence[Account], clock: Clock) -> Row:
    """Return the row for ``status`` that closes epochs."""
    beat = Heartbeat(
        service=SERVICE, instance=instance, at_ns=clock.now_ns(), ended=tuple(ends), accounts=tuple(accounts)
    )
    return Row("status", instance, 0, 0, clock.now_ns(), encode(beat))


def accounts_row(instance: str, accounts: Sequence[Account], clock: Clock, kind: Kind = "frame") -> Row:
    """Return the row for ``status`` that accounts for frames or readings which left the spool."""
    return (ended_row if kind == "frame" else readings_row)(instance, (), accounts, clock)


def readings_row(instance: str, ends: Sequence[EpochEnd], accounts: Sequence[Account], clock: Clock) -> Row:
    """Return the row for ``status`` that closes epochs of sensors, and accounts for readings that none carries."""
    ledger = SensorLedger(accounts=tuple(accounts), ended=tuple(ends))
    beat = Heartbeat(service=SERVICE, instance=instance, at_ns=clock.now_ns(), readings=ledger)
    return Row("status", instance, 0, 0, clock.now_ns(), encode(beat))


def notice_row(instance: str, reason: str, clock: Clock) -> Row:
    """Return the row for ``status`` that says something of the agent itself: an outage of its disk, as it begins."""
    beat = Heartbeat(service=SERVICE, instance=instance, at_ns=clock.now_ns(), reason=reason)
    return Row("status", instance, 0, 0, clock.now_ns(), encode(beat))
