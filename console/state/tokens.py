"""API tokens, with which programs use the HTTP API."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from console.access.roles import Identity, Role
from console.exceptions import BadInput, Forbidden
from console.state.database import Database, digest
from console.state.users import user_of
from ingest.runtime.clock import Clock

PREFIX = "slt_"
"""Beginning of every token, by which scanners of repositories recognise a leaked token."""
MAX_DAYS = 3660
MAX_PER_USER = 100
_TOUCH_NS = 60_000_000_000
_NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One token as its owner sees it. ``expires_ns`` is 0 for a token without an end."""

    id: int
    name: str
    role: Role
    created_ns: int
    expires_ns: int
    used_ns: int


class Tokens:
    """The table of tokens, which has only their hashes.

    A token has at most the role of its owner, and the owner's limits. A token ends when its owner is switched off.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db, self._clock = database, clock

    def add(self, owner: Identity, name: str, role: Role, days: int) -> str:
        """Add a token that ends after ``days`` days, or never if ``days`` is 0. Return the token.

        Raise BadInput for a wrong value, and Forbidden for an owner who signed in with a token: otherwise a token
        could live on by adding new tokens.
        """
        if owner.via != "session":
            raise Forbidden("a token cannot add tokens: sign in with a browser")
        name = name.strip()
        if not 0 < len(name) <= _NAME_CHARS:
            raise BadInput(f"the name of the token has {len(name)} characters: expected 1 to {_NAME_CHARS}")
        if not 0 <= days <= MAX_DAYS:
            raise BadInput(f"days = {days}: expected 0 for no end, or up to {MAX_DAYS}")
        if not owner.role.includes(role):
            raise BadInput(f"role {role}: expected at most your own role, {owner.role}")
        if len(self.of_user(owner.user_id)) >= MAX_PER_USER:
            raise BadInput(f"you have {MAX_PER_USER} tokens: remove one first")
        secret, now_ns = PREFIX + secrets.token_urlsafe(32), self._clock.now_ns()
        self._db.run(
            "INSERT INTO tokens (hash, user_id, name, role, created_ns, expires_ns, used_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, 0)",
            digest(secret),
            owner.user_id,
            name,
            role.value,
            now_ns,
            now_ns + days * 86_400_000_000_000 if days else 0,
        )
        return secret

    def identity(self, secret: str) -> Identity | None:
        """Return the owner of a token with the token's role, None if the token does not exist or has ended."""
        now_ns = self._clock.now_ns()
        row = self._db.row(
            "SELECT users.*, tokens.id AS token, tokens.name AS called, tokens.role AS given, tokens.used_ns"
            " FROM tokens JOIN users ON users.id = tokens.user_id"
            " WHERE hash = ? AND users.enabled AND (tokens.expires_ns = 0 OR tokens.expires_ns > ?)",
            digest(secret),
            now_ns,
        )
        if row is None:
            return None
        if now_ns - row["used_ns"] > _TOUCH_NS:
            self._db.run("UPDATE tokens SET used_ns = ? WHERE id = ?", now_ns, row["token"])
        user, given = user_of(row), Role(row["given"])
        role = given if user.role.includes(given) else user.role
        return Identity(user.id, user.name, role, user.limits, f"token {row['called']}", "", user.must_change)

    def of_user(self, user_id: int) -> list[ApiToken]:
        """Return the tokens of a user, the newest first."""
        rows = self._db.rows(
            "SELECT id, name, role, created_ns, expires_ns, used_ns FROM tokens WHERE user_id = ? ORDER BY id DESC",
            user_id,
        )
        return [ApiToken(**{**dict(row), "role": Role(row["role"])}) for row in rows]

    def remove(self, user_id: int, number: int) -> bool:
        """Remove a token of a user. Return whether the token existed."""
        return self._db.run("DELETE FROM tokens WHERE id = ? AND user_id = ?", number, user_id) > 0
