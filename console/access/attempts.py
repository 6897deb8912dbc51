"""Limits of the attempts to sign in, for each account and for each address. Pure."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from ingest.runtime.clock import Clock

ACCOUNT_FREE, ADDRESS_FREE = 5, 20
"""Number of failures that cause no pause: for one account, and for one address, which many people may share."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 900.0
"""First and longest pause in seconds; the pause doubles with each failure. With the longest pause, an attacker has 96
guesses a day for an account, and the owner waits at most a quarter of an hour."""
FORGET_S = 3600.0
"""Time without a failure after which earlier failures are forgotten, in seconds."""
MAX_ENTRIES = 10_000
"""Maximum number of accounts, and of addresses, in memory. Above this number, the entry without an attempt for the
longest time is forgotten."""
_V6_PREFIX = 64


@dataclass
class _Failures:
    count: int = 0
    blocked_until_s: float = 0.0
    last_s: float = 0.0


class _Table:
    """Failures by key."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._entries: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """Return the seconds until the next attempt."""
        found = self._entries.get(key)
        return max(0.0, found.blocked_until_s - now_s) if found else 0.0

    def add(self, key: str, now_s: float) -> None:
        """Count a failure."""
        found = self._entries.pop(key, None)
        if found is None or now_s - found.last_s > FORGET_S:
            found = _Failures()
        found.count += 1
        found.last_s = now_s
        if found.count >= self._free:
            pause_s = FIRST_PAUSE_S * 2.0 ** min(found.count - self._free, 10)
            found.blocked_until_s = now_s + min(pause_s, LONGEST_PAUSE_S)
        self._entries[key] = found
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Remove one failure, and end the pause if the remaining failures cause no pause."""
        found = self._entries.get(key)
        if found:
            found.count -= 1
            found.blocked_until_s = found.blocked_until_s if found.count >= self._free else 0.0

    def forget(self, key: str) -> None:
        """Remove all failures of ``key``, which is an account or an address."""
        self._entries.pop(key, None)


class SignInLimiter:
    """Counts failures by account and by address, and returns the pause before the next attempt.

    An attempt counts as a failure from its start until it succeeds, so that many attempts at the same time are
    limited too. A success forgets the failures of the account. The failures of the address remain after a success,
    because an attacker may own an account.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts, self._addresses = _Table(ACCOUNT_FREE), _Table(ADDRESS_FREE)

    def begin(self, account: str, address: str) -> float:
        """Count an attempt and return 0, or return the seconds to wait and count nothing."""
        now_s, source = self._clock.monotonic(), network(address)
        wait_s = max(self._accounts.wait_s(account, now_s), self._addresses.wait_s(source, now_s))
        if wait_s <= 0.0:
            self._accounts.add(account, now_s)
            self._addresses.add(source, now_s)
        return wait_s

    def succeeded(self, account: str, address: str) -> None:
        """Record that the attempt succeeded."""
        self._accounts.forget(account)
        self._addresses.take_back(network(address))


def network(address: str) -> str:
    """Return the part of an address that identifies its owner: an IPv4 address, or the first 64 bits of an IPv6
    address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found.packed, _V6_PREFIX), strict=False))
    return str(found)
