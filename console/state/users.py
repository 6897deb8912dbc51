"""Users with their password hashes, roles and limits."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass

from console.access.roles import Limits, Role
from console.exceptions import BadInput, NotFound
from console.state.database import Database
from ingest.runtime.clock import Clock

FIRST_ADMIN = "admin"
PROVIDER = "oidc:"
"""Begin of the stored password of a user who signs in at an OpenID Connect provider. No password matches a stored
password that begins so."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class User:
    """One user. ``password`` is the hash of the password. With ``must_change``, the password is a one-time
    password."""

    id: int
    name: str
    password: str
    role: Role
    limits: Limits
    must_change: bool
    enabled: bool
    created_ns: int

    @property
    def at_provider(self) -> bool:
        """Whether the user signs in at the OpenID Connect provider."""
        return self.password.startswith(PROVIDER)


class Users:
    """The table of users. Names are stored in lower case."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db, self._clock = database, clock

    def add(self, name: str, password: str, role: Role, limits: Limits, *, must_change: bool) -> User:
        """Add a user with the hash of a password. Raise BadInput for an unusable or taken name."""
        name = plain_name(name)
        if not _NAME.fullmatch(name):
            raise BadInput(f"user name {name[:64]!r}: expected 1 to 64 of the characters a-z, 0-9, . _ @ + -")
        try:
            number = self._db.insert(
                "INSERT INTO users"
                " (name, password, role, everywhere, sites, cameras, must_change, enabled, created_ns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
                name,
                password,
                role.value,
                *_columns(limits),
                must_change,
                self._clock.now_ns(),
            )
        except sqlite3.IntegrityError:
            raise BadInput(f"user name {name!r} is taken: choose another name") from None
        return self.get(number)

    def get(self, number: int) -> User:
        """Return a user by id. Raise NotFound."""
        row = self._db.row("SELECT * FROM users WHERE id = ?", number)
        if row is None:
            raise NotFound("this user does not exist: load the list of users again")
        return user_of(row)

    def named(self, name: str) -> User | None:
        """Return the user of a name in upper or lower case, None if there is none."""
        row = self._db.row("SELECT * FROM users WHERE name = ?", plain_name(name))
        return user_of(row) if row else None

    def all(self) -> list[User]:
        """Return all users, sorted by name."""
        return [user_of(row) for row in self._db.rows("SELECT * FROM users ORDER BY name")]

    def of_provider(self, subject: str, name: str, role: Role, limits: Limits) -> User:
        """Return the user of a person at the OpenID Connect provider, with the given rights; add the user at the
        first sign-in.

        ``subject`` identifies the person at the provider. If the name is taken, the new user gets a longer name, so
        that nobody gets the account of another person. Raise BadInput for an unusable name, or if nobody could manage
        users any more.
        """
        marker = f"{PROVIDER}{subject}"
        row = self._db.row("SELECT * FROM users WHERE password = ?", marker)
        if row is None:
            own = name if self.named(name) is None else f"{name[:46]}+{subject[:16]}"
            return self.add(own, marker, role, limits, must_change=False)
        user = user_of(row)
        if user.enabled:
            self.set_rights(user.id, role, limits, enabled=True)
        return self.get(user.id)

    def set_password(self, number: int, password: str, *, must_change: bool) -> None:
        """Replace the hash of a user's password, and end all sessions of the user."""
        with self._db.transaction():
            self._db.run("UPDATE users SET password = ?, must_change = ? WHERE id = ?", password, must_change, number)
            self._db.run("DELETE FROM sessions WHERE user_id = ?", number)

    def set_rights(self, number: int, role: Role, limits: Limits, *, enabled: bool) -> None:
        """Change a user's rights. A user that is switched off loses all sessions.

        Raise BadInput if nobody could manage users any more.
        """
        with self._db.transaction():
            self._db.run(
                "UPDATE users SET role = ?, everywhere = ?, sites = ?, cameras = ?, enabled = ? WHERE id = ?",
                role.value,
                *_columns(limits),
                enabled,
                number,
            )
            if not enabled:
                self._db.run("DELETE FROM sessions WHERE user_id = ?", number)
            self._require_manager()

    def remove(self, number: int) -> None:
        """Remove a user with all sessions and tokens. Raise BadInput if nobody could manage users any more."""
        with self._db.transaction():
            self._db.run("DELETE FROM users WHERE id = ?", number)
            self._require_manager()

    def _require_manager(self) -> None:
        if not self._db.row("SELECT 1 FROM users WHERE role = ? AND everywhere AND enabled", Role.ADMIN.value):
            raise BadInput("this is the last admin without limits: give another user these rights first")


def plain_name(name: str) -> str:
    """Return a user name as it is stored: in lower case, without surrounding spaces."""
    return name.strip().lower()


def user_of(row: sqlite3.Row) -> User:
    """Return the user in a row of the table."""
    limits = Limits(
        bool(row["everywhere"]), frozenset(json.loads(row["sites"])), frozenset(json.loads(row["cameras"]))
    )
    flags = bool(row["must_change"]), bool(row["enabled"])
    return User(row["id"], row["name"], row["password"], Role(row["role"]), limits, *flags, row["created_ns"])


def _columns(limits: Limits) -> tuple[bool, str, str]:
    return limits.everywhere, json.dumps(sorted(limits.sites)), json.dumps(sorted(limits.cameras))
