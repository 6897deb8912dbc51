"""The audit trail: who looked at which data, and who changed it. Entries are never changed or deleted."""

from __future__ import annotations

from dataclasses import dataclass

from console.state.database import Database
from ingest.runtime.clock import Clock

PAGE = 100
"""Number of entries on one page."""
_CHARS = 500
"""Maximum length of a text in an entry, in characters. Names and subjects may come from an attacker."""

_ACTIONS = """
    WITH RECURSIVE found(action) AS (
      SELECT min(action) FROM audit
      UNION ALL SELECT (SELECT min(action) FROM audit WHERE action > found.action) FROM found WHERE action NOT NULL)
    SELECT action FROM found WHERE action NOT NULL
"""
"""SQL query for the names of all actions, with one look into the index for each name. A query with DISTINCT would
read the whole audit trail."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action of a user. ``via`` is ``session``, ``token NAME``, or empty before a sign-in."""

    id: int
    at_ns: int
    user: str
    via: str
    address: str
    action: str
    subject: str
    detail: str


class AuditTrail:
    """The table of audit entries."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db, self._clock = database, clock

    def add(self, action: str, user: str, via: str, address: str, subject: str = "", detail: str = "") -> None:
        """Append an entry. ``action`` is in snake_case, such as ``wall_viewed``."""
        texts = [_storable(text) for text in (user, via, address, action, subject, detail)]
        self._db.run(
            "INSERT INTO audit (at_ns, user, via, address, action, subject, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            self._clock.now_ns(),
            *texts,
        )

    def page(self, user: str = "", action: str = "", before: int = 0) -> list[AuditEntry]:
        """Return up to ``PAGE`` entries, the newest first.

        ``user`` and ``action`` select entries if they are not empty. With ``before``, return entries with a smaller
        id.
        """
        conditions = {"user = ?": user, "action = ?": action, "id < ?": before}
        used = {text: value for text, value in conditions.items() if value}
        where = f"WHERE {' AND '.join(used)}" if used else ""
        statement = f"SELECT * FROM audit {where} ORDER BY id DESC LIMIT ?"  # noqa: S608  (only the texts above)
        rows = self._db.rows(statement, *used.values(), PAGE)
        return [AuditEntry(**dict(row)) for row in rows]

    def actions(self) -> list[str]:
        """Return the names of all actions in the trail, sorted."""
        return [row["action"] for row in self._db.rows(_ACTIONS)]


def _storable(text: str) -> str:
    return text[:_CHARS].encode(errors="replace").decode()
