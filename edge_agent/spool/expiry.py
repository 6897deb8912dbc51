"""The account of a frame that expired from a full spool. Pure."""

from __future__ import annotations

from collections import Counter

from edge_agent.spool.schema import Row
from ingest import headers as h
from ingest.identity import FrameId
from ingest.records import Account

__all__ = ["expired_account", "merged"]


def expired_account(row: Row) -> Account:
    """Return the account of a kept frame that goes, together with what was withheld before it."""
    before = h.account_of({h.ACCOUNT: row.account.encode()}, FrameId(row.name, row.epoch, row.seq))
    counts = Counter(before.counts if before else {})
    counts["expired"] += 1
    first = before.first if before else row.seq
    return Account(camera=row.name, epoch=row.epoch, first=first, last=row.seq, counts=dict(counts))


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
