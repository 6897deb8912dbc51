"""Sessions of signed-in browsers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from console.access.roles import Identity
from console.state.database import Database, digest
from console.state.users import user_of
from ingest.runtime.clock import Clock

IDLE_S = 12 * 3600.0
"""Time without a request after which a session ends, in seconds: a working day."""
LONGEST_S = 7 * 86_400.0
"""Time after which a session ends even if it is used, in seconds."""
_TOUCH_NS = 60_000_000_000
"""Minimum time between two writes of a session's last use, in ns, so that not every request writes to disk."""
_AGENT_CHARS = 200


@dataclass(frozen=True, slots=True)
class OpenSession:
    """One session as its user sees it. ``hash`` identifies the session, and cannot be used to sign in."""

    hash: str
    address: str
    agent: str
    created_ns: int
    seen_ns: int


class Sessions:
    """The table of sessions. A browser has the random id of its session, and the table has the id's hash."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db, self._clock = database, clock

    def open(self, user_id: int, address: str, agent: str) -> str:
        """Begin a session and return its random id. Remove sessions that have ended."""
        secret, now_ns = secrets.token_urlsafe(32), self._clock.now_ns()
        self._db.run("DELETE FROM sessions WHERE seen_ns < ? OR created_ns < ?", *_oldest(now_ns))
        self._db.run(
            "INSERT INTO sessions (hash, user_id, csrf, address, agent, created_ns, seen_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            digest(secret),
            user_id,
            secrets.token_urlsafe(32),
            address,
            agent[:_AGENT_CHARS],
            now_ns,
            now_ns,
        )
        return secret

    def identity(self, secret: str) -> Identity | None:
        """Return the user of a session, None if the session does not exist or has ended."""
        now_ns = self._clock.now_ns()
        row = self._db.row(
            "SELECT users.*, sessions.csrf, sessions.seen_ns FROM sessions JOIN users ON users.id = sessions.user_id"
            " WHERE hash = ? AND users.enabled AND sessions.seen_ns >= ? AND sessions.created_ns >= ?",
            digest(secret),
            *_oldest(now_ns),
        )
        if row is None:
            return None
        if now_ns - row["seen_ns"] > _TOUCH_NS:
            self._db.run("UPDATE sessions SET seen_ns = ? WHERE hash = ?", now_ns, digest(secret))
        user = user_of(row)
        return Identity(user.id, user.name, user.role, user.limits, "session", row["csrf"], user.must_change)

    def of_user(self, user_id: int) -> list[OpenSession]:
        """Return the open sessions of a user, the last used first."""
        rows = self._db.rows(
            "SELECT hash, address, agent, created_ns, seen_ns FROM sessions"
            " WHERE user_id = ? AND seen_ns >= ? AND created_ns >= ? ORDER BY seen_ns DESC",
            user_id,
            *_oldest(self._clock.now_ns()),
        )
        return [OpenSession(**dict(row)) for row in rows]

    def close(self, secret: str) -> None:
        """End one session."""
        self._db.run("DELETE FROM sessions WHERE hash = ?", digest(secret))

    def close_all(self, user_id: int) -> None:
        """End all sessions of a user."""
        self._db.run("DELETE FROM sessions WHERE user_id = ?", user_id)


def _oldest(now_ns: int) -> tuple[int, int]:
    """Return two limits in Unix ns: a session is open if it was last used, and begun, no earlier than these times."""
    return now_ns - round(IDLE_S * 1e9), now_ns - round(LONGEST_S * 1e9)
