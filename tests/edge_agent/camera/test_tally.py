"""Numbers and accounts: whatever is kept or withheld, the epoch is tiled exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.camera.tally import Tally
from ingest.contract.records import Account
from ingest.ledger.intervals import Cover

REASONS = ("still", "rate", "overload", "keep")


def tiles(pieces: list[Account], kept: list[int], last: int) -> bool:
    cover = Cover()
    for account in pieces:
        cover.add(account.first, account.last)
    for seq in kept:
        cover.add(seq, seq)
    return not cover.holes(0, last) and not cover.overlaps() and cover.last == last


@given(fates=st.lists(st.sampled_from(REASONS), min_size=1, max_size=60))
def test_accounts_and_kept_frames_tile_the_epoch(fates: list[str]) -> None:
    tally, accounts, kept = Tally("a", 7), [], []
    for fate in fates:
        seq = tally.number()
        if fate == "keep":
            account = tally.account()
            accounts += [account] if account else []
            kept.append(seq)
        else:
            tally.withhold(fate)
    tail = tally.tail()
    accounts += [tail] if tail else []
    assert tiles(accounts, kept, len(fates) - 1)
    for reason in REASONS[:3]:
        assert sum(a.counts.get(reason, 0) for a in accounts) == fates.count(reason)


@given(fates=st.lists(st.sampled_from(REASONS), min_size=1, max_size=60), behind=st.integers(0, 9))
def test_fates_may_come_later_than_numbers(fates: list[str], behind: int) -> None:
    tally, accounts, kept = Tally("a", 7), [], []
    for number, _ in enumerate([*fates, *[""] * behind]):
        if number < len(fates):
            tally.number()
        if number >= behind:
            seq, fate = number - behind, fates[number - behind]
            if fate == "keep":
                account = tally.account()
                assert account is None or account.last == seq - 1
                accounts += [account] if account else []
                kept.append(seq)
            else:
                tally.withhold(fate)
    tail = tally.tail()
    accounts += [tail] if tail else []
    assert tiles(accounts, kept, len(fates) - 1)


def test_an_account_ends_just_before_its_frame() -> None:
    tally = Tally("a", 7)
    for _ in range(3):
        tally.number()
        tally.withhold("still")
    assert tally.number() == 3
    account = tally.account()
    assert account is not None
    assert (account.first, account.last, account.counts) == (0, 2, {"still": 3})
    assert tally.tail() is None


@given(fates=st.lists(st.sampled_from(REASONS), max_size=20), left=st.integers(1, 9))
def test_what_has_no_fate_yet_may_be_given_up(fates: list[str], left: int) -> None:
    tally, accounts, kept = Tally("a", 7), [], []
    for seq in range(len(fates) + left):
        tally.number()
        if seq < len(fates) and fates[seq] == "keep":
            account = tally.withheld
            assert tally.account() == account
            accounts += [account] if account else []
            kept.append(seq)
        elif seq < len(fates):
            tally.withhold(fates[seq])
    tally.give_up("unusable")
    tail = tally.tail()
    assert tail is not None
    assert tail.counts["unusable"] == left
    assert tiles([*accounts, tail], kept, len(fates) + left - 1)
