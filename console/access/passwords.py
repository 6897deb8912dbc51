"""Hashes of passwords with Argon2id (RFC 9106), and the rules for new passwords."""

from __future__ import annotations

import asyncio
import functools
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from console.exceptions import BadInput, TooManyAttempts

MIN_CHARS = 12
"""Minimum length of a password in characters. Length protects better than rules about kinds of characters (NIST
SP 800-63B)."""
MAX_BYTES = 1024
"""Maximum length of a password in bytes, so that a request cannot make the hash function read megabytes."""
ONE_TIME_BYTES = 12
"""Random bytes of a one-time password: 16 characters that a person can copy."""
_AT_ONCE = 2
"""Maximum number of hashes that are computed at the same time. A hash takes 64 MiB of memory and a processor core."""
_WAITING = 16
"""Maximum number of hashes that wait. If more hashes wait, sign-in is refused for a moment, so that a flood of
attempts cannot use up memory."""


def make_hasher() -> PasswordHasher:
    """Return the hasher with the second recommended choice of parameters of RFC 9106, on one thread."""
    return PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)


def one_time_password() -> str:
    """Return a new random password, to be replaced at the first sign-in."""
    return secrets.token_urlsafe(ONE_TIME_BYTES)


def require_good(password: str, name: str) -> None:
    """Raise BadInput if a new password is too short, too long, or contains the user's name."""
    if len(password) < MIN_CHARS:
        raise BadInput(f"the password has {len(password)} characters: expected at least {MIN_CHARS}")
    if len(password.encode(errors="surrogatepass")) > MAX_BYTES:
        raise BadInput(f"the password is too long: expected at most {MAX_BYTES} bytes")
    if len(set(password)) < 5 or name.lower() in password.lower():
        raise BadInput("the password is easy to guess: expected no user name and at least five different characters")


class Passwords:
    """Computes and verifies hashes in threads, a limited number at a time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or make_hasher()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    def hash_now(self, password: str) -> str:
        """Return the hash of a password. This method blocks for about 0.1 s."""
        return self._hasher.hash(password)

    async def hash(self, password: str) -> str:
        """Return the hash of a password. Raise TooManyAttempts if too many other hashes wait."""
        async with self._slot():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Return whether a password matches a stored hash.

        For a user who does not exist, ``stored`` is None. For an unknown user, the password is checked against
        another hash, so that the time of the response does not tell whether the user exists. Raise TooManyAttempts if
        too many other hashes wait.
        """
        usable = stored if stored and stored.startswith("$argon2") else None  # else the user has no password
        async with self._slot():
            matches = await asyncio.to_thread(self._matches, usable or self._dummy, password)
        return matches and usable is not None

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password[: MAX_BYTES + 1])
        except (VerificationError, InvalidHashError):
            return False

    def _slot(self) -> _Slot:
        return _Slot(self)

    @functools.cached_property
    def _dummy(self) -> str:
        return self._hasher.hash(secrets.token_hex())


class _Slot:
    """Asynchronous context in which one hash is computed."""

    def __init__(self, owner: Passwords) -> None:
        self._owner = owner

    async def __aenter__(self) -> None:
        if self._owner._waiting >= _WAITING:
            raise TooManyAttempts(wait_s=5.0)
        self._owner._waiting += 1
        try:
            await self._owner._slots.acquire()
        finally:
            self._owner._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._owner._slots.release()
