"""Tests of the verdict of ``benchmarks.delivery``."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.delivery.__main__ import verdict
from benchmarks.delivery.judge import lost, receipts_table
from benchmarks.delivery.peers import ReceivedPost
from ingest.contract.records import Delivery


def receipt(alert: str, state: str, attempt: int = 1, receiver: str = "r") -> Delivery:
    fields = {"alert": alert, "incident": "i", "receiver": receiver, "state": state, "attempt": attempt}
    return Delivery.model_validate(
        {**fields, "attempted_ns": attempt, "reason": "status 500" * (state != "delivered")}
    )


def post(alert: str, answer: str = "accept", sent_id: str = "") -> ReceivedPost:
    return ReceivedPost(sent_id or alert, alert, 2, 1, answer)


GOOD_RECEIPTS = [receipt("a", "retrying"), receipt("a", "delivered", 2), receipt("b", "dead")]
GOOD_POSTS = [post("a", "500"), post("a"), post("a"), post("b", "close")]


@pytest.mark.parametrize(
    ("receipts", "posts", "expected"),
    [
        (GOOD_RECEIPTS, GOOD_POSTS, []),
        (GOOD_RECEIPTS[:2], GOOD_POSTS, ["b is lost", "b has no final receipt"]),
        (GOOD_RECEIPTS, GOOD_POSTS[:1], ["a is lost", "a has a receipt but no post"]),
        ([receipt("a", "retrying"), receipt("b", "dead")], GOOD_POSTS, ["a has no final receipt"]),
        (GOOD_RECEIPTS, [*GOOD_POSTS, post("a", sent_id="other")], ["a post of a has the id other"]),
    ],
)
def test_a_lost_alert_or_a_changed_id_fails_the_kill_run(
    receipts: list[Delivery], posts: list[ReceivedPost], expected: list[str]
) -> None:
    assert lost(["a", "b"], "r", receipts, posts) == expected


def test_the_table_has_the_final_state_of_each_alert_at_each_receiver() -> None:
    table = receipts_table([*GOOD_RECEIPTS, receipt("a", "dead", receiver="s")])
    assert table["r"]["states"] == {"delivered": 1, "dead": 1}
    assert table["r"]["receipts_of_first_alert"] == ["1: retrying (status 500)", "2: delivered"]
    assert table["s"]["states"] == {"dead": 1}


def test_a_receiver_with_an_unexpected_final_state_fails_the_run() -> None:
    names = ("accepts", "restarted", "answers-429", "slow", "answers-500", "answers-410", "redirects", "untrusted")
    receivers: dict[str, Any] = {
        name: {"states": {"delivered" if number < 3 else "dead": 3}}
        for number, name in enumerate((*names, "not-allowed"))
    }
    assert verdict({"faults": {"alerts": 3, "receivers": receivers}}) == []
    receivers["redirects"] = {"states": {"delivered": 3}}
    assert verdict({"faults": {"alerts": 3, "receivers": receivers}}) == ["redirects: {'delivered': 3}"]
