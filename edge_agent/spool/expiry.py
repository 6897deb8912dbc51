"""The account of what expired from a full spool. Pure."""

from __future__ import annotations

from collections import Counter

from edge_agent.spool.schema import Row
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import Account, Readings


def expired_account(row: Row) -> Account:
    """Return the account of a kept row that goes, together with what was withheld before it."""
    first, last, before = _kept(row)
    counts = Counter(before.counts if before else {})
    counts["expired"] += last - first + 1
    first = before.first if before else first
    return Account(camera=row.name, epoch=row.epoch, first=first, last=last, counts=dict(counts))


def merged(accounts: list[Account]) -> list[Account]:
    """Join accounts that follow on each other, so that a long outage is told in few words."""
    joined: list[Account] = []
    for account in accounts:
        last = joined[-1] if joined else None
        if last and (last.camera, last.epoch, last.last + 1) == (account.camera, account.epoch, account.first):
            counts = Counter(last.counts) + Counter(account.counts)
            joined[-1] = last.model_copy(update={"last": account.last, "counts": dict(counts)})
        else:
            joined.append(account)
    return joined


def _kept(row: Row) -> tuple[int, int, Account | None]:
    """Return the numbers that a row holds, first and last, and the account of what was withheld before them."""
    if row.kind == "readings":
        readings = decode(Readings, row.record)
        return readings.seq, readings.last_seq, readings.account
    before = h.account_of({h.ACCOUNT: row.account.encode()}, FrameId(row.name, row.epoch, row.seq))
    return row.seq, row.seq, before
