"""The verdict on a run, from the receipts and the posts. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from benchmarks.delivery.peers import ReceivedPost
from ingest.contract.records import Delivery


def final_states(receipts: Iterable[Delivery]) -> dict[tuple[str, str], Delivery]:
    """Return, for each alert and receiver, the receipt that decides the alert's state: a receipt of success, or else
    the last receipt."""
    found: dict[tuple[str, str], Delivery] = {}
    for receipt in receipts:
        key = receipt.alert, receipt.receiver
        if key not in found or found[key].state != "delivered":
            found[key] = receipt
    return found


def receipts_table(receipts: Sequence[Delivery]) -> dict[str, dict[str, Any]]:
    """Return, for each receiver, the number of alerts by final state, and the receipts of one alert in order."""
    by_receiver: defaultdict[str, list[Delivery]] = defaultdict(list)
    for receipt in receipts:
        by_receiver[receipt.receiver].append(receipt)
    table = {}
    for name, own in sorted(by_receiver.items()):
        first = own[0].alert
        table[name] = {
            "states": dict(Counter(one.state for one in final_states(own).values())),
            "attempts": len(own),
            "receipts_of_first_alert": [
                f"{one.attempt}: {one.state}" + (f" ({one.reason})" if one.reason else "")
                for one in own
                if one.alert == first
            ],
        }
    return table


def lost(
    alerts: Collection[str], receiver: str, receipts: Sequence[Delivery], posts: Sequence[ReceivedPost]
) -> list[str]:
    """Return the faults of the deliveries to one receiver.

    Each alert must have been accepted or be dead, an alert with a receipt of success must have been accepted, and
    every post must carry the id of its alert.
    """
    final = {alert: one.state for (alert, name), one in final_states(receipts).items() if name == receiver}
    accepted = {post.id for post in posts if post.answer == "accept"}
    faults = [f"{alert} is lost" for alert in alerts if alert not in accepted and final.get(alert) != "dead"]
    faults += [f"{alert} has no final receipt" for alert in alerts if final.get(alert) not in ("delivered", "dead")]
    faults += [f"{a} has a receipt but no post" for a, of in final.items() if of == "delivered" and a not in accepted]
    faults += [f"a post of {post.alert} has the id {post.id}" for post in posts if post.id != post.alert]
    return faults
