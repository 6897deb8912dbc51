"""Tests that kept and withheld frames together cover each frame number of an epoch exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.camera.tally import Tally
from ingest.contract.records import WithheldInterval
from ingest.ledger.intervals import Cover

REASONS = ("still", "rate", "overload", "keep")


def tiles(pieces: list[WithheldInterval], kept: list[int], last: int) -> bool:
    cover = Cover()
    for account in pieces:
        cover.add(account.first, account.last)
    for seq in kept:
        cover.add(seq, seq)
    return not cover.holes(0, last) and not cover.overlaps() and cover.last == last


@given(decisions=st.lists(st.sampled_from(REASONS), min_size=1, max_size=60))
def test_kept_and_withheld_frames_cover_every_frame_number_exactly_once(decisions: list[str]) -> None:
    tally, accounts, kept = Tally("a", 7), [], []
    for decision in decisions:
        seq = tally.number()
        if decision == "keep":
            account = tally.account()
            accounts += [account] if account else []
            kept.append(seq)
        else:
            tally.withhold(decision)
    tail = tally.tail()
    accounts += [tail] if tail else []
    assert tiles(accounts, kept, len(decisions) - 1)
    for reason in REASONS[:3]:
        assert sum(a.counts.get(reason, 0) for a in accounts) == decisions.count(reason)


@given(decisions=st.lists(st.sampled_from(REASONS), min_size=1, max_size=60), behind=st.integers(0, 9))
def test_withheld_counts_are_right_although_the_gate_decides_after_later_frames_were_numbered(
    decisions: list[str], behind: int
) -> None:
    tally, accounts, kept = Tally("a", 7), [], []
    for number, _ in enumerate([*decisions, *[""] * behind]):
        if number < len(decisions):
            tally.number()
        if number >= behind:
            seq, decision = number - behind, decisions[number - behind]
            if decision == "keep":
                account = tally.account()
                assert account is None or account.last == seq - 1
                accounts += [account] if account else []
                kept.append(seq)
            else:
                tally.withhold(decision)
    tail = tally.tail()
    accounts += [tail] if tail else []
    assert tiles(accounts, kept, len(decisions) - 1)


def test_counts_of_withheld_frames_are_sent_with_the_next_kept_frame() -> None:
    tally = Tally("a", 7)
    for _ in range(3):
        tally.number()
        tally.withhold("still")
    assert tally.number() == 3
    account = tally.account()
    assert account is not None
    assert (account.first, account.last, account.counts) == (0, 2, {"still": 3})
    assert tally.tail() is None


@given(decisions=st.lists(st.sampled_from(REASONS), max_size=20), left=st.integers(1, 9))
def test_one_call_withholds_all_frames_that_have_no_gate_decision_yet(decisions: list[str], left: int) -> None:
    tally, accounts, kept = Tally("a", 7), [], []
    for seq in range(len(decisions) + left):
        tally.number()
        if seq < len(decisions) and decisions[seq] == "keep":
            account = tally.withheld
            assert tally.account() == account
            accounts += [account] if account else []
            kept.append(seq)
        elif seq < len(decisions):
            tally.withhold(decisions[seq])
    tally.give_up("unusable")
    tail = tally.tail()
    assert tail is not None
    assert tail.counts["unusable"] == left
    assert tiles([*accounts, tail], kept, len(decisions) + left - 1)
